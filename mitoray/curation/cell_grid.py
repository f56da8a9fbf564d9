"""Lays cells out in the plane: alike ones near each other, and none over another.

After Aubreville et al. 2020 (Methods, "Clustering- and object detection-aided labelling") and Marzahl et al. 2020: a
UMAP projection, then each cell into the free place of a grid that is nearest to its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption, TooFewCells

_BEFORE_REBUILD: Final = 512
"""Cells placed before the tree of free places is made anew."""
_FIRST_LOOK: Final = 32
_MARGIN: Final = 0.1
"""Share of the grid that is left free at each edge by UMAP, so that crowds near it can grow to all sides."""
_CLOSE: Final = 1 - 1e-9


@dataclass(frozen=True)
class Layout:
    """How cells are laid out.

    Args:
        umap_neighbours: cells most alike that UMAP keeps near each other; more show the whole, fewer its details.
        umap_distance: how tightly UMAP packs them, 0 to 1 (its min_dist).
        fill: share of the grid's places that hold a cell, above 0, at most 1. Gaps show clusters.
        aspect: width of the grid by its height; 4:3 as published (Aubreville et al. 2020).
        seed: of UMAP, which then runs on one CPU.
    """

    umap_neighbours: int = 15
    umap_distance: float = 0.1
    fill: float = 0.5
    aspect: float = 4 / 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.umap_neighbours < 2:
            raise BadOption(f"umap_neighbours must be 2 or more, not {self.umap_neighbours}.")
        if not 0 <= self.umap_distance <= 1 or not 0 < self.fill <= 1 or not 0.1 <= self.aspect <= 10:
            raise BadOption("umap_distance must lie in 0 to 1, fill above 0 to 1, aspect in 0.1 to 10.")


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells on a grid. columns, rows: its size; places: int64 (n, 2), each cell's column and row, all different."""

    columns: int
    rows: int
    places: NDArray[np.int64]


def projected(embeddings: NDArray[np.float32], layout: Layout) -> NDArray[np.float64]:
    """UMAP of the embeddings (n, d) to two dimensions, float64 (n, 2). Raises TooFewCells for fewer than neighbours."""
    if len(embeddings) <= layout.umap_neighbours + 1:
        raise TooFewCells(
            f"{len(embeddings)} cells are too few for UMAP with {layout.umap_neighbours} neighbours. Ask for fewer, or "
            "give more cells."
        )
    from umap import UMAP  # compiles for seconds when it is imported, which other steps need not wait for

    umap: Any = UMAP(
        n_components=2,
        n_neighbors=layout.umap_neighbours,
        min_dist=layout.umap_distance,
        metric="cosine",
        random_state=layout.seed,
        n_jobs=1,
    )
    plane: NDArray[np.float64] = np.asarray(umap.fit_transform(embeddings), np.float64)
    if not np.isfinite(plane).all():  # cells that are joined to no other one
        plane = np.where(np.isfinite(plane), plane, np.nanmean(plane, axis=0))
    return plane


def grid_of(plane: NDArray[np.float64], layout: Layout, done: Callable[[int], object] = lambda _: None) -> Grid:
    """The cells at `plane`, float64 (n, 2), on a grid, scaled to its width and height."""
    wanted = max(1.0, len(plane) / layout.fill)
    columns = max(1, math.ceil(math.sqrt(wanted * layout.aspect)))
    rows = max(1, math.ceil(wanted / columns))
    if not len(plane):
        return Grid(columns, rows, np.empty((0, 2), np.int64))
    low, extent = plane.min(axis=0), np.ptp(plane, axis=0)
    margin, room = _MARGIN * np.array([columns - 1, rows - 1]), np.array([columns - 1, rows - 1])
    scaled = margin + (plane - low) / np.where(extent > 0, extent, 1) * (room - 2 * margin)
    return Grid(columns, rows, placed_on_grid(scaled, columns, rows, done))


