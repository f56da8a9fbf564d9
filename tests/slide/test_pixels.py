from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from slide_writer import REAL_SLIDES, aperio, halved, stained, write_svs, write_tiff

from mitoray.errors import NotASlide
from mitoray.slide import Rect, RegionBytes, decode_region, open_slide


def by_openslide(path, x, y, size, level=0):
    """(size, size, 3) uint8, white outside the slide."""
    with openslide.OpenSlide(path) as slide:
        region = slide.read_region((x, y), level, (size, size))
    white = Image.new("RGB", region.size, "white")
    white.paste(region, mask=region.getchannel("A"))
    return np.asarray(white).astype(int)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (501, 700), (-100, -77), (1990, 2800)])
def test_real_slides_read_as_openslide_reads_them(name, x, y):
    path = REAL_SLIDES / name
    if not path.exists():
        pytest.skip(f"public slide {name} is not in shared/data/slides")
    with open_slide(str(path), mpp=0.25) as slide:
        pixels = slide.read_region(Rect(x, y, 700, 700), 0.25).astype(int)
    assert np.abs(pixels - by_openslide(path, x, y, 700)).max() <= 2


def test_a_coarser_level_reads_as_openslide_reads_it():
    path = REAL_SLIDES / "TCGA-CR-7395-01A-01-TS1.svs"
    if not path.exists():
        pytest.skip("public slide TCGA-CR-7395-01A-01-TS1.svs is not in shared/data/slides")
    with open_slide(str(path), mpp=0.25) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]
        pixels = slide.read_region(Rect(0, 0, 1400, 1400), 0.5).astype(int)
    assert np.abs(pixels - by_openslide(path, 0, 0, 700, level=1)).max() <= 2


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "jpeg", "compressionargs": {"level": 90}},
        {"compression": "jpeg", "photometric": "ycbcr", "compressionargs": {"level": 90}},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "deflate"},
        {"compression": "deflate", "predictor": True},
        {"compression": None, "tile": (256, 256)},
    ],
    ids=str,
)
def test_every_compression_reads_as_openslide_reads_it(tmp_path, options):
    path = str(tmp_path / "slide.tif")
    write_tiff(path, stained(500, 620), **({"tile": (240, 240), "photometric": "rgb"} | options))
    with open_slide(path) as slide:
        pixels = slide.read_region(Rect(111, -30, 500, 500), 0.25).astype(int)
    assert np.abs(pixels - by_openslide(path, 111, -30, 500)).max() <= 2


def test_jpeg2000_reads_as_openslide_reads_it(tmp_path):
    path = str(tmp_path / "slide.svs")
    write_svs(path, stained(500, 620), compression=33005, compressionargs={"level": 70})
    with open_slide(path) as slide:
        pixels = slide.read_region(Rect(111, -30, 500, 500), 0.25).astype(int)
    assert np.abs(pixels - by_openslide(path, 111, -30, 500)).max() <= 2


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_jpeg2000_by_its_standard_number_keeps_its_colours(tmp_path, photometric):
    image, path = stained(500, 620), tmp_path / "slide.tif"
    stored = np.asarray(Image.fromarray(image).convert("YCbCr")) if photometric == "ycbcr" else image
    write_tiff(path, stored, tile=(240, 240), photometric=photometric, compression=34712, compressionargs={"level": 90})
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(0, 0, 620, 500), 0.25).astype(int)
    assert np.abs(pixels - image).max() <= 10


def test_aperio_jpeg2000_in_ycbcr_keeps_its_colours(tmp_path):
    image, path = stained(500, 620), str(tmp_path / "slide.svs")
    ycbcr = np.asarray(Image.fromarray(image).convert("YCbCr"))
    write_svs(path, ycbcr, compression=33003, compressionargs={"level": 90})
    with open_slide(path) as slide:
        pixels = slide.read_region(Rect(0, 0, 620, 500), 0.25).astype(int)
    assert np.abs(pixels - by_openslide(path, 0, 0, 620)[:500]).max() <= 3
    assert np.abs(pixels - image).max() <= 10


