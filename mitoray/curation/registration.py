"""The map from a slide to its rescan: one affine for the whole, and a quad-tree of local ones (Marzahl et al. 2021)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadRegistration

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: x' = a x + b y + c and y' = d x + e y + f, in µm."""
Points = NDArray[np.float64]

_TOLERANCE_UM: Final = 1e-6
_MOST_STEPS: Final = 50


@dataclass(frozen=True)
class Extent:
    """The size of a slide, level-0 px, and its µm per px."""

    width_px: int
    height_px: int
    mpp: float

    def to_um(self, xy_px: Points) -> Points:
        """(n, 2) px, which name the centres of pixels, in µm from the slide's corner."""
        um: Points = (np.asarray(xy_px, np.float64).reshape(-1, 2) + 0.5) * self.mpp
        return um

    def to_px(self, xy_um: Points) -> Points:
        """The inverse of `to_um`."""
        px: Points = np.asarray(xy_um, np.float64).reshape(-1, 2) / self.mpp - 0.5
        return px

    def holds(self, xy_um: Points, margin_um: float = 0.0) -> NDArray[np.bool_]:
        """Whether each of (n, 2) points lies on the slide, at least `margin_um` from its edge: (n,) bool."""
        far = np.array([self.width_px, self.height_px]) * self.mpp - margin_um
        return np.asarray(((xy_um >= margin_um) & (xy_um < far)).all(axis=1))


@dataclass(frozen=True)
class Node:
    """A square of the original, µm from its corner, and the map that fits best there.

    quality: 0 to 1, how alike the two scans are after it: the mean normalised cross-correlation of its blocks, those
    that lie elsewhere than the others counted as 0. None where there is too little to compare.
    """

    left_um: float
    top_um: float
    side_um: float
    affine: Affine
    quality: float | None


@dataclass(frozen=True)
class Registration:
    """Where each place of an original lies on its rescan.

    affine: the map of the whole, original µm to rescan µm. inliers: matched features that agree with it. nodes: of the
    quad-tree, the coarsest first. `quality`: the mean over the finest nodes, by area.
    """

    affine: Affine
    inliers: int
    nodes: tuple[Node, ...]
    original: Extent
    rescan: Extent

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The nodes that no finer node lies in."""
        inner = {(n.left_um, n.top_um, n.side_um) for n in self.nodes}
        halved = {(left - left % (2 * side), top - top % (2 * side), 2 * side) for left, top, side in sorted(inner)}
        return tuple(n for n in self.nodes if (n.left_um, n.top_um, n.side_um) not in halved)

    @property
    def quality(self) -> float:
        """How alike the scans are where they lie over each other, 0 to 1; 0 where nothing could be compared."""
        judged = [(n.quality, n.side_um**2) for n in self.leaves if n.quality is not None]
        area = sum(weight for _, weight in judged)
        return sum(quality * weight for quality, weight in judged) / area if area else 0.0

    @property
    def angle_degrees(self) -> float:
        """By how much the rescan is turned, clockwise as one looks at it, -180 to 180."""
        a, b, _, d, e, _ = self.affine
        return math.degrees(math.atan2(d - b, a + e))

    def to_rescan(self, xy_px: Points) -> Points:
        """(n, 2) level-0 px of the original as level-0 px of the rescan, which may lie outside it."""
        return self.rescan.to_px(self._forward(self.original.to_um(xy_px)))

    def to_original(self, xy_px: Points) -> Points:
        """The inverse of `to_rescan`, to a millionth of a µm where the map can be inverted."""
        wanted = self.rescan.to_um(xy_px)
        matrix, shift = _parts(self.affine)
        back = np.linalg.inv(matrix).T
        found = (wanted - shift) @ back
        for _ in range(_MOST_STEPS):
            step = (wanted - self._forward(found)) @ back
            found = found + step
            if not len(step) or np.abs(step).max() < _TOLERANCE_UM:
                break
        return self.original.to_px(found)

    def on_rescan(self, xy_px: Points, margin_um: float = 0.0) -> NDArray[np.bool_]:
        """Whether each of (n, 2) level-0 px of the original lies on the rescan, `margin_um` inside it: (n,) bool."""
        return self.rescan.holds(self._forward(self.original.to_um(xy_px)), margin_um)

    def quality_at(self, xy_px: Points) -> NDArray[np.float64]:
        """The quality of the finest node around each of (n, 2) level-0 px of the original; NaN where there is none."""
        um = self.original.to_um(xy_px)
        found = np.full(len(um), np.nan)
        for level in self._levels:
            cells = np.floor(um / level.side_um).astype(np.int64)
            known = level.inside(cells)
            values = level.quality[tuple(np.where(known[:, None], cells, 0)[:, ::-1].T)]
            known &= np.isfinite(values)
            found[known] = values[known]
        return found

    def _forward(self, xy_um: Points) -> Points:
        """Each place by the finest nodes there, blended from centre to centre; by the whole's map where none is."""
        matrix, shift = _parts(self.affine)
        found: Points = xy_um @ matrix.T + shift
        for level in self._levels:
            corner = xy_um / level.side_um - 0.5
            base = np.floor(corner).astype(np.int64)
            share = corner - base
            total, sums = np.zeros(len(xy_um)), np.zeros((len(xy_um), 2))
            for right in (0, 1):
                for down in (0, 1):
                    cells = base + np.array([right, down])
                    known = level.inside(cells)
                    maps = level.affine[tuple(np.where(known[:, None], cells, 0)[:, ::-1].T)]
                    weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1])
                    weight = np.where(known & np.isfinite(maps[:, 0]), weight, 0.0)
                    there = np.einsum("nij,nj->ni", maps.reshape(-1, 2, 3)[:, :, :2], xy_um) + maps[:, [2, 5]]
                    sums += np.where(weight[:, None] > 0, there, 0.0) * weight[:, None]
                    total += weight
            some = total > 0
            found[some] = sums[some] / total[some, None]
        return found

    @cached_property
    def _levels(self) -> tuple["_Level", ...]:
        sides = sorted({node.side_um for node in self.nodes}, reverse=True)
        return tuple(_Level.of([node for node in self.nodes if node.side_um == side]) for side in sides)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> "Registration":
        """Raises BadRegistration for what `to_json` did not give."""
        try:
            document = json.loads(json.dumps(document))
            nodes = tuple(_node(node) for node in document["nodes"])
            original, rescan = (_extent(document[name]) for name in ("original", "rescan"))
            found = cls(_affine(document["affine"]), int(document["inliers"]), nodes, original, rescan)
        except (KeyError, TypeError, ValueError) as error:
            raise BadRegistration(
                f"This is no registration ({type(error).__name__}: {error}). Register again."
            ) from None
        return found


