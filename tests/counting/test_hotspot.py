"""Hotspots against an independent search over every field that could be best."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.counting.hotspot import densest_circle, densest_rectangle
from mitoray.errors import BadOption

lattice = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=1, max_size=14)
anywhere = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=10)

RADIUS_5_UM = 25 * np.pi * 1e-6
"""mm² of a circle with a radius of 5 µm: on a lattice 3-4-5 triangles put many points exactly on the border."""

RECTANGLE_8_BY_6_UM = 48e-6


def circle_centres(points, radius):
    """Every centre with two points on its border, or one and nearest to the centroid, and the centroid itself."""
    z = np.asarray(points, dtype=float) @ np.array([1, 1j])
    goal = z.mean()
    centres = [goal, *z]
    for p in z:
        if p != goal:
            centres.append(p + radius * np.exp(1j * np.angle(goal - p)))
    for p, q in itertools.combinations(z, 2):
        d = abs(q - p)
        if 0 < d <= 2 * radius * (1 + 1e-12):
            h = max(radius**2 - d**2 / 4, 0) ** 0.5
            centres += [(p + q) / 2 + sign * 1j * np.exp(1j * np.angle(q - p)) * h for sign in (1, -1)]
    return np.array(centres), z, goal


def best_circle(points, radius, tolerance=1e-8):
    centres, z, goal = circle_centres(points, radius)
    counts = (np.abs(z[None] - centres[:, None]) <= radius * (1 + tolerance)).sum(axis=1)
    return counts.max(), np.abs(centres[counts == counts.max()] - goal).min()


def best_rectangle_count(points, width, height):
    xy = np.asarray(points, dtype=float)
    return max(
        ((xy[:, 0] >= x) & (xy[:, 0] <= x + width) & (xy[:, 1] >= y) & (xy[:, 1] <= y + height)).sum()
        for x in xy[:, 0]
        for y in xy[:, 1]
    )


@settings(deadline=None)
@given(lattice)
def test_circle_holds_as_many_as_the_best_of_all_circles_and_is_the_nearest_of_those(points):
    found = densest_circle(np.array(points, dtype=float), RADIUS_5_UM)
    count, distance = best_circle(points, 5.0)
    assert found.count == count
    centroid = np.mean(points, axis=0)
    assert np.hypot(found.x_um - centroid[0], found.y_um - centroid[1]) == pytest.approx(distance, abs=1e-6)


@settings(deadline=None)
@given(anywhere)
def test_circle_is_best_at_any_coordinates_up_to_its_border_tolerance(points):
    found = densest_circle(np.array(points), RADIUS_5_UM)
    assert best_circle(points, 5.0, -1e-7)[0] <= found.count <= best_circle(points, 5.0 * (1 + 1e-7), 1e-7)[0]


@settings(deadline=None)
@given(lattice)
def test_rectangle_holds_as_many_as_the_best_of_all_rectangles(points):
    found = densest_rectangle(np.array(points, dtype=float), RECTANGLE_8_BY_6_UM)
    assert found.count == best_rectangle_count(points, 8, 6)


@settings(deadline=None)
@given(anywhere, st.sampled_from([4 / 3, 3 / 4, 1.0]))
def test_rectangle_is_best_at_any_coordinates_up_to_its_border_tolerance(points, aspect):
    found = densest_rectangle(np.array(points), RECTANGLE_8_BY_6_UM, aspect)
    slack = 1e-6
    least = best_rectangle_count(points, found.width_um - slack, found.height_um - slack)
    assert least <= found.count <= best_rectangle_count(points, found.width_um + slack, found.height_um + slack)


@settings(deadline=None)
@given(lattice, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points, random):
    shuffled = random.sample(points, len(points))
    for densest, area in ((densest_circle, RADIUS_5_UM), (densest_rectangle, RECTANGLE_8_BY_6_UM)):
        assert densest(np.array(points, dtype=float), area) == densest(np.array(shuffled, dtype=float), area)


@pytest.mark.parametrize("densest", [densest_circle, densest_rectangle])
def test_hotspot_contains_exactly_the_points_it_counted(densest):
    points = np.random.default_rng(7).random((3000, 2)) * 20_000
    hotspot = densest(points)
    assert hotspot.contains(points).sum() == hotspot.count


def test_two_points_a_diameter_apart_share_a_circle_and_a_nanometre_more_parts_them():
    apart = np.array([[100.0, 100.0], [106.0, 108.0]])
    assert densest_circle(apart, RADIUS_5_UM).count == 2
    assert densest_circle(apart * (1 + 1e-4), RADIUS_5_UM).count == 1


def test_rectangle_lies_by_default_and_stands_at_three_to_four():
    row = np.array([[float(x), 0.0] for x in range(0, 1700, 100)])
    lying, standing = densest_rectangle(row), densest_rectangle(row, aspect=3 / 4)
    assert (lying.width_um / lying.height_um, standing.width_um / standing.height_um) == pytest.approx((4 / 3, 3 / 4))
    assert lying.width_um * lying.height_um == pytest.approx(2.37e6)
    assert lying.count == 17  # 1778 µm wide
    assert standing.count == 14  # 1333 µm wide


def test_default_circle_has_two_square_millimetres():
    hotspot = densest_circle(np.array([[5.0, 6.0]]))
    assert np.pi * (hotspot.width_um / 2) ** 2 == pytest.approx(2e6)
    assert (hotspot.x_um, hotspot.y_um, hotspot.count) == (5.0, 6.0, 1)


@pytest.mark.parametrize("densest", [densest_circle, densest_rectangle])
def test_a_pile_of_identical_points_is_counted_in_full(densest):
    pile = np.repeat([[1000.0, 2000.0]], 5000, axis=0)
    assert densest(np.concatenate([pile, [[90_000.0, 90_000.0]]])).count == 5000


@pytest.mark.parametrize("densest", [densest_circle, densest_rectangle])
def test_no_points_have_no_hotspot(densest):
    assert densest(np.empty((0, 2))) is None


@pytest.mark.parametrize("densest", [densest_circle, densest_rectangle])
def test_impossible_input_is_refused_by_name(densest):
    with pytest.raises(BadOption, match="finite"):
        densest(np.array([[0.0, np.nan]]))
    with pytest.raises(BadOption, match="shape"):
        densest(np.zeros((3, 3)))
    with pytest.raises(BadOption, match="area_mm2"):
        densest(np.zeros((1, 2)), 0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_clustered_slides_agree_with_a_sweep_over_every_pair(seed):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(c, 3.0, (40, 2)) for c in rng.random((3, 2)) * 60])
    assert densest_circle(points, RADIUS_5_UM).count == best_circle(points, 5.0)[0]
    rectangle = densest_rectangle(points, RECTANGLE_8_BY_6_UM)
    assert rectangle.count == best_rectangle_count(points, 8, 6)