def placed_on_grid(
    points: NDArray[np.float64], columns: int, rows: int, done: Callable[[int], object] = lambda _: None
) -> NDArray[np.int64]:
    """The place (column, row) of each point, int64 (n, 2): the free one nearest to it when it is its turn.

    points: float64 (n, 2), in units of places. Their turn is from the middle (the median point) outwards, ties in
    their order, so that a crowd grows outwards; of places equally near, the upper one goes first, then the left one.
    Exact; O(n log m) in practice for m places. done: called with the number placed. Raises BadOption where there are
    more points than places, or any that is not finite.
    """
    if len(points) > columns * rows or not np.isfinite(points).all():
        raise BadOption(f"{len(points)} cells do not fit on {columns} × {rows} places, or their points are not finite.")
    places = np.stack([np.tile(np.arange(columns), rows), np.repeat(np.arange(rows), columns)], axis=1)
    free = np.ones(len(places), bool)
    taken = np.full(len(points), -1)
    order = turns(points)
    for first in range(0, len(order), _BEFORE_REBUILD):
        now = order[first : first + _BEFORE_REBUILD]
        left = np.flatnonzero(free)
        tree = cKDTree(places[left])
        _, looks = tree.query(points[now], k=min(_FIRST_LOOK, len(left)))
        for cell, look in zip(now, looks.reshape(len(now), -1), strict=True):
            taken[cell] = _nearest_free(points[cell], places, free, left, tree, look)
            free[taken[cell]] = False
        done(len(now))
    found: NDArray[np.int64] = places[taken].reshape(-1, 2)
    return found


def turns(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order in which points are placed: by their distance from the median point, ties in their order."""
    if not len(points):
        return np.empty(0, np.int64)
    return np.argsort(((points - np.median(points, axis=0)) ** 2).sum(axis=1), kind="stable")


def _nearest_free(
    point: NDArray[np.float64],
    places: NDArray[np.int64],
    free: NDArray[np.bool_],
    left: NDArray[np.int64],
    tree: Any,
    look: NDArray[np.int64],
) -> int:
    """The free place nearest to the point. left: places that were free when the tree was made of them."""
    while True:
        near = left[look]
        squared = ((places[near] - point) ** 2).sum(axis=1)
        # What was not looked at lies at least as far as the furthest that was: only nearer ones are surely nearest.
        sure = free[near] & ((squared < squared.max() * _CLOSE) | (len(look) == len(left)))
        if sure.any():
            best = np.lexsort((near[sure], squared[sure]))[0]
            return int(near[sure][best])
        _, look = tree.query(point, k=min(4 * len(look), len(left)))
        look = np.atleast_1d(look)


def same_class_share(grid: Grid, codes: NDArray[np.int64]) -> float:
    """Mean share of cells of the own class among those on the eight places around a cell, over cells that have any."""
    own, around = _around(grid, codes)
    known = around >= 0
    with_any = known.any(axis=1)
    same = (around == own[:, None]) & known
    return float((same.sum(1)[with_any] / known.sum(1)[with_any]).mean()) if with_any.any() else math.nan


def closeness(grid: Grid, codes: NDArray[np.int64], *, permutations: int = 999, seed: int = 0) -> dict[str, float]:
    """Whether cells of a class lie closer together than by chance: `share`, `by_chance`, and p of a permutation test.

    share: of `same_class_share`; by_chance: its mean with the labels permuted among the cells; p: one-sided.
    """
    rng = np.random.default_rng(seed)
    found = same_class_share(grid, codes)
    chance = [same_class_share(grid, rng.permutation(codes)) for _ in range(permutations)]
    p = (1 + sum(share >= found for share in chance)) / (1 + permutations)
    return {"share": found, "by_chance": float(np.mean(chance)) if chance else math.nan, "p": p}


def _around(grid: Grid, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each cell's class (n,), and the classes on the eight places around it (n, 8), -1 where there is no cell."""
    board = np.full((grid.rows + 2, grid.columns + 2), -1)
    x, y = grid.places[:, 0] + 1, grid.places[:, 1] + 1
    board[y, x] = codes
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return codes, np.stack([board[y + dy, x + dx] for dy, dx in steps], axis=1)
