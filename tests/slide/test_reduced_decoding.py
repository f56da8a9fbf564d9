"""Tiles that their codec gives at a half, a quarter or an eighth of their side, against tiles decoded whole."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_writer import REAL_SLIDES, aperio, overwrite, stained, tile_span, write_svs, write_tiff

from mitoray.errors import CorruptTile
from mitoray.slide import Rect, open_slide, window
from mitoray.slide.reduction import decode_reduced
from mitoray.slide.tiles import TileFormat, tile_memory

JPEG = {"compression": "jpeg", "compressionargs": {"level": 90}}
KINDS = {
    "JPEG, R G B as Aperio writes it": JPEG | {"photometric": "rgb"},
    "JPEG, Y Cb Cr": JPEG | {"photometric": "ycbcr"},
    "JPEG, Y Cb Cr, chroma at half": JPEG | {"photometric": "ycbcr", "subsampling": (2, 2)},
    "JPEG2000, R G B as Aperio writes it": {"compression": 33005, "photometric": "rgb"},
    "JPEG2000, by its standard number": {"compression": 34712, "photometric": "rgb"},
}


@pytest.fixture(params=KINDS, ids=str)
def slide_path(request, tmp_path):
    return written(tmp_path, stained(1007, 1241), request.param)


def written(folder, image, kind):
    options = {"tile": (240, 240), "compressionargs": {"level": 90}} | KINDS[kind]
    return str(write_tiff(folder / "slide.tif", image, **options))


@pytest.fixture
def reductions(monkeypatch):
    """How often each tile's sides were halved while it was decoded."""
    seen = []
    decode = window.decode_reduced

    def counted(data, tile_format, reduction, *rest):
        seen.append(reduction)
        return decode(data, tile_format, reduction, *rest)

    monkeypatch.setattr(window, "decode_reduced", counted)
    return seen


def read_both(path, rect, mpp, native_mpp=None):
    with open_slide(path, mpp=native_mpp) as slide, open_slide(path, mpp=native_mpp, reduced_decode=False) as whole:
        reduced, averaged = slide.read_region(rect, mpp), whole.read_region(rect, mpp)
        assert reduced.shape == averaged.shape == (*slide.output_shape(rect, mpp), 3)
    return reduced.astype(int), averaged.astype(int)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("mpp", "reduction"), [(0.5, 1), (0.7, 1), (1.0, 2), (1.6, 2), (2.0, 3), (5.0, 3)])
def test_reduced_tiles_show_what_whole_ones_show(tmp_path, reductions, kind, mpp, reduction):
    reduced, averaged = read_both(written(tmp_path, stained(1007, 1241), kind), Rect(40, 64, 960, 800), mpp)
    assert set(reductions) == {reduction}
    if "JPEG2000" in kind:
        # A wavelet's lower resolution lies half a px further left and up, of each px that it was halved from.
        assert np.corrcoef(reduced.ravel(), averaged.ravel())[0, 1] > (0.97 if reduction < 3 else 0.9)
    else:
        assert np.abs(reduced - averaged).mean() < 2
        assert np.percentile(np.abs(reduced - averaged), 99) <= (6 if reduction < 3 else 15)


def test_no_tile_is_reduced_further_than_the_wanted_resolution(slide_path, reductions):
    with open_slide(slide_path) as slide:
        for mpp in (0.25, 0.3, 0.45):
            slide.read_region(Rect(0, 0, 500, 500), mpp)
    assert reductions == []


def test_no_pixel_stands_beside_its_place(slide_path, reductions):
    with open_slide(slide_path) as slide, open_slide(slide_path, reduced_decode=False) as whole:
        for x, y in [(41, 64), (40, 67), (42, 64)]:
            rect = Rect(x, y, 400, 400)
            assert (slide.read_region(rect, 1.0) == whole.read_region(rect, 1.0)).all()
        assert reductions == []
        slide.read_region(Rect(40, 64, 400, 400), 1.0)
        assert set(reductions) == {2}