def test_aperio_jpeg2000_with_chroma_subsampled_keeps_its_colours(tmp_path):
    # A 48 px tile by OpenJPEG, 4:2:2: red rises to the right twice as fast as green, blue falls downwards.
    tile = (Path(__file__).parent / "ycbcr_422.j2k").read_bytes()
    rows, columns = np.mgrid[:48, :48]
    truth = np.dstack([120 + 2 * columns, 60 + columns, 180 - rows])
    path = tmp_path / "slide.svs"
    tifffile.imwrite(
        path, iter([tile] * 4), shape=(96, 96, 3), dtype=np.uint8, tile=(48, 48), compression=33003,
        photometric="rgb", description=aperio(np.zeros((96, 96, 3)), 0.25, 48), metadata=None,
    )  # fmt: skip
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(48, 0, 48, 48), 0.25).astype(int)
    assert np.abs(pixels - truth).max() <= 8
    assert np.abs(pixels - by_openslide(path, 48, 0, 48)).max() <= 3


@pytest.mark.parametrize("compression", ["lzw", "jpeg", None])
def test_strips_read_like_tiles(tmp_path, compression):
    image = stained(403, 300)
    path = write_tiff(tmp_path / "strips.tif", image, photometric="rgb", rowsperstrip=16, compression=compression)
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(50, 60, 250, 343), 0.25).astype(int)
    assert np.abs(pixels - image[60:, 50:]).mean() <= (0 if compression != "jpeg" else 3)


def test_an_image_in_one_huge_strip_is_refused(tmp_path):
    path = write_tiff(
        tmp_path / "strip.tif", None, shape=(10000, 10000, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=10000
    )
    with pytest.raises(NotASlide, match="in pieces of 286 MiB"):
        open_slide(str(path))


def test_gray_becomes_equal_red_green_blue(tmp_path):
    image = stained(300, 300)[..., 0]
    for photometric, expected in [("minisblack", image), ("miniswhite", 255 - image)]:
        path = write_tiff(tmp_path / f"{photometric}.tif", image, tile=(128, 128), photometric=photometric)
        with open_slide(str(path)) as slide:
            pixels = slide.read_region(Rect(0, 0, 300, 300), 0.25)
        assert (pixels == expected[..., None]).all()
    options = {"compression": "jpeg", "compressionargs": {"level": 98}}
    path = write_tiff(tmp_path / "jpeg.tif", image, tile=(128, 128), photometric="minisblack", **options)
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(0, 0, 300, 300), 0.25).astype(int)
    assert np.abs(pixels - image[..., None]).max() <= 8


def test_transparent_becomes_white(tmp_path):
    image = np.dstack([stained(256, 256), np.zeros((256, 256), np.uint8)])
    image[:, 128:, 3] = 255
    path = write_tiff(
        tmp_path / "rgba.tif", image, tile=(128, 128), photometric="rgb", extrasamples=["unassalpha"], compression="lzw"
    )
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(0, 0, 256, 256), 0.25)
    assert (pixels[:, :128] == 255).all()
    assert (pixels[:, 128:] == image[:, 128:, :3]).all()


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (np.zeros((256, 256, 3), np.uint16), {"photometric": "rgb"}),
        (np.zeros((256, 256), np.float32), {"photometric": "minisblack"}),
        (np.zeros((3, 256, 256), np.uint8), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.zeros((256, 256), np.uint8), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
    ],
    ids=["16 bit", "float", "planes", "palette"],
)
def test_other_pixel_types_are_refused_by_name(tmp_path, image, options):
    path = write_tiff(tmp_path / "odd.tif", image, tile=(128, 128), **options)
    with pytest.raises(NotASlide, match="8-bit RGB or gray"):
        open_slide(str(path))


def test_outside_the_slide_is_white(tmp_path):
    image = stained(200, 300)
    path = write_tiff(tmp_path / "s.tif", image, tile=(128, 128), photometric="rgb")
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(-10, -20, 400, 300), 0.25)
        assert (pixels[20:220, 10:310] == image).all()
        pixels[20:220, 10:310] = 255
        assert (pixels == 255).all()
        assert (slide.read_region(Rect(5000, 0, 64, 64), 0.25) == 255).all()
        assert (slide.read_region(Rect(-900, 0, 64, 64), 0.5) == 255).all()


