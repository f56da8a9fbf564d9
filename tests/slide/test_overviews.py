import tracemalloc

import numpy as np
import pytest
from PIL import Image
from slide_writer import stained, write_svs, write_tiff

from mitoray.slide import open_slide


def in_one_piece(image, shape):
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)).astype(int)


@pytest.mark.parametrize("mpp", [0.5, 2.0, 3.1, 16.0])
@pytest.mark.parametrize(
    "layout",
    [{"tile": (240, 240)}, {"tile": (256, 128)}, {"rowsperstrip": 7}, {"rowsperstrip": 1}, {"rowsperstrip": 1001}],
    ids=str,
)
def test_an_overview_is_what_resampling_in_one_piece_would_give(tmp_path, layout, mpp):
    image = stained(1001, 1303)
    path = write_tiff(tmp_path / "s.tif", image, photometric="rgb", compression="zlib", **layout)
    with open_slide(str(path)) as slide:
        overview = slide.thumbnail(mpp).astype(int)
    assert overview.shape[:2] == (round(1001 * 0.25 / mpp), round(1303 * 0.25 / mpp))
    assert np.abs(overview - in_one_piece(image, overview.shape)).mean() < 3


@pytest.mark.parametrize("layout", [{"tile": (256, 256)}, {"rowsperstrip": 8}], ids=str)
def test_an_overview_of_a_slide_with_one_level_takes_little_memory(tmp_path, layout):
    image = np.full((2400, 8000, 3), 200, np.uint8)
    path = write_tiff(tmp_path / "s.tif", image, photometric="rgb", compression="zlib", **layout)
    del image
    with open_slide(str(path)) as slide:
        tracemalloc.start()
        overview = slide.thumbnail(16.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (overview == 200).all()
    assert peak < 2400 * 8000 * 3 / 6


def test_an_overview_uses_the_coarsest_level_that_is_fine_enough(tmp_path):
    levels = write_svs(tmp_path / "s.svs", stained(1600, 1920), levels=4, compression="lzw", tile=160)
    with open_slide(str(tmp_path / "s.svs")) as slide:
        assert (slide.thumbnail(2.0) == levels[3]).all()
        assert (slide.thumbnail(1.0) == levels[2]).all()
        assert np.abs(slide.thumbnail(3.0).astype(int) - in_one_piece(levels[3], (133, 160))).mean() < 3


def test_a_tiny_slide_has_an_overview_of_at_least_one_pixel(tmp_path):
    path = write_tiff(tmp_path / "s.tif", stained(20, 20), tile=(16, 16), photometric="rgb")
    with open_slide(str(path)) as slide:
        assert slide.thumbnail(16.0).shape == (1, 1, 3)