def test_beyond_the_slide_is_white_and_its_last_columns_are_not(slide_path):
    with open_slide(slide_path) as slide:
        pixels = slide.read_region(Rect(1000, 800, 400, 400), 1.0)
    inside = pixels[: (1007 - 800) // 4 - 2, : (1241 - 1000) // 4 - 2]
    assert inside.mean() < 235
    assert (pixels[(1007 - 800) // 4 + 2 :] == 255).all()
    assert (pixels[:, (1241 - 1000) // 4 + 2 :] == 255).all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0, 2.0, 2.3])
def test_a_spot_is_found_again_in_level_0(tmp_path, kind, mpp):
    truth = np.array([[431.0, 287.0]])
    y, x = np.mgrid[:700, :800]
    spot = 200 * np.exp(-((x - truth[0, 0]) ** 2 + (y - truth[0, 1]) ** 2) / (2 * 12**2))
    image = np.repeat((250 - spot).astype(np.uint8)[..., None], 3, axis=2)
    with open_slide(written(tmp_path, image, kind)) as slide:
        rect = Rect(208, 96, 400, 416)
        pixels = slide.read_region(rect, mpp)
    darkness = 250.0 - pixels[..., 0]
    darkness[darkness < 20] = 0
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    centroid = np.array([[(darkness * columns).sum(), (darkness * rows).sum()]]) / darkness.sum()
    # Wavelets shift by half a px of each step, at most 3.5 px of level 0: 0.9 µm of 6.25 µm that a match allows.
    atol = 4.0 if "JPEG2000" in kind else 0.8
    np.testing.assert_allclose(rect.to_level0(centroid, pixels.shape[:2]), truth, atol=atol)


def test_subsampled_jpeg2000_in_ycbcr_keeps_its_colours(tmp_path, reductions):
    tile = (Path(__file__).parent / "ycbcr_422.j2k").read_bytes()
    path = tmp_path / "slide.svs"
    tifffile.imwrite(
        path, iter([tile] * 4), shape=(96, 96, 3), dtype=np.uint8, tile=(48, 48), compression=33003,
        photometric="rgb", description=aperio(np.zeros((96, 96, 3)), 0.25, 48), metadata=None,
    )  # fmt: skip
    reduced, averaged = read_both(str(path), Rect(0, 0, 96, 96), 0.5)
    assert reductions == [1, 1, 1, 1]
    assert np.abs(reduced - averaged)[2:-2, 2:-2].max() <= 10


def test_jpeg2000_in_ycbcr_keeps_its_colours(tmp_path):
    image, path = stained(500, 620), str(tmp_path / "slide.svs")
    ycbcr = np.asarray(Image.fromarray(image).convert("YCbCr"))
    write_svs(path, ycbcr, compression=33003, compressionargs={"level": 90})
    reduced, averaged = read_both(path, Rect(0, 0, 620, 500), 0.5)
    assert np.abs(reduced - averaged).mean() < 2.5


def test_gray_jpeg_is_reduced_too(tmp_path, reductions):
    path = write_tiff(tmp_path / "gray.tif", stained(500, 620)[..., 0], tile=(240, 240), compression="jpeg")
    reduced, averaged = read_both(str(path), Rect(0, 0, 600, 480), 0.5)
    assert reductions
    assert (reduced[..., 0] == reduced[..., 2]).all()
    assert np.abs(reduced - averaged).mean() < 2


def test_jpeg2000_of_one_resolution_is_decoded_whole(tmp_path, reductions):
    path = str(tmp_path / "slide.svs")
    write_svs(path, stained(500, 620), compression=33005, compressionargs={"level": 70, "resolutions": 1})
    reduced, averaged = read_both(path, Rect(40, 40, 400, 400), 0.5)
    assert reductions
    assert np.abs(reduced - averaged).mean() < 2


@pytest.mark.parametrize("compression", ["lzw", "deflate", None])
def test_other_codecs_are_averaged_as_before(tmp_path, reductions, compression):
    options = {"tile": (240, 240), "photometric": "rgb", "compression": compression}
    path = str(write_tiff(tmp_path / "slide.tif", stained(500, 620), **options))
    reduced, averaged = read_both(path, Rect(40, 40, 400, 400), 0.5)
    assert reductions == []
    assert (reduced == averaged).all()


def test_a_corrupt_tile_fails_by_name_reduced_as_whole(slide_path):
    offset, size = tile_span(slide_path)
    overwrite(slide_path, offset + size // 2, b"\x00" * (size - size // 2))
    errors = []
    for reduced_decode in (True, False):
        with open_slide(slide_path, reduced_decode=reduced_decode) as slide:
            try:
                slide.read_region(Rect(0, 0, 200, 200), 0.5)
            except CorruptTile as error:
                errors.append(str(error).partition("(")[0])
    # What a codec reads without complaint, damaged or not, is its own affair; the two ways must not disagree.
    assert len(errors) in (0, 2)
    overwrite(slide_path, offset, b"\x00" * size)
    with open_slide(slide_path) as slide, pytest.raises(CorruptTile, match="tile 0 of level 0"):
        slide.read_region(Rect(0, 0, 200, 200), 0.5)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_slides_look_the_same_reduced(name):
    path = REAL_SLIDES / name
    if not path.exists():
        pytest.skip(f"public slide {name} is not in shared/data/slides")
    # Read as 0.25 µm/px, both want reducing for 2 µm/px, whatever their levels.
    reduced, averaged = read_both(str(path), Rect(200, 304, 1600, 1600), 2.0, native_mpp=0.25)
    assert np.abs(reduced.mean(axis=(0, 1)) - averaged.mean(axis=(0, 1))).max() < 1.5
    correlation = np.corrcoef(reduced.ravel(), averaged.ravel())[0, 1]
    assert correlation > 0.95


def test_strips_of_jpeg_are_reduced_and_the_last_short_one_averaged(tmp_path, reductions):
    options = JPEG | {"photometric": "ycbcr", "rowsperstrip": 24}
    path = str(write_tiff(tmp_path / "slide.tif", stained(1001, 1240), **options))
    reduced, averaged = read_both(path, Rect(40, 600, 960, 400), 0.5)
    assert set(reductions) == {1}
    assert np.abs(reduced - averaged).mean() < 2


def test_the_overview_of_a_slide_without_levels_is_as_before(tmp_path, reductions):
    path = str(write_tiff(tmp_path / "slide.tif", stained(1920, 2160), tile=(240, 240), photometric="rgb", **JPEG))
    with open_slide(path) as slide, open_slide(path, reduced_decode=False) as whole:
        reduced, averaged = slide.thumbnail(8.0).astype(int), whole.thumbnail(8.0).astype(int)
    assert set(reductions) == {3}
    assert reduced.shape == averaged.shape
    assert np.abs(reduced - averaged).mean() < 1.5


@pytest.mark.parametrize("size", [(1007, 1241), (505, 731), (65, 500)])
def test_the_overview_of_a_slide_of_odd_size_is_whole(tmp_path, size):
    path = str(write_tiff(tmp_path / "slide.tif", stained(*size), tile=(240, 240), photometric="rgb", **JPEG))
    with open_slide(path) as slide, open_slide(path, reduced_decode=False) as whole:
        for mpp in (1.0, 2.0, 4.0, 8.0, 16.0):
            reduced, averaged = slide.thumbnail(mpp).astype(int), whole.thumbnail(mpp).astype(int)
            assert reduced.shape == averaged.shape
            assert np.abs(reduced - averaged).mean() < 6


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_reduced_jpeg_is_what_pillow_makes_of_it(subsampling, reduction):
    stream = io.BytesIO()
    Image.fromarray(stained(256, 256)).save(stream, "JPEG", quality=80, subsampling=subsampling)
    form = TileFormat(256, 256, 3, 7, 6, 1, 0, True, None, None)
    side = 256 >> reduction
    with Image.open(stream) as image:
        image.draft("RGB", (side, side))
        expected = np.asarray(image)
    memory = tile_memory(form)
    found = decode_reduced(stream.getvalue(), form, reduction, side, side, memory)
    assert np.shares_memory(found, memory)
    assert (found == expected).all()