def test_absent_tiles_are_white(tmp_path):
    image, path = stained(256, 256), tmp_path / "sparse.tif"
    blocks = [image[:128, :128].tobytes(), b"", b"", image[128:, 128:].tobytes()]
    tifffile.imwrite(
        path, iter(blocks), shape=image.shape, dtype=np.uint8, tile=(128, 128), photometric="rgb",
        description=aperio(image, 0.25, 128), metadata=None,
    )  # fmt: skip
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(0, 0, 256, 256), 0.25)
    assert (pixels[:128, :128] == image[:128, :128]).all()
    assert (pixels[128:, 128:] == image[128:, 128:]).all()
    assert (pixels[:128, 128:] == 255).all()


def test_a_level_is_used_as_it_is_where_its_resolution_fits(tmp_path):
    levels = write_svs(tmp_path / "s.svs", stained(1000, 1200), levels=3, compression="lzw")
    with open_slide(str(tmp_path / "s.svs")) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        for level, mpp in zip(levels, [0.257, 0.5, 0.98], strict=True):
            rect = Rect(400, 200, 480, 600)
            factor = 1000 // level.shape[0]
            x, y, width, height = (v // factor for v in (400, 200, 480, 600))
            assert (slide.read_region(rect, mpp) == level[y : y + height, x : x + width]).all()


def test_between_levels_the_finer_one_is_averaged_down(tmp_path):
    levels = write_svs(tmp_path / "s.svs", stained(1024, 1024), levels=2, compression="lzw", tile=256)
    with open_slide(str(tmp_path / "s.svs")) as slide:
        pixels = slide.read_region(Rect(0, 0, 1024, 1024), 1.0).astype(int)
    means = halved(levels[1]).astype(int)
    assert pixels.shape == means.shape
    assert np.abs(pixels - means)[2:-2, 2:-2].max() <= 4


def test_stripes_finer_than_the_wanted_pixels_turn_gray(tmp_path):
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::2] = 200
    path = write_tiff(tmp_path / "stripes.tif", image, tile=(128, 128), photometric="rgb")
    with open_slide(str(path)) as slide:
        pixels = slide.read_region(Rect(64, 64, 384, 384), 1.1).astype(int)
    assert np.abs(pixels - 100).max() <= 12


def test_resampled_neighbours_meet_without_a_seam(tmp_path):
    path = write_tiff(tmp_path / "s.tif", stained(700, 900), tile=(256, 256), photometric="rgb")
    with open_slide(str(path)) as slide:
        whole = slide.read_region(Rect(0, 0, 800, 640), 0.4).astype(int)
        left, right = (slide.read_region(Rect(x, 0, 400, 640), 0.4).astype(int) for x in (0, 400))
    assert np.abs(np.hstack([left, right]) - whole).max() <= 1


@pytest.mark.parametrize("mpp", [0.25, 0.37, 0.5, 1.0])
def test_bytes_fetched_in_one_place_decode_in_another(tmp_path, mpp):
    write_svs(tmp_path / "s.svs", stained(1000, 1200), levels=2)
    rect = Rect(-20, 300, 500, 800)
    with open_slide(str(tmp_path / "s.svs")) as slide:
        pixels = slide.read_region(rect, mpp)
        region = slide.fetch_region(rect, mpp)
        assert (slide.decode_region(region) == pixels).all()
    assert RegionBytes.from_bytes(region.to_bytes()) == region
    assert (decode_region(RegionBytes.from_bytes(region.to_bytes())) == pixels).all()
    assert sum(map(len, region.tiles)) < pixels.nbytes * (mpp / 0.25) ** 2


@pytest.mark.parametrize("layout", ["pages", "big-endian BigTIFF", "SubIFDs"])
def test_levels_are_found_however_they_are_stored(tmp_path, layout):
    levels = [stained(1000, 1200)]
    levels += [halved(levels[0]), halved(halved(levels[0]))]
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None, "compression": "lzw"}
    big = {"bigtiff": True, "byteorder": ">"} if layout == "big-endian BigTIFF" else {}
    with tifffile.TiffWriter(tmp_path / "s.tif", **big) as tiff:
        tiff.write(levels[0], subifds=2 if layout == "SubIFDs" else None, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    with open_slide(str(tmp_path / "s.tif"), mpp=0.25) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        for level, mpp in zip(levels, (0.25, 0.5, 1.0), strict=True):
            assert (slide.read_region(Rect(0, 0, 1200, 1000), mpp) == level).all()
