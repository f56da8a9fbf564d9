import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadOption
from mitoray.slide import Rect, Tissue, plan_regions


@st.composite
def plans(draw):
    """A tissue, its slide's size and a grid: small, so that every level-0 px can be looked at."""
    width, height = draw(st.integers(5, 150)), draw(st.integers(5, 150))
    rows, columns = draw(st.integers(1, min(height, 40))), draw(st.integers(1, min(width, 40)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    mask = np.random.default_rng(draw(st.integers(0, 999))).random((rows, columns)) < density
    granule = draw(st.sampled_from([4, 8, 16]))
    core = granule * draw(st.integers(1, 13))
    halo = draw(st.integers(0, core - 1))
    return Tissue(mask, width, height, 0.25), core, granule, halo


def planned(tissue, core, granule, halo=0):
    return plan_regions(
        tissue, width_px=tissue.width_px, height_px=tissue.height_px, core_px=core, halo_px=halo, granule_px=granule
    )


def px_read(rects, halo):
    return sum((rect.width_px + 2 * halo) * (rect.height_px + 2 * halo) for rect in rects)


@settings(max_examples=80, deadline=None)
@given(plans())
def test_every_tissue_pixel_lies_in_exactly_one_core_and_cores_never_overlap(plan):
    tissue, core, granule, halo = plan
    owners = np.zeros((tissue.height_px, tissue.width_px), int)
    for rect in planned(tissue, core, granule, halo):
        owners[rect.y_px : rect.y_px + rect.height_px, rect.x_px : rect.x_px + rect.width_px] += 1
    y, x = np.mgrid[: tissue.height_px, : tissue.width_px]
    is_tissue = tissue.contains(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(owners.shape)
    assert (owners[is_tissue] == 1).all()
    assert owners.max() <= 1


@settings(max_examples=80, deadline=None)
@given(plans())
def test_cores_hold_tissue_and_keep_to_granules_cells_and_slide(plan):
    tissue, core, granule, halo = plan
    for rect in planned(tissue, core, granule, halo):
        right, bottom = rect.x_px + rect.width_px, rect.y_px + rect.height_px
        y, x = np.mgrid[rect.y_px : bottom, rect.x_px : right]
        assert tissue.contains(np.stack([x.ravel(), y.ravel()], axis=1)).any()
        assert rect.x_px % granule == 0
        assert rect.y_px % granule == 0
        assert right % granule == 0 or right == tissue.width_px
        assert bottom % granule == 0 or bottom == tissue.height_px
        assert rect.x_px // core == (right - 1) // core
        assert rect.y_px // core == (bottom - 1) // core


@settings(max_examples=60, deadline=None)
@given(plans())
def test_no_grid_of_one_size_reads_fewer_pixels(plan):
    tissue, core, granule, halo = plan
    read = px_read(planned(tissue, core, granule, halo), halo)
    assert read <= px_read(uniform(tissue, core, granule), halo)
    if core % (2 * granule) == 0 and core // 2 >= 4 * granule:
        assert read <= px_read(uniform(tissue, core // 2, granule), halo)


def uniform(tissue, core, granule):
    """The bounding box of each cell's tissue, one by one, from the tissue's own px."""
    y, x = np.mgrid[: tissue.height_px, : tissue.width_px]
    held = tissue.contains(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
    for top in range(0, tissue.height_px, core):
        for left in range(0, tissue.width_px, core):
            rows, columns = np.nonzero(held[top : top + core, left : left + core])
            if not len(rows):
                continue
            edges = []
            for first, low, high, size in (
                (left, columns.min(), columns.max() + 1, tissue.width_px),
                (top, rows.min(), rows.max() + 1, tissue.height_px),
            ):
                start = (first + low) // granule * granule
                edges.append((start, min(-(-(first + high) // granule) * granule, first + core, size) - start))
            yield Rect(edges[0][0], edges[1][0], edges[0][1], edges[1][1])


def test_cores_are_large_inside_the_tissue_and_small_along_its_outline():
    mask = np.zeros((128, 128), bool)
    y, x = np.mgrid[:128, :128]
    mask[(y - 64) ** 2 + (x - 64) ** 2 < 60**2] = True
    tissue = Tissue(mask, 32_768, 32_768, 0.25)
    sides = sorted(max(rect.width_px, rect.height_px) for rect in planned(tissue, 8192, 256, halo=128))
    assert sides[-1] == 8192
    assert sides[0] <= 2048


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
