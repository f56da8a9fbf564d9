import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadOption
from mitoray.slide import Tissue, plan_regions


@st.composite
def plans(draw):
    """A tissue, its slide's size and a grid: small, so that every level-0 px can be looked at."""
    width, height = draw(st.integers(5, 150)), draw(st.integers(5, 150))
    rows, columns = draw(st.integers(1, min(height, 40))), draw(st.integers(1, min(width, 40)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    mask = np.random.default_rng(draw(st.integers(0, 999))).random((rows, columns)) < density
    granule = draw(st.sampled_from([4, 8, 16]))
    core = granule * draw(st.integers(1, 8))
    return Tissue(mask, width, height, 0.25), core, granule


def planned(tissue, core, granule):
    return plan_regions(
        tissue, width_px=tissue.width_px, height_px=tissue.height_px, core_px=core, halo_px=0, granule_px=granule
    )


@settings(max_examples=80, deadline=None)
@given(plans())
def test_every_tissue_pixel_lies_in_exactly_one_core_and_cores_never_overlap(plan):
    tissue, core, granule = plan
    owners = np.zeros((tissue.height_px, tissue.width_px), int)
    for rect in planned(tissue, core, granule):
        owners[rect.y_px : rect.y_px + rect.height_px, rect.x_px : rect.x_px + rect.width_px] += 1
    y, x = np.mgrid[: tissue.height_px, : tissue.width_px]
    is_tissue = tissue.contains(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(owners.shape)
    assert (owners[is_tissue] == 1).all()
    assert owners.max() <= 1


@settings(max_examples=80, deadline=None)
@given(plans())
def test_cores_hold_tissue_and_keep_to_granules_cells_and_slide(plan):
    tissue, core, granule = plan
    for rect in planned(tissue, core, granule):
        right, bottom = rect.x_px + rect.width_px, rect.y_px + rect.height_px
        y, x = np.mgrid[rect.y_px : bottom, rect.x_px : right]
        assert tissue.contains(np.stack([x.ravel(), y.ravel()], axis=1)).any()
        assert rect.x_px % granule == 0
        assert rect.y_px % granule == 0
        assert right % granule == 0 or right == tissue.width_px
        assert bottom % granule == 0 or bottom == tissue.height_px
        assert rect.x_px // core == (right - 1) // core
        assert rect.y_px // core == (bottom - 1) // core


def test_a_core_shrinks_to_its_tissue():
    mask = np.zeros((100, 100), bool)
    mask[12:20, 30:33] = True
    tissue = Tissue(mask, 10_000, 10_000, 0.25)
    (rect,) = planned(tissue, 4096, 256)
    assert (rect.x_px, rect.y_px, rect.width_px, rect.height_px) == (2816, 1024, 512, 1024)


def test_few_distinct_shapes_arise():
    mask = np.random.default_rng(0).random((300, 400)) < 0.001
    tissue = Tissue(mask, 102_400, 76_800, 0.25)
    shapes = {(rect.height_px, rect.width_px) for rect in planned(tissue, 2048, 512)}
    assert len(shapes) <= 16


def test_sixteen_regions_in_a_row_lie_close_together():
    tissue = Tissue(np.ones((64, 64), bool), 65_536, 65_536, 0.25)
    rects = planned(tissue, 1024, 256)
    assert len(rects) == 64 * 64
    for start in range(0, len(rects), 16):
        run = rects[start : start + 16]
        spread_x = max(r.x_px for r in run) - min(r.x_px for r in run)
        spread_y = max(r.y_px for r in run) - min(r.y_px for r in run)
        assert max(spread_x, spread_y) <= 3 * 1024


def test_a_slide_without_tissue_has_no_regions():
    assert planned(Tissue(np.zeros((10, 10), bool), 1000, 1000, 0.25), 512, 64) == []


@pytest.mark.parametrize(("core", "halo", "granule"), [(1000, 0, 64), (0, 0, 64), (512, -1, 64), (512, 512, 64)])
def test_a_grid_that_cannot_be_is_refused(core, halo, granule):
    tissue = Tissue(np.ones((10, 10), bool), 1000, 1000, 0.25)
    with pytest.raises(BadOption):
        plan_regions(tissue, width_px=1000, height_px=1000, core_px=core, halo_px=halo, granule_px=granule)
