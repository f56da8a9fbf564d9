"""The field of view that holds most mitotic figures, found exactly.

Once lengths are divided by the half-axes, a field covers the points within a norm distance of one from its centre: the
Euclidean norm gives the circle, the maximum norm the rectangle. Both are found by branch and bound over its centre.
No field with its centre in a given cell can hold more than the field grown by the cell's half-diagonal, so cells whose
bound cannot win are dropped and the others quartered, until so few points are undecided that every field their borders
can make is tried.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption

FloatArray = NDArray[np.float64]

BORDER: Final = 1.0 + 1e-8
"""Points this close to the border count as on it, so that a circle through two points holds both despite rounding."""

_FEW: Final = 32
"""Undecided points at which enumerating a cell costs less than quartering it."""

_MANY: Final = 128
"""Undecided points at which enumerating the circles through pairs of them would cost too much memory."""

_FINE_SIDE: Final = 1e-3
"""Cells (in half-axes) so fine that many undecided points lie in rows, which quartering does not part."""

_LEAST_SIDE: Final = 1e-9
"""Cells (in half-axes) within whose centre's border tolerance every other centre of the cell is."""


@dataclass(frozen=True)
class Hotspot:
    """A field of view around `x_um, y_um` and the number of points in it. µm of the slide, origin top-left."""

    x_um: float
    y_um: float
    count: int
    area_mm2: float
    shape: Literal["circle", "rectangle"]
    width_um: float
    height_um: float

    def contains(self, points_um: FloatArray) -> NDArray[np.bool_]:
        """Which of the (n, 2) points lie inside or on the border: `count` of those the hotspot was found for."""
        half_axes = np.array([self.width_um, self.height_um]) / 2
        offsets = (checked_points(points_um) - (self.x_um, self.y_um)) / half_axes
        inside: NDArray[np.bool_] = np.linalg.norm(offsets, ord=_NORM[self.shape], axis=1) <= BORDER
        return inside


_NORM: Final = {"circle": 2.0, "rectangle": np.inf}


def densest_circle(points_um: FloatArray, area_mm2: float = 2.0) -> Hotspot | None:
    """Find the circular field of view that holds most points, after Fick et al. 2024, §2.4 (2 mm²).

    points_um: (n, 2) float64, µm. Points on the border count. Exact. Of equally good fields the one whose centre is
    nearest the points' centroid is taken, whatever the order of the points. None where there are no points.
    Raises BadOption for an area that is not positive, or points that are not finite pairs.
    """
    return _densest(points_um, "circle", area_mm2, *field_size_um("circle", area_mm2))


def densest_rectangle(points_um: FloatArray, area_mm2: float = 2.37, aspect: float = 4 / 3) -> Hotspot | None:
    """Find the axis-aligned rectangle that holds most points, after Aubreville et al. 2020 (10 HPF = 2.37 mm², 4:3).

    points_um: (n, 2) float64, µm. `aspect` is width over height: 4/3 lies (landscape), 3/4 stands (portrait).
    Borders, ties, exactness, None and errors as in `densest_circle`.
    """
    return _densest(points_um, "rectangle", area_mm2, *field_size_um("rectangle", area_mm2, aspect))


def field_size_um(shape: Literal["circle", "rectangle"], area_mm2: float, aspect: float = 4 / 3) -> tuple[float, float]:
    """Width and height in µm of a field: a circle's diameter twice, or sides with `aspect`, width over height.

    Raises BadOption for an area or aspect that is not positive, or another shape.
    """
    if not (np.isfinite(area_mm2) and area_mm2 > 0):
        raise BadOption(f"area_mm2 must be a positive number of mm², not {area_mm2}")
    if not (np.isfinite(aspect) and aspect > 0):
        raise BadOption(f"aspect is width over height and must be a positive number, not {aspect}")
    if shape == "circle":
        diameter_um = 2 * float(np.sqrt(area_mm2 * 1e6 / np.pi))
        return diameter_um, diameter_um
    if shape == "rectangle":
        width_um = float(np.sqrt(area_mm2 * 1e6 * aspect))
        return width_um, width_um / aspect
    raise BadOption(f"a field of view is a circle or a rectangle, not {shape!r}")


