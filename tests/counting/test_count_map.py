"""The count map against counting each field on its own."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mitoray.counting.count_map import count_map
from mitoray.counting.hotspot import Hotspot, densest_circle, densest_rectangle
from mitoray.errors import BadOption
from mitoray.slide import Tissue

EXTENT_UM = (5_230.0, 3_910.0)


def counted_one_by_one(points, found):
    rows, columns = found.counts.shape
    return np.array(
        [
            [
                Hotspot(
                    (j + 0.5) * found.step_um,
                    (i + 0.5) * found.step_um,
                    0,
                    found.area_mm2,
                    found.shape,
                    found.width_um,
                    found.height_um,
                )
                .contains(points)
                .sum()
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(-20, 120), st.integers(-20, 120)), max_size=30),
    st.sampled_from(["circle", "rectangle"]),
    st.sampled_from([4.0, 10.0, 30.0]),
)
def test_every_centre_counts_what_its_field_contains_border_included(points, shape, step_um):
    points = np.array(points, dtype=float).reshape(-1, 2)
    area = 25**2 * np.pi * 1e-6 if shape == "circle" else 40 * 30 * 1e-6
    found = count_map(points, (100.0, 90.0), area, shape, step_um)
    assert (found.counts == counted_one_by_one(points, found)).all()


@pytest.mark.parametrize("shape", ["circle", "rectangle"])
@pytest.mark.parametrize("step_um", [100.0, 333.0, 4_000.0])
def test_steps_longer_and_shorter_than_the_field_count_alike(shape, step_um):
    points = np.random.default_rng(3).random((400, 2)) * EXTENT_UM
    found = count_map(points, EXTENT_UM, 2.0, shape, step_um)
    assert (found.counts == counted_one_by_one(points, found)).all()


@pytest.mark.parametrize(("shape", "densest"), [("circle", densest_circle), ("rectangle", densest_rectangle)])
def test_no_centre_counts_more_than_the_hotspot_and_a_fine_grid_comes_near_it(shape, densest):
    rng = np.random.default_rng(5)
    points = np.concatenate([rng.normal(2000, 300, (200, 2)), rng.random((200, 2)) * EXTENT_UM])
    best = densest(points, 0.5).count
    fine = count_map(points, EXTENT_UM, 0.5, shape, step_um=10.0).counts.max()
    assert 0.97 * best <= fine <= best


def test_no_points_are_zero_everywhere_and_a_clear_image():
    empty = count_map(np.empty((0, 2)), EXTENT_UM)
    assert empty.counts.shape == (40, 53)
    assert not empty.counts.any()
    assert not empty.image()[..., 3].any()


def test_the_image_is_clear_without_figures_and_grows_lighter_and_more_opaque_with_them():
    points = np.repeat([[550.0, 550.0], [3050.0, 550.0]], [1, 9], axis=0)
    found = count_map(points, EXTENT_UM, 0.03, step_um=100.0)
    image = found.image()
    assert image.shape == (*found.counts.shape, 4)
    assert image.dtype == np.uint8
    assert ((image[..., 3] == 0) == (found.counts == 0)).all()
    one, nine = image[5, 5].astype(int), image[5, 30].astype(int)
    assert nine[3] > one[3] > 0
    assert nine[:3] @ [0.3, 0.6, 0.1] > one[:3] @ [0.3, 0.6, 0.1]
    assert (np.asarray(Image.open(io.BytesIO(found.to_png()))) == image).all()


def test_slides_on_one_scale_show_equal_counts_alike():
    few = count_map(np.repeat([[550.0, 550.0]], 3, axis=0), EXTENT_UM, 0.03)
    many = count_map(np.repeat([[550.0, 550.0], [3050.0, 550.0]], [3, 8], axis=0), EXTENT_UM, 0.03)
    assert (few.image(highest=8)[5, 5] == many.image()[5, 5]).all()
    assert (few.image()[5, 5] != many.image()[5, 5]).any()
    assert (many.image(highest=3)[5, 30] == few.image()[5, 5]).all()


def test_beside_the_tissue_the_map_is_clear():
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    tissue = Tissue(mask, 8000, 8000, 0.5)  # 4 × 4 mm, tissue in the left 2 mm
    points = np.random.default_rng(1).random((200, 2)) * 4000
    found = count_map(points, (4000.0, 4000.0), step_um=100.0)
    inside, whole = found.image(tissue=tissue), found.image()
    assert (inside[:, :20] == whole[:, :20]).all()
    assert not inside[:, 20:].any()
    assert whole[:, 20:, 3].any()


def test_impossible_maps_are_refused_by_name():
    point = np.zeros((1, 2))
    with pytest.raises(BadOption, match="step_um"):
        count_map(point, EXTENT_UM, step_um=0.0)
    with pytest.raises(BadOption, match="extent_um"):
        count_map(point, (100.0, 0.0))
    with pytest.raises(BadOption, match="area_mm2"):
        count_map(point, EXTENT_UM, -1.0)
    with pytest.raises(BadOption, match="circle or a rectangle"):
        count_map(point, EXTENT_UM, shape="square")
    with pytest.raises(BadOption, match="longer step"):
        count_map(point, (1e6, 1e6), step_um=10.0)
    with pytest.raises(BadOption, match="highest"):
        count_map(point, EXTENT_UM).image(highest=0)
