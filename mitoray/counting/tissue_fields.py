"""Fields of view that hold enough tissue: the densest of them, and what any of them would count.

The exact hotspot lies wherever most figures are, be it a fleck of tissue in glass. Guidelines ask for fields full of
tumour, so here centres are taken from the tissue mask's grid (16 µm as a rule), and only fields with a share of tissue.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mitoray.counting.hotspot import FloatArray, Hotspot, checked_points, field_size_um
from mitoray.counting.intervals import LEVEL, CountInterval
from mitoray.counting.moving_window import Grid, Shape, cells_around, counts_around
from mitoray.errors import BadOption
from mitoray.slide import Tissue


@dataclass(frozen=True, eq=False)
class TissueFields:
    """The field around each px of a tissue mask: figures in it, and the share of it that is tissue.

    counts: (rows, columns) int32; shares: (rows, columns) float64, 0 to 1; what lies outside the slide is no tissue.
    near_um: (2,) float64, where ties go: the points' centroid, or the slide's middle where there are no points.
    """

    grid: Grid
    counts: NDArray[np.int32]
    shares: FloatArray
    shape: Shape
    area_mm2: float
    width_um: float
    height_um: float
    near_um: FloatArray

    def densest(self, least_share: float) -> Hotspot | None:
        """The field with most figures of those that are tissue to `least_share` or more; None where none is.

        Exact over the centres of the grid, and so at most as many as `densest_circle` finds. Of equally good ones that
        nearest to `near_um` is taken. It may hold no figure.
        """
        enough = self.shares >= _checked_share(least_share)
        if not enough.any():
            return None
        count = int(self.counts[enough].max())
        rows, columns = np.nonzero(enough & (self.counts == count))
        centres = self.grid.centres_um(rows, columns)
        x_um, y_um = centres[np.argmin(np.hypot(*(centres - self.near_um).T))]
        return Hotspot(float(x_um), float(y_um), count, self.area_mm2, self.shape, self.width_um, self.height_um)

    def share_of(self, field: Hotspot) -> float:
        """The share of tissue of a field that `densest` found."""
        row = round((field.y_um - self.grid.y_um) / self.grid.step_y_um)
        return float(self.shares[row, round((field.x_um - self.grid.x_um) / self.grid.step_x_um)])

    def placement_interval(self, least_share: float, level: float = LEVEL) -> CountInterval | None:
        """What a field counts that is laid at random where it holds enough tissue: the central interval of all such.

        Says how much a count depends on where the field lies, over this slide; no statement on the densest field, nor
        on the detector's errors. None where no field holds enough.
        """
        counts = self.counts[self.shares >= _checked_share(least_share)]
        if not len(counts):
            return None
        low, high = np.quantile(counts, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
        return CountInterval(float(low), float(high), float(counts.mean()), level)


def tissue_fields(
    points_um: FloatArray, tissue: Tissue, shape: Shape = "circle", area_mm2: float = 2.0, aspect: float = 4 / 3
) -> TissueFields:
    """Look at the field around every px of the tissue mask.

    points_um: (n, 2) float64, µm of the slide; shape, area and aspect as in `densest_circle` and `densest_rectangle`.
    Raises BadOption as they do.
    """
    width_um, height_um = field_size_um(shape, area_mm2, aspect)
    rows, columns = tissue.mask.shape
    step_x_um, step_y_um = tissue.width_px / columns * tissue.mpp, tissue.height_px / rows * tissue.mpp
    # Coordinates name centres of level-0 px, so the slide begins half a px before 0.
    grid = Grid(rows, columns, step_x_um, step_y_um, (step_x_um - tissue.mpp) / 2, (step_y_um - tissue.mpp) / 2)
    points = checked_points(points_um)
    middle = np.array([tissue.width_px, tissue.height_px]) / 2 * tissue.mpp
    near_um = points.mean(axis=0) if len(points) else middle
    counts = counts_around(points, grid, shape, width_um, height_um)
    shares = cells_around(tissue.mask, grid, shape, width_um, height_um)
    return TissueFields(grid, counts, shares, shape, area_mm2, width_um, height_um, near_um)


def densest_with_tissue(
    points_um: FloatArray,
    tissue: Tissue,
    least_share: float,
    shape: Shape = "circle",
    area_mm2: float = 2.0,
    aspect: float = 4 / 3,
) -> Hotspot | None:
    """The field of view with most figures of those that are tissue to `least_share` or more (0 to 1).

    Centres are those of the tissue mask's px, over which the answer is exact; ties go to the centre nearest the points'
    centroid, or to that nearest the slide's middle where there are no points. None where no field holds enough tissue.
    Raises BadOption as `tissue_fields`, and for a share outside 0 to 1.
    """
    _checked_share(least_share)
    return tissue_fields(points_um, tissue, shape, area_mm2, aspect).densest(least_share)


def _checked_share(least_share: float) -> float:
    if not 0 <= least_share <= 1:
        raise BadOption(f"the share of tissue must lie from 0 to 1, not {least_share}")
    return least_share
