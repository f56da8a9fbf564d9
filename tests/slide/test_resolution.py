import numpy as np
import pytest
import tifffile
from slide_writer import REAL_SLIDES, stained, write_svs, write_tiff

from mitoray.errors import AnisotropicPixels, ImplausibleResolution, UnknownResolution
from mitoray.slide import Rect, open_slide

TILED = {"tile": (128, 128), "photometric": "rgb"}


@pytest.fixture(scope="module")
def image():
    return stained(256, 300)


def opened_mpp(path, mpp=None):
    with open_slide(str(path), mpp=mpp) as slide:
        return slide.mpp, slide.mpp_source


def test_aperio_says_its_resolution(tmp_path, image):
    write_svs(tmp_path / "s.svs", image, mpp=0.2528)
    assert opened_mpp(tmp_path / "s.svs") == (0.2528, "Aperio MPP")


def test_a_decimal_comma_is_understood(tmp_path, image):
    write_svs(tmp_path / "s.svs", image, mpp="0,4961")
    assert opened_mpp(tmp_path / "s.svs") == (0.4961, "Aperio MPP")


def test_an_override_wins(tmp_path, image):
    write_svs(tmp_path / "s.svs", image, mpp=0.25)
    assert opened_mpp(tmp_path / "s.svs", mpp=0.5) == (0.5, "override")


@pytest.mark.parametrize(("size", "unit"), [(0.23, "µm"), (230.0, "nm"), (0.00023, "mm")])
def test_ome_says_its_resolution(tmp_path, image, size, unit):
    path = tmp_path / "s.ome.tif"
    metadata = {"axes": "YXS"} | {f"PhysicalSize{a}": size for a in "XY"} | {f"PhysicalSize{a}Unit": unit for a in "XY"}
    tifffile.imwrite(path, image, metadata=metadata, **TILED)
    mpp, source = opened_mpp(path)
    assert mpp == pytest.approx(0.23)
    assert source == "OME PhysicalSize"


def test_tiff_tags_say_the_resolution(tmp_path, image):
    mpp, source = opened_mpp(write_tiff(tmp_path / "s.tif", image, mpp=0.46, **TILED))
    assert mpp == pytest.approx(0.46, rel=1e-3)
    assert source == "TIFF resolution tags"


@pytest.mark.parametrize("dpi", [1, 72, 96, 300])
def test_dots_per_inch_of_a_screen_are_no_resolution(tmp_path, image, dpi):
    path = write_tiff(tmp_path / "s.tif", image, resolution=(dpi, dpi), resolutionunit="INCH", **TILED)
    with pytest.raises(UnknownResolution, match="manifest's mpp column"):
        open_slide(str(path))
    assert opened_mpp(path, mpp=0.25) == (0.25, "override")


def test_a_slide_without_resolution_hints_at_what_its_objective_means(tmp_path, image):
    write_svs(tmp_path / "s.svs", image, mpp=None)
    with pytest.raises(UnknownResolution, match=r"objective is 40×, for which about 0\.25"):
        open_slide(str(tmp_path / "s.svs"))


def test_the_real_tcga_slide_has_no_resolution():
    path = REAL_SLIDES / "TCGA-CR-7395-01A-01-TS1.svs"
    if not path.exists():
        pytest.skip("public slide TCGA-CR-7395-01A-01-TS1.svs is not in shared/data/slides")
    with pytest.raises(UnknownResolution):
        open_slide(str(path))


@pytest.mark.parametrize("mpp", [0.0, 0.05, 2.5, -0.25])
def test_an_implausible_value_is_named_with_its_source(tmp_path, image, mpp):
    write_svs(tmp_path / "s.svs", image, mpp=mpp)
    with pytest.raises(ImplausibleResolution, match=rf"{mpp:g} .* from Aperio MPP"):
        open_slide(str(tmp_path / "s.svs"))


@pytest.mark.parametrize("mpp", [0.0, 40.0, float("nan"), float("inf")])
def test_an_implausible_override_is_refused(tmp_path, image, mpp):
    write_svs(tmp_path / "s.svs", image)
    with pytest.raises(ImplausibleResolution, match="from override"):
        open_slide(str(tmp_path / "s.svs"), mpp=mpp)


def test_pixels_that_are_nearly_square_count_as_square(tmp_path, image):
    path = write_tiff(
        tmp_path / "s.tif", image, resolution=(1e4 / 0.25, 1e4 / 0.254), resolutionunit="CENTIMETER", **TILED
    )
    assert opened_mpp(path)[0] == pytest.approx(0.252, rel=1e-3)


def test_pixels_that_are_not_square_are_refused(tmp_path, image):
    path = write_tiff(
        tmp_path / "s.tif", image, resolution=(1e4 / 0.25, 1e4 / 0.26), resolutionunit="CENTIMETER", **TILED
    )
    with pytest.raises(AnisotropicPixels, match=r"0\.25 × 0\.26 µm"):
        open_slide(str(path))


def test_metadata_that_cannot_be_parsed_costs_only_the_metadata(tmp_path, image):
    # tiffslide fails on a description without an Aperio header line.
    tifffile.imwrite(tmp_path / "s.svs", image, description="Aperio |MPP = 0.25|=|broken", metadata=None, **TILED)
    assert opened_mpp(tmp_path / "s.svs", mpp=0.3) == (0.3, "override")


def test_philips_levels_halve_though_their_sizes_are_padded_to_tiles(tmp_path):
    path = tmp_path / "philips.tiff"
    full = np.full((1024, 1536, 3), 200, np.uint8)
    spacing = (
        '<DataObject ObjectType="PixelDataRepresentation">'
        '<Attribute Name="DICOM_PIXEL_SPACING">"{0}" "{0}"</Attribute></DataObject>'
    )
    spacings = "".join(spacing.format(0.00025 * 2**level) for level in range(3))
    description = (
        '<DataObject ObjectType="DPUfsImport"><Attribute Name="DICOM_MANUFACTURER">PHILIPS</Attribute>'
        f"<Array>{spacings}</Array></DataObject>"
    )
    options = {"tile": (512, 512), "photometric": "rgb", "metadata": None, "software": "Philips DP v1.0"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(full, description=description, **options)
        for level in (full[:512, :1024], full[:512, :512]):
            tiff.write(level, subfiletype=1, description="level", **options)
    with open_slide(str(path)) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert (slide.read_region(Rect(0, 0, 1536, 1024), 1.0) == 200).all()
