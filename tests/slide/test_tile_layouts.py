import numpy as np
import pytest
import tifffile
from slide_writer import stained, write_svs, write_tiff

from mitoray.slide import Rect, open_slide

RECT = Rect(-20, 100, 1300, 900)


@pytest.fixture(scope="module")
def image():
    return stained(1100, 1250)


def expected(image):
    """The rectangle cut from the pixels that were written; white outside."""
    wanted = np.full((RECT.height_px, RECT.width_px, 3), 255, np.uint8)
    part = image[RECT.y_px : RECT.y_px + RECT.height_px, : RECT.x_px + RECT.width_px]
    wanted[: part.shape[0], -RECT.x_px : part.shape[1] - RECT.x_px] = part
    return wanted


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("tile", [16, 240, 256, 512, 1024, 2048])
def test_tiles_of_every_size_give_the_pixels_that_were_written(tmp_path, image, tile, bigtiff):
    path = write_tiff(
        tmp_path / "s.tif", image, tile=(tile, tile), bigtiff=bigtiff, compression="zlib", photometric="rgb"
    )
    with open_slide(str(path)) as slide:
        assert (slide.read_region(RECT, 0.25) == expected(image)).all()


@pytest.mark.parametrize("tile", [(256, 512), (1024, 128)])
def test_tiles_need_not_be_square(tmp_path, image, tile):
    path = write_tiff(tmp_path / "s.tif", image, tile=tile, compression="zlib", photometric="rgb")
    with open_slide(str(path)) as slide:
        assert (slide.read_region(RECT, 0.25) == expected(image)).all()


@pytest.mark.parametrize("rows", [1, 7, 256, 1100])
def test_strips_of_every_height_give_the_pixels_that_were_written(tmp_path, image, rows):
    path = write_tiff(tmp_path / "s.tif", image, rowsperstrip=rows, compression="zlib", photometric="rgb", bigtiff=True)
    with open_slide(str(path)) as slide:
        assert (slide.read_region(RECT, 0.25) == expected(image)).all()


@pytest.mark.parametrize("tile", [240, 512, 1024])
def test_jpeg_tiles_of_every_size_read_nearly_as_written(tmp_path, image, tile):
    write_svs(tmp_path / "s.svs", image, tile=tile)
    with open_slide(str(tmp_path / "s.svs")) as slide:
        assert np.abs(slide.read_region(RECT, 0.25).astype(int) - expected(image)).mean() < 3


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_sparse_slide_is_white_where_it_has_no_tile(tmp_path, image, bigtiff):
    tiles = [image[y : y + 256, x : x + 256].tobytes() for y in (0, 256) for x in (0, 256)]
    tiles[1] = b""
    path = tmp_path / "s.tif"
    options = {"shape": (512, 512, 3), "dtype": np.uint8, "tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        tiff.write(iter(tiles), **options)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.databytecounts[1] == 0
    wanted = image[:512, :512].copy()
    wanted[:256, 256:] = 255
    with open_slide(str(path), mpp=0.25) as slide:
        assert (slide.read_region(Rect(0, 0, 512, 512), 0.25) == wanted).all()
