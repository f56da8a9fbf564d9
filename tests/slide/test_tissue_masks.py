import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw
from slide_writer import REAL_SLIDES, stained, write_svs, write_tiff

from mitoray.errors import BadTissueMask
from mitoray.slide import Tissue, find_tissue, open_slide, segment_tissue

GLASS = (243, 241, 238)
MPP = 16.0


def glass(height=400, width=600, colour=GLASS, seed=0):
    noise = np.random.default_rng(seed).normal(0, 2.5, (height, width, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def with_tissue(image):
    """A piece of tissue of 120 × 160 px, and where it lies."""
    truth = np.zeros(image.shape[:2], bool)
    truth[200:320, 300:460] = True
    image[truth] = stained(400, 600)[truth]
    return image, truth


def drawn(image, draw):
    canvas = Image.fromarray(image)
    draw(ImageDraw.Draw(canvas))
    compressed = io.BytesIO()
    canvas.save(compressed, "JPEG", quality=80)
    return np.array(Image.open(compressed))


def assert_tissue_is(mask, truth, margin_px=6):
    """All of the tissue, and no more than a margin around it."""
    assert mask[truth].mean() > 0.99
    rows, columns = np.nonzero(truth)
    allowed = np.zeros_like(truth)
    allowed[
        rows.min() - margin_px : rows.max() + 1 + margin_px, columns.min() - margin_px : columns.max() + 1 + margin_px
    ] = True
    assert not mask[~allowed].any()


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (228, 232, 240), (240, 228, 238)], ids=str)
def test_tissue_is_found_on_glass_of_any_tint(colour):
    image, truth = with_tissue(glass(colour=colour))
    assert_tissue_is(segment_tissue(image, MPP), truth)


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (228, 232, 240)], ids=str)
def test_an_empty_slide_has_no_tissue(colour):
    assert not segment_tissue(glass(colour=colour), MPP).any()
    assert not segment_tissue(np.full((50, 50, 3), colour, np.uint8), MPP).any()


def test_a_slide_that_is_all_tissue_is_not_halved():
    dark_and_pale = stained(300, 400)
    dark_and_pale[:, 200:] = 0.15 * dark_and_pale[:, 200:] + 0.85 * np.array((238, 205, 225))
    assert segment_tissue(dark_and_pale, MPP).mean() > 0.95


@pytest.mark.parametrize(
    "ink", [(30, 60, 160), (70, 110, 200), (20, 120, 70), (15, 15, 20), (200, 30, 40), (40, 150, 160)], ids=str
)
def test_marker_pen_is_no_tissue(ink):
    image, truth = with_tissue(glass())
    marked = drawn(image, lambda draw: draw.line([(20, 30), (560, 40), (570, 150), (30, 360)], fill=ink, width=9))
    marked[truth] = image[truth]
    mask = segment_tissue(marked, MPP)
    mask[190:330, 280:480] = truth[190:330, 280:480]
    assert_tissue_is(mask, truth)


def test_black_around_the_scanned_area_is_no_tissue():
    image, truth = with_tissue(glass())

    def borders(draw):
        draw.rectangle((0, 0, 599, 40), fill=(0, 0, 0))
        draw.rectangle((0, 0, 50, 399), fill=(12, 10, 14))
        draw.rectangle((520, 0, 599, 399), fill=(0, 0, 0))

    assert_tissue_is(segment_tissue(drawn(image, borders), MPP), truth)
    assert not segment_tissue(np.zeros((100, 100, 3), np.uint8), MPP).any()


def test_dust_is_dropped_and_lumens_are_filled():
    image, truth = with_tissue(glass())
    image[50:52, 50:52] = (190, 110, 160)
    image[250:256, 350:356] = GLASS
    assert_tissue_is(segment_tissue(image, MPP), truth)


def test_glass_in_a_corner_is_no_hole():
    image = stained(300, 300)
    image[:12, :12] = GLASS
    image[100:108, 100:108] = GLASS
    mask = segment_tissue(image, MPP)
    assert not mask[:6, :6].any()
    assert mask[95:112, 95:112].all()


def test_the_tissue_of_a_real_slide_is_found():
    path = REAL_SLIDES / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("public slide CMU-1-Small-Region.svs is not in shared/data/slides")
    with open_slide(str(path)) as slide:
        tissue = find_tissue(slide)
    # Points read off the slide by eye: epithelium, stroma; glass left and right.
    inside = np.array([[1200.0, 1300.0], [900.0, 2500.0], [1500.0, 2600.0]])
    assert tissue.contains(inside).all()
    assert not tissue.contains(np.array([[100.0, 2000.0], [2100.0, 600.0], [300.0, 300.0]])).any()
    assert 0.5 < tissue.tissue_mm2 < 0.9


