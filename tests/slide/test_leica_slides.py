import numpy as np
import openslide
import pytest
import tifffile
from slide_writer import halved, stained

from mitoray.errors import NotASlide
from mitoray.slide import Rect, open_slide

NM_PER_PX = 500


def scn_image(name, sizes, first_page, extent_px, origin_px):
    dimensions = "".join(
        f'<dimension sizeX="{width}" sizeY="{height}" r="{r}" ifd="{first_page + r}"/>'
        for r, (height, width) in enumerate(sizes)
    )
    (width, height), (x, y) = extent_px, origin_px
    return f"""<image name="{name}" uuid="u"><creationDate>2020-01-01T00:00:00.0Z</creationDate>
        <device model="Leica SCN400" version="1"/>
        <pixels sizeX="{sizes[0][1]}" sizeY="{sizes[0][0]}">{dimensions}</pixels>
        <view sizeX="{width * NM_PER_PX}" sizeY="{height * NM_PER_PX}"
              offsetX="{x * NM_PER_PX}" offsetY="{y * NM_PER_PX}" spacingZ="0"/>
        <scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
        <illuminationSettings><numericalAperture>0.4</numericalAperture>
        <illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def write_scn(path, origins):
    """A collection of 3000 × 6000 px: a macro image, and areas of 1280 × 1024 px in two levels at `origins`."""
    area = stained(1024, 1280)
    pages = [stained(256, 384)] + [area, halved(area)] * len(origins)
    images = scn_image("macro", [(256, 384)], 0, (3000, 6000), (0, 0))
    for number, origin in enumerate(origins):
        images += scn_image("main", [(1024, 1280), (512, 640)], 1 + 2 * number, (1280, 1024), origin)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="u">'
        f'<collection name="c" uuid="u" sizeX="{3000 * NM_PER_PX}" sizeY="{6000 * NM_PER_PX}">'
        f"<barcode>x</barcode>{images}</collection></scn>"
    )
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None, "compression": "jpeg"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, page in enumerate(pages):
            tiff.write(page, description=xml if number == 0 else None, **options)
    return str(path)


def test_a_scanned_area_lies_at_its_bounds_offset_in_openslides_frame(tmp_path):
    path = write_scn(tmp_path / "s.scn", [(700, 900)])
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert (slide.width_px, slide.height_px, slide.mpp) == (1280, 1024, 0.5)
        assert [level.downsample for level in slide.levels] == [1, 2]
        assert slide.bounds_offset_px == (700, 900)
        pixels = slide.read_region(Rect(100, 200, 500, 500), 0.5).astype(int)
        expected = np.asarray(reference.read_region((800, 1100), 0, (500, 500)))[..., :3]
    assert np.abs(pixels - expected).max() <= 2


def test_several_scanned_areas_are_refused(tmp_path):
    path = write_scn(tmp_path / "s.scn", [(700, 900), (700, 3000)])
    with pytest.raises(NotASlide, match="2 scanned areas"):
        open_slide(path)
