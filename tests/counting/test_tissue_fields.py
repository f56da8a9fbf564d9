"""Fields that hold enough tissue, against a search over every centre on its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.counting.hotspot import Hotspot, densest_circle, densest_rectangle
from mitoray.counting.tissue_fields import densest_with_tissue, tissue_fields
from mitoray.errors import BadOption
from mitoray.slide import Tissue

MPP = 0.5
SMALL = {"circle": 25**2 * np.pi * 1e-6, "rectangle": 48 * 36 * 1e-6}


def one_by_one(points, tissue, shape, area_mm2):
    """Counts and shares of every centre's field, px by px, with a margin of glass around the slide."""
    hotspot = {"circle": densest_circle, "rectangle": densest_rectangle}[shape](np.zeros((1, 2)), area_mm2)
    rows, columns = tissue.mask.shape
    step = np.array([tissue.width_px / columns, tissue.height_px / rows]) * tissue.mpp
    margin = 60
    i, j = np.mgrid[-margin : rows + margin, -margin : columns + margin]
    centres = np.column_stack([j.ravel() + 0.5, i.ravel() + 0.5]) * step - tissue.mpp / 2
    mask = np.pad(tissue.mask, margin).ravel()
    counts, shares = np.empty((rows, columns), int), np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            x, y = np.array([column + 0.5, row + 0.5]) * step - tissue.mpp / 2
            field = Hotspot(x, y, 0, area_mm2, shape, hotspot.width_um, hotspot.height_um)
            counts[row, column] = field.contains(points).sum()
            shares[row, column] = mask[field.contains(centres)].mean()
    return counts, shares


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["circle", "rectangle"]), st.sampled_from([3, 8]))
def test_counts_and_shares_are_those_of_each_field_on_its_own(seed, shape, step_px):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 14)) < rng.random()
    tissue = Tissue(mask, 14 * step_px, 9 * step_px, MPP)
    points = rng.random((40, 2)) * (14 * step_px * MPP, 9 * step_px * MPP)
    counts, shares = one_by_one(points, tissue, shape, SMALL[shape] / 10)
    found = tissue_fields(points, tissue, shape, SMALL[shape] / 10)
    assert (found.counts == counts).all()
    assert found.shares == pytest.approx(shares)
    best = found.densest(0.5)
    assert (best is None) == (not (shares >= 0.5).any())
    if best:
        assert best.count == counts[shares >= 0.5].max() == best.contains(points).sum()


@pytest.fixture
def island():
    """4 × 3 mm of glass, the left half tissue, and a fleck of 160 µm on the right with most figures."""
    mask = np.zeros((188, 250), bool)
    mask[:, :125] = True
    mask[90:100, 200:210] = True
    tissue = Tissue(mask, 8000, 6016, MPP)
    rng = np.random.default_rng(2)
    fleck = rng.normal((3280, 1520), 30, (50, 2))
    dense = rng.normal((700, 1000), 150, (30, 2))
    return tissue, np.concatenate([fleck, dense])


def test_a_fleck_full_of_figures_is_no_field_once_tissue_is_asked_for(island):
    tissue, points = island
    assert densest_circle(points, 0.5).count >= 50
    found = densest_with_tissue(points, tissue, 0.9, "circle", 0.5)
    assert found.count == 30
    assert found.contains(np.array([[700.0, 1000.0]])).all()
    shares = tissue_fields(points, tissue, "circle", 0.5).shares
    column, row = int(found.x_um / 16), int(found.y_um / 16)
    assert shares[row, column] >= 0.9


@pytest.mark.parametrize(("shape", "densest"), [("circle", densest_circle), ("rectangle", densest_rectangle)])
def test_without_a_share_the_grid_comes_near_the_exact_hotspot_and_never_above(island, shape, densest):
    tissue, points = island
    exact = densest(points, 0.5).count
    assert 0.95 * exact <= densest_with_tissue(points, tissue, 0.0, shape, 0.5).count <= exact


def test_full_tissue_is_a_share_of_one_and_a_field_larger_than_the_tissue_has_none(island):
    tissue, points = island
    full = densest_with_tissue(points, tissue, 1.0, "circle", 0.5)
    assert full.x_um + full.width_um / 2 <= 2000 + 16
    assert densest_with_tissue(points, tissue, 0.95, "circle", 10.0) is None
    assert densest_with_tissue(points, Tissue(np.zeros((10, 10), bool), 100, 100, MPP), 0.1) is None


def test_no_points_have_a_field_without_figures_where_there_is_tissue(island):
    tissue, _ = island
    found = densest_with_tissue(np.empty((0, 2)), tissue, 0.9, "circle", 0.5)
    assert found.count == 0
    assert found.contains(np.empty((0, 2))).sum() == 0


def test_the_placement_interval_is_of_fields_in_tissue_only(island):
    tissue, points = island
    fields = tissue_fields(points, tissue, "circle", 0.5)
    inside = fields.counts[fields.shares >= 0.9]
    found = fields.placement_interval(0.9)
    assert ((inside < found.low).mean(), (inside > found.high).mean()) <= (0.05, 0.05)
    assert found.expected == pytest.approx(inside.mean())
    assert fields.placement_interval(1.0, level=0.5).high <= 30
    assert tissue_fields(points, tissue, "circle", 10.0).placement_interval(0.95) is None


def test_a_share_that_is_none_is_refused(island):
    with pytest.raises(BadOption, match="share"):
        densest_with_tissue(island[1], island[0], 1.5)
