import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_writer import write_tiff

from mitoray.slide import Rect, open_slide

edges = st.integers(-5000, 5000)
sizes = st.integers(1, 4000)
rects = st.builds(Rect, edges, edges, sizes, sizes)


def pixel_centres(rect):
    xs = rect.x_px + np.arange(rect.width_px)[:: max(1, rect.width_px // 7)]
    ys = rect.y_px + np.arange(rect.height_px)[:: max(1, rect.height_px // 7)]
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(float)


@settings(deadline=None)
@given(rects, st.integers(0, 300))
def test_a_halo_is_added_on_every_side(rect, halo):
    grown = rect.expanded(halo)
    assert (grown.x_px + halo, grown.y_px + halo) == (rect.x_px, rect.y_px)
    assert (grown.width_px - rect.width_px, grown.height_px - rect.height_px) == (2 * halo, 2 * halo)
    assert grown.contains(pixel_centres(rect)).all()


@settings(deadline=None)
@given(rects, st.floats(-6000, 6000), st.floats(-6000, 6000))
def test_of_four_rectangles_around_a_corner_exactly_one_contains_a_point(rect, x, y):
    right = Rect(rect.x_px + rect.width_px, rect.y_px, rect.width_px, rect.height_px)
    below = [Rect(r.x_px, r.y_px + r.height_px, r.width_px, r.height_px) for r in (rect, right)]
    whole = Rect(rect.x_px, rect.y_px, 2 * rect.width_px, 2 * rect.height_px)
    point = np.array([[x, y], [rect.x_px + rect.width_px - 0.5, rect.y_px + rect.height_px - 0.5]])
    held = sum(r.contains(point).astype(int) for r in (rect, right, *below))
    assert (held == whole.contains(point)).all()


@settings(deadline=None)
@given(rects, st.integers(1, 3000), st.integers(1, 3000))
def test_image_corners_are_the_rectangles_corners(rect, height, width):
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    expected = np.array([[rect.x_px, rect.y_px], [rect.x_px + rect.width_px, rect.y_px + rect.height_px]]) - 0.5
    np.testing.assert_allclose(rect.to_level0(corners, (height, width)), expected, atol=1e-6)


@pytest.mark.parametrize("mpp", [0.25, 0.2, 0.31, 0.5, 0.7, 1.0, 2.3])
def test_a_spot_seen_at_any_resolution_is_found_again_in_level_0(tmp_path, mpp):
    truth = np.array([[431.0, 287.0]])
    y, x = np.mgrid[:700, :800]
    spot = 200 * np.exp(-((x - truth[0, 0]) ** 2 + (y - truth[0, 1]) ** 2) / (2 * 12**2))
    image = np.repeat((250 - spot).astype(np.uint8)[..., None], 3, axis=2)
    path = write_tiff(tmp_path / "spot.tif", image, tile=(256, 256), photometric="rgb")
    with open_slide(str(path)) as slide:
        rect = Rect(211, 97, 403, 421)
        pixels = slide.read_region(rect, mpp)
        assert pixels.shape[:2] == slide.output_shape(rect, mpp)
        darkness = 250.0 - pixels[..., 0]
        darkness[darkness < 20] = 0
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        centroid = np.array([[(darkness * columns).sum(), (darkness * rows).sum()]]) / darkness.sum()
        np.testing.assert_allclose(rect.to_level0(centroid, pixels.shape[:2]), truth, atol=0.25)