@dataclass(frozen=True)
class _Level:
    """Nodes of one size as grids. affine: (rows, columns, 6); quality: (rows, columns); NaN where there is none."""

    side_um: float
    affine: NDArray[np.float64]
    quality: NDArray[np.float64]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> "_Level":
        side = nodes[0].side_um
        places = [(round(n.top_um / side), round(n.left_um / side)) for n in nodes]
        rows, columns = (max(place) + 1 for place in zip(*places, strict=True))
        affine, quality = np.full((rows, columns, 6), np.nan), np.full((rows, columns), np.nan)
        for place, node in zip(places, nodes, strict=True):
            affine[place] = node.affine
            quality[place] = np.nan if node.quality is None else node.quality
        return cls(side, affine, quality)

    def inside(self, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of (n, 2) places (column, row) is in the grid."""
        rows, columns = self.quality.shape
        return np.asarray(((cells >= 0) & (cells < (columns, rows))).all(axis=1))


def after(affine: Affine, first: Affine) -> Affine:
    """The map that does `first`, then `affine`."""
    (a, s), (b, t) = _parts(affine), _parts(first)
    matrix, shift = a @ b, a @ t + s
    return affine_of(np.column_stack([matrix, shift]))


def affine_of(matrix: NDArray[np.float64]) -> Affine:
    """Of a (2, 3) matrix."""
    a, b, c, d, e, f = (float(value) for value in np.asarray(matrix)[:2, :3].ravel())
    return a, b, c, d, e, f


def _parts(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = np.reshape(affine, (2, 3)).astype(np.float64)
    return both[:, :2], both[:, 2]


def _affine(values: Sequence[float]) -> Affine:
    numbers = np.array(values, np.float64)
    if numbers.shape != (6,) or not np.isfinite(numbers).all():
        raise ValueError("an affine map has six numbers")
    if abs(np.linalg.det(numbers.reshape(2, 3)[:, :2])) < 1e-6:
        raise ValueError("an affine map that cannot be inverted")
    return affine_of(numbers.reshape(2, 3))


def _node(node: Any) -> Node:
    left, top, side = (float(node[name]) for name in ("left_um", "top_um", "side_um"))
    on_grid = side > 0 and all(p >= 0 and math.isclose(p / side, round(p / side), abs_tol=1e-6) for p in (left, top))
    quality = node["quality"]
    if not on_grid or not (quality is None or 0 <= quality <= 1):
        raise ValueError("a node off the grid, or of an impossible quality")
    return Node(left, top, side, _affine(node["affine"]), quality)


def _extent(document: Any) -> Extent:
    extent = Extent(int(document["width_px"]), int(document["height_px"]), float(document["mpp"]))
    if min(extent.width_px, extent.height_px) < 1 or not 0 < extent.mpp < math.inf:
        raise ValueError("a slide without a size")
    return extent
