"""Cells on a grid: each has a place of its own, the nearest that was free."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.curation.cell_grid import Grid, Layout, closeness, grid_of, placed_on_grid, projected, same_class_share
from mitoray.errors import BadOption, TooFewCells

HALVES = st.integers(-4, 30).map(lambda n: n / 2)
"""Of places: on them, and between them, where two or four are equally near; and beyond the grid."""


def brute_force(points, columns, rows):
    """Place by place and cell by cell, by the words of the rule."""
    middle = np.median(points, axis=0)
    order = sorted(range(len(points)), key=lambda i: (((points[i] - middle) ** 2).sum(), i))
    free = {(x, y) for x in range(columns) for y in range(rows)}
    places = {}
    for i in order:
        near = min(free, key=lambda p: ((p[0] - points[i][0]) ** 2 + (p[1] - points[i][1]) ** 2, p[1], p[0]))
        free.remove(near)
        places[i] = near
    return [places[i] for i in range(len(points))]


@given(st.lists(st.tuples(HALVES, HALVES), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 30))
@settings(deadline=None, max_examples=150)
def test_each_cell_takes_the_free_place_nearest_to_it(points, columns, spare):
    rows = -(-(len(points) + spare) // columns)
    found = placed_on_grid(np.array(points), columns, rows)
    assert [tuple(place) for place in found.tolist()] == brute_force(np.array(points), columns, rows)


@given(st.integers(1, 3000), st.integers(0, 5), st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([0.3, 0.9, 1.0]))
@settings(deadline=None, max_examples=20)
def test_every_cell_is_placed_and_none_over_another_however_crowded(n, seed, spread, fill):
    plane = np.random.default_rng(seed).normal(0, spread, (n, 2))
    grid = grid_of(plane, Layout(fill=fill))
    assert grid.places.shape == (n, 2)
    assert len({tuple(place) for place in grid.places.tolist()}) == n
    assert (grid.places >= 0).all()
    assert (grid.places < [grid.columns, grid.rows]).all()


def test_points_that_are_all_one_fill_a_disc_around_it():
    places = placed_on_grid(np.full((1200, 2), 30.0), 61, 61)
    distance = np.hypot(*(places - 30).T)
    free = {(x, y) for x in range(61) for y in range(61)} - {tuple(place) for place in places.tolist()}
    assert distance.max() <= min(np.hypot(x - 30, y - 30) for x, y in free)


def test_more_cells_than_places_are_refused():
    with pytest.raises(BadOption, match="do not fit"):
        placed_on_grid(np.zeros((5, 2)), 2, 2)


def test_fewer_cells_than_umap_neighbours_are_refused_by_name():
    with pytest.raises(TooFewCells, match="10 cells are too few for UMAP with 15"):
        projected(np.eye(10, dtype=np.float32), Layout())


def test_neighbours_of_one_class_are_counted_on_the_eight_places_around():
    # a a b    The left a has a neighbour a, the middle one a and b, b only a; c stands alone and does not count.
    grid = Grid(5, 3, np.array([[0, 0], [1, 0], [2, 0], [4, 2]]))
    assert same_class_share(grid, np.array([0, 0, 1, 2])) == pytest.approx((1 + 0.5 + 0) / 3)


def test_classes_apart_lie_closer_than_by_chance_and_shuffled_ones_do_not():
    places = np.stack([np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)], axis=1)
    halves = (places[:, 0] >= 10).astype(int)
    apart = closeness(Grid(20, 20, places), halves, permutations=99)
    assert apart["p"] == 0.01
    assert apart["share"] > 0.9
    assert 0.45 < apart["by_chance"] < 0.55
    mixed = closeness(Grid(20, 20, places), np.random.default_rng(1).permutation(halves), permutations=99)
    assert mixed["p"] > 0.01