def test_area_is_the_tissues_share_of_the_slide():
    mask = np.zeros((10, 20), bool)
    mask[:5] = True
    assert Tissue(mask, 8000, 4000, 0.25).tissue_mm2 == pytest.approx(1.0)


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_a_mask_survives_the_way_through_png(mask):
    height, width = mask.shape[0] * 64, mask.shape[1] * 64
    assert (Tissue.from_png(Tissue(mask, width, height, 0.25).to_png(), width, height, 0.25).mask == mask).all()


@settings(deadline=None)
@given(st.integers(64, 20_000), st.integers(64, 20_000), st.sampled_from([np.floor, np.round, np.ceil]))
def test_the_overviews_mask_of_a_small_or_narrow_slide_survives_the_way_through_png(width, height, rounded):
    mask = np.ones([max(1, int(rounded(side * 0.25 / 16))) for side in (height, width)], bool)
    assert Tissue.from_png(Tissue(mask, width, height, 0.25).to_png(), width, height, 0.25).mask.shape == mask.shape


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(100, 5000), st.integers(100, 5000))
def test_a_point_belongs_to_the_mask_pixel_above_it(rows, columns, height, width):
    mask = np.random.default_rng(rows * 31 + columns).random((rows, columns)) < 0.5
    tissue = Tissue(mask, width, height, 0.25)
    row, column = np.mgrid[:rows, :columns]
    centres = np.stack([(column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5], axis=-1)
    assert (tissue.contains(centres.reshape(-1, 2)).reshape(mask.shape) == mask).all()
    outside = np.array([[-0.6, 0], [width - 0.4, 0], [0, -0.6], [0, height - 0.4], [np.nan, 0]])
    assert not tissue.contains(outside).any()


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "s.svs"
    write_svs(path, stained(1000, 1500), levels=2)
    return str(path)


@pytest.mark.parametrize(
    ("name", "mode", "value"),
    [
        ("m.png", "1", 1),
        ("m.png", "L", 1),
        ("m.png", "RGB", (0, 0, 1)),
        ("m.tif", "L", 255),
        ("m.png", "I;16", 7),
        ("m.png", "RGBA", (0, 9, 0, 255)),
        ("m.png", "LA", (9, 255)),
    ],
)
def test_a_given_mask_is_tissue_where_it_is_not_zero(slide_path, tmp_path, name, mode, value):
    mask = Image.new(mode, (300, 200))
    mask.paste(value, (150, 0, 300, 100))
    mask.save(tmp_path / name)
    with open_slide(slide_path) as slide:
        tissue = find_tissue(slide, str(tmp_path / name))
    found = tissue.contains(np.array([[760.0, 20.0], [1490.0, 480.0], [700.0, 20.0], [800.0, 600.0]]))
    assert found.tolist() == [True, True, False, False]
    assert tissue.tissue_mm2 == pytest.approx(750 * 500 * 0.25**2 / 1e6, rel=0.15)


def test_a_fine_mask_is_made_coarser_without_losing_tissue(slide_path, tmp_path):
    mask = np.zeros((1000, 1500), np.uint8)
    mask[503, 777] = 1
    Image.fromarray(mask).save(tmp_path / "m.png")
    with open_slide(slide_path) as slide:
        tissue = find_tissue(slide, str(tmp_path / "m.png"))
    assert tissue.mask.size < 1000 * 1500 / 1000
    assert tissue.contains(np.array([[777.0, 503.0]])).all()


def test_a_mask_of_another_shape_is_refused(slide_path, tmp_path):
    Image.new("L", (300, 210)).save(tmp_path / "m.png")
    with open_slide(slide_path) as slide, pytest.raises(BadTissueMask, match="aspect ratios differ"):
        find_tissue(slide, str(tmp_path / "m.png"))


def test_a_mask_that_is_missing_or_no_image_is_refused(slide_path, tmp_path):
    (tmp_path / "m.png").write_text("tissue everywhere")
    with open_slide(slide_path) as slide:
        for name in ("m.png", "gone.png"):
            with pytest.raises(BadTissueMask, match=name):
                find_tissue(slide, str(tmp_path / name))


def test_a_slide_coarser_than_the_overview_wanted_still_has_tissue(tmp_path):
    path = write_tiff(tmp_path / "s.tif", stained(300, 300), mpp=2.0, tile=(128, 128), photometric="rgb")
    with open_slide(str(path)) as slide:
        assert find_tissue(slide).tissue_mm2 == pytest.approx(0.36)