def checked_points(points_um: FloatArray) -> FloatArray:
    """The points as (n, 2) float64. Raises BadOption where they are not finite pairs."""
    points = np.asarray(points_um, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadOption(f"points must have the shape (n, 2), x and y in µm, not {points.shape}")
    if not np.isfinite(points).all():
        raise BadOption("points must be finite µm; remove rows with NaN or infinite coordinates")
    return points


def _densest(
    points_um: FloatArray, shape: Literal["circle", "rectangle"], area_mm2: float, width_um: float, height_um: float
) -> Hotspot | None:
    points_um = checked_points(points_um)
    if len(points_um) == 0:
        return None
    half_axes = np.array([width_um, height_um]) / 2
    search = _Search(points_um / half_axes, half_axes, shape)
    x_um, y_um = search.best_centre * half_axes
    return Hotspot(float(x_um), float(y_um), search.best_count, area_mm2, shape, width_um, height_um)


class _Search:
    """Branch and bound over the centre of a field with half-axes of one. Runs on construction."""

    def __init__(self, points: FloatArray, half_axes: FloatArray, shape: Literal["circle", "rectangle"]) -> None:
        points = points[np.lexsort(points.T)]  # the answer must not depend on the order the points came in
        self._points, self._norm, self._half_axes = points, _NORM[shape], half_axes
        self._tree = cKDTree(points)
        self._centroid = points.mean(axis=0)
        self.best_centre, self.best_count, self._best_distance = points[0], 0, np.inf
        self._offer(self._centroid[None], self._count(self._centroid[None], 1.0))
        cells, side = _cells_near(points), 1.0
        while len(cells):
            cells, side = self._narrow(cells, side), side / 2

    def _count(self, centres: FloatArray, radius: float) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = self._tree.query_ball_point(
            centres, radius * BORDER, p=self._norm, return_length=True
        )
        return counts

    def _distance_um(self, centres: FloatArray, slack: float = 0.0) -> FloatArray:
        """Least distance from the centroid of any point within `slack` of the centre along each axis."""
        offsets = np.maximum(np.abs(centres - self._centroid) - slack, 0) * self._half_axes
        distances: FloatArray = np.hypot(offsets[:, 0], offsets[:, 1])
        return distances

    def _offer(self, centres: FloatArray, counts: NDArray[np.int64]) -> None:
        """Keep the best of these centres, which cover so many points each, if it beats the best so far."""
        distances = self._distance_um(centres)
        if len(centres) == 0:
            return
        first = np.lexsort((centres[:, 1], centres[:, 0], distances, -counts))[0]
        if (-counts[first], distances[first]) < (-self.best_count, self._best_distance):
            self.best_centre = centres[first]
            self.best_count, self._best_distance = int(counts[first]), float(distances[first])

    def _may_win(self, bounds: NDArray[np.int64], centres: FloatArray, side: float) -> NDArray[np.bool_]:
        nearer = self._distance_um(centres, side / 2) < self._best_distance
        wins: NDArray[np.bool_] = (bounds > self.best_count) | ((bounds == self.best_count) & nearer)
        return wins

    def _narrow(self, cells: FloatArray, side: float) -> FloatArray:
        """Bound square cells (lower corners, (n, 2)), enumerate the small ones, quarter those that may still win."""
        reach = side / 2 * (np.sqrt(2) if self._norm == 2 else 1)
        centres = cells + side / 2
        bounds = self._count(centres, 1 + reach)
        kept = self._may_win(bounds, centres, side)
        cells, centres, bounds = cells[kept], centres[kept], bounds[kept]
        if len(cells) == 0:
            return cells
        counts = self._count(centres, 1.0)
        self._offer(centres, counts)
        if side <= _LEAST_SIDE:
            return cells[:0]
        kept = self._may_win(bounds, centres, side)
        cells, centres, bounds, counts = cells[kept], centres[kept], bounds[kept], counts[kept]
        undone = np.ones(len(cells), dtype=bool)
        for i in np.flatnonzero((bounds - counts <= _FEW) | (side <= _FINE_SIDE)):
            undone[i] = self._may_win(bounds[i], centres[i, None], side)[0] and not self._enumerate(
                centres[i], side, reach
            )
        corners = np.array([(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)]) * side
        return (cells[undone][:, None] + corners).reshape(-1, 2)

    def _enumerate(self, centre: FloatArray, side: float, reach: float) -> bool:
        """Offer every centre in the cell at which the points covered can change, or the centroid can come nearest.

        False, and nothing done, where the undecided points are too many.
        """
        points = self._points[self._tree.query_ball_point(centre, (1 + reach) * BORDER, p=self._norm)]
        undecided = np.linalg.norm(points - centre, ord=self._norm, axis=1) >= (1 - reach) / BORDER
        certain = len(points) - undecided.sum()
        points, times = np.unique(points[undecided], axis=0, return_counts=True)
        if self._norm == 2 and len(points) > _MANY:
            return False
        window = (centre - side / 2 - _LEAST_SIDE, centre + side / 2 + _LEAST_SIDE)
        crossings = _circle_crossings if self._norm == 2 else _square_crossings
        candidates = crossings(points, self._centroid, window)
        covered = np.linalg.norm(candidates[:, None] - points, ord=self._norm, axis=2) <= BORDER
        self._offer(candidates, certain + covered @ times)
        return True


def _cells_near(points: FloatArray) -> FloatArray:
    """Lower corners of the unit cells that hold a point or touch one that does: every useful centre lies in one."""
    occupied = np.unique(np.floor(points), axis=0)
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=np.float64)
    return np.unique((occupied[:, None] + steps).reshape(-1, 2), axis=0)


def _circle_crossings(points: FloatArray, origin: FloatArray, window: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Crossings in the window of the unit circles around the points, their nearest points to `origin`, and that."""
    first, second = np.triu_indices(len(points), k=1)
    chord = points[second] - points[first]
    apart = np.hypot(chord[:, 0], chord[:, 1])
    crossing = (apart > 0) & (apart <= 2 * BORDER)
    first, second, chord, apart = first[crossing], second[crossing], chord[crossing], apart[crossing]
    height = np.sqrt(np.maximum(1 - apart**2 / 4, 0))
    sideways = np.stack([-chord[:, 1], chord[:, 0]], axis=1) / apart[:, None] * height[:, None]
    middle = (points[first] + points[second]) / 2
    outward = origin - points
    length = np.linalg.norm(outward, axis=1)
    nearest = points[length > 0] + outward[length > 0] / length[length > 0, None]
    centres = np.concatenate([middle + sideways, middle - sideways, nearest, origin[None]])
    inside: FloatArray = centres[((centres >= window[0]) & (centres <= window[1])).all(axis=1)]
    return inside


def _square_crossings(points: FloatArray, origin: FloatArray, window: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Crossings in the window of the borders of the squares around the points, and of lines through `origin`."""
    lines = [np.unique(np.concatenate([points[:, i] - 1, points[:, i] + 1, origin[i, None]])) for i in (0, 1)]
    x, y = (line[(line >= window[0][i]) & (line <= window[1][i])] for i, line in enumerate(lines))
    return np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
