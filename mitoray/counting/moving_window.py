"""How many points lie in the field around every centre of a grid, at once.

A point adds one to each centre whose field covers it. Along a row of the grid these centres are one run, so the point
marks the run's start and the place after its end, and a running sum along the rows gives the counts: work grows with
the points times the rows that a field spans, memory with the grid.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mitoray.counting.hotspot import BORDER, FloatArray, checked_points
from mitoray.errors import BadOption

Shape = Literal["circle", "rectangle"]

MOST_CENTRES: Final = 100_000_000
"""Centres of one grid, for which the counts take some 800 MB."""

_POINTS_AT_ONCE: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Grid:
    """`rows` × `columns` centres; the first lies at `x_um, y_um`, the others `step_x_um, step_y_um` further each."""

    rows: int
    columns: int
    step_x_um: float
    step_y_um: float
    x_um: float
    y_um: float

    def centres_um(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> FloatArray:
        """Places (n, 2) in µm of the centres in these rows (n,) and columns (n,)."""
        return np.column_stack([self.x_um + columns * self.step_x_um, self.y_um + rows * self.step_y_um])


def counts_around(
    points_um: FloatArray, grid: Grid, shape: Shape, width_um: float, height_um: float
) -> NDArray[np.int32]:
    """Points in the field around each centre: (rows, columns) int32.

    points_um: (n, 2) float64, µm; points on a field's border count, as in `densest_circle`. Exact. Points outside the
    grid count in the fields that reach them. Raises BadOption for points that are not finite pairs, or a grid of more
    than 100 million centres.
    """
    if grid.rows * grid.columns > MOST_CENTRES:
        raise BadOption(
            f"a grid of {grid.columns:,} × {grid.rows:,} centres is too large; choose a longer step than "
            f"{grid.step_x_um:g} µm"
        )
    points = checked_points(points_um)
    marks = np.zeros(grid.rows * (grid.columns + 1), np.int32)
    for first in range(0, len(points), _POINTS_AT_ONCE):
        _mark(marks, points[first : first + _POINTS_AT_ONCE], grid, shape, width_um / 2, height_um / 2)
    counts = np.cumsum(marks.reshape(grid.rows, grid.columns + 1), axis=1, dtype=np.int32)
    return np.ascontiguousarray(counts[:, :-1])


def _mark(
    marks: NDArray[np.int32], points: FloatArray, grid: Grid, shape: Shape, half_width: float, half_height: float
) -> None:
    """Mark, row by row of those that the points' fields span, where runs of covering centres start and end."""
    reach = half_height * BORDER / grid.step_y_um
    row = (points[:, 1] - grid.y_um) / grid.step_y_um
    column = (points[:, 0] - grid.x_um) / grid.step_x_um
    top = np.ceil(row - reach).astype(np.int64)
    for i in range(int(2 * reach) + 2):
        at = top + i
        offset = (at - row) * grid.step_y_um / half_height
        covered = (np.abs(offset) <= BORDER) & (at >= 0) & (at < grid.rows)
        half = half_width / grid.step_x_um * half_chord(offset[covered], shape)
        start = np.clip(np.ceil(column[covered] - half), 0, grid.columns).astype(np.int64)
        after = np.clip(np.floor(column[covered] + half) + 1, 0, grid.columns).astype(np.int64)
        line = at[covered] * (grid.columns + 1)
        # An empty run starts after its end, and would count as minus one in between.
        after = np.maximum(after, start)
        np.add.at(marks, line + start, np.int32(1))
        np.add.at(marks, line + after, np.int32(-1))


def half_chord(offset: FloatArray, shape: Shape) -> FloatArray:
    """Half the width of a field with half-axes of one, `offset` above or below its centre: (n,), border included."""
    if shape == "rectangle":
        return np.full(offset.shape, BORDER)
    chord: FloatArray = np.sqrt(np.maximum(BORDER**2 - offset**2, 0))
    return chord


def cells_around(mask: NDArray[np.bool_], grid: Grid, shape: Shape, width_um: float, height_um: float) -> FloatArray:
    """Share of the field around each centre that is true in a mask on the grid's centres: (rows, columns) float64.

    mask: (rows, columns) bool. A cell counts whole, by its centre; what lies outside the grid is false.
    """
    runs = np.zeros((grid.rows, grid.columns + 1), np.int32)
    np.cumsum(mask, axis=1, out=runs[:, 1:])
    at, found, n_cells = np.arange(grid.columns), np.zeros(mask.shape, np.int32), 0
    for up in range(int(height_um / 2 * BORDER / grid.step_y_um) + 1):
        offset = np.array([up * grid.step_y_um / (height_um / 2)])
        reach = int(width_um / 2 / grid.step_x_um * half_chord(offset, shape)[0])
        n_cells += (2 * reach + 1) * (2 if up else 1)
        if up >= grid.rows:
            continue
        line = runs[:, np.minimum(at + reach + 1, grid.columns)] - runs[:, np.maximum(at - reach, 0)]
        found[up:] += line[: grid.rows - up]
        if up:
            found[:-up] += line[up:]
    return found / n_cells
