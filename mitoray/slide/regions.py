"""Cut the tissue into regions to score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadOption
from mitoray.slide.geometry import Rect
from mitoray.slide.tissue import Tissue

SMALLEST_GRANULES: Final = 4
"""A core this many granules wide is not divided further: each region has a cost of its own besides its pixels."""


def plan_regions(
    tissue: Tissue, *, width_px: int, height_px: int, core_px: int, halo_px: int, granule_px: int
) -> list[Rect]:
    """Core rectangles that cover the tissue, each tissue px exactly once, with few px read besides.

    width_px, height_px: the slide. core_px: side of a grid cell. halo_px: the margin that will be read around a core.
    granule_px: cores begin and end at multiples of it (or at the slide's edge), so that few distinct shapes arise.
    A cell without tissue gives no core, others the bounding box of their tissue, or those of the cell's quarters, and
    of theirs in turn, where these read fewer px, halos included: inside the tissue cores are large, since halos
    overlap, and along its outline small, since glass need not be read. Ordered along a Z-curve: cores that follow each
    other are neighbours and share native tiles. Errors: BadOption.
    """
    if granule_px < 1 or core_px < granule_px or core_px % granule_px:
        raise BadOption(f"core_px {core_px} must be a positive multiple of granule_px {granule_px}.")
    if not 0 <= halo_px < core_px:
        raise BadOption(f"halo_px {halo_px} must be at least 0 and less than core_px {core_px}.")
    cutting = _Cutting(tissue, width_px, height_px, halo_px, granule_px)
    cells = [
        (row, column)
        for row in range(math.ceil(height_px / core_px))
        for column in range(math.ceil(width_px / core_px))
    ]
    cells.sort(key=lambda cell: _z_order(*cell))
    return [
        core for row, column in cells for core in cutting.cores(Rect(column * core_px, row * core_px, core_px, core_px))
    ]


def read_share(cores: Sequence[Rect], halo_px: int) -> float:
    """Pixels read per pixel of core, 1 or more: what halos cost. 1 without cores."""
    own = sum(core.width_px * core.height_px for core in cores)
    return sum(_read_px(core, halo_px) for core in cores) / own if own else 1.0


@dataclass(frozen=True)
class _Cutting:
    """One slide's tissue, and how it is cut."""

    tissue: Tissue
    width_px: int
    height_px: int
    halo_px: int
    granule_px: int

    def cores(self, cell: Rect) -> list[Rect]:
        """The cores of a cell, along the Z-curve."""
        whole = self._bounded(cell)
        if whole is None:
            return []
        if max(cell.width_px, cell.height_px) <= SMALLEST_GRANULES * self.granule_px:
            return [whole]
        quarters = [
            core
            for y_px, height_px in self._halves(cell.y_px, cell.height_px)
            for x_px, width_px in self._halves(cell.x_px, cell.width_px)
            for core in self.cores(Rect(x_px, y_px, width_px, height_px))
        ]
        return quarters if sum(map(self._cost, quarters)) < self._cost(whole) else [whole]

    def _halves(self, start_px: int, length_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Start and length of two halves in whole granules; the second may be one granule shorter."""
        first = (length_px // self.granule_px + 1) // 2 * self.granule_px
        return (start_px, first), (start_px + first, length_px - first)

    def _cost(self, core: Rect) -> int:
        return _read_px(core, self.halo_px)

    def _bounded(self, cell: Rect) -> Rect | None:
        """The bounding box of a cell's tissue, in whole granules; None without tissue."""
        mask = self.tissue.mask
        bottom, right = min(cell.y_px + cell.height_px, self.height_px), min(cell.x_px + cell.width_px, self.width_px)
        if bottom <= cell.y_px or right <= cell.x_px:
            return None
        rows = _mask_span(cell.y_px, bottom, mask.shape[0], self.height_px)
        columns = _mask_span(cell.x_px, right, mask.shape[1], self.width_px)
        held = mask[rows, columns]
        if not held.any():
            return None
        y0, y1 = _slide_span(rows.start, np.any(held, axis=1), mask.shape[0], self.height_px)
        x0, x1 = _slide_span(columns.start, np.any(held, axis=0), mask.shape[1], self.width_px)
        y0, y1 = _snapped(y0, y1, cell.y_px, bottom, self.granule_px)
        x0, x1 = _snapped(x0, x1, cell.x_px, right, self.granule_px)
        return Rect(x0, y0, x1 - x0, y1 - y0)


def _read_px(core: Rect, halo_px: int) -> int:
    outer = core.expanded(halo_px)
    return outer.width_px * outer.height_px


def _mask_span(start_px: int, stop_px: int, mask_size: int, slide_size: int) -> slice:
    """The mask px that level-0 px start..stop-1 fall into, px centres deciding as in `Tissue.contains`."""
    first, last = ((2 * px + 1) * mask_size // (2 * slide_size) for px in (start_px, stop_px - 1))
    return slice(first, last + 1)


def _slide_span(first: int, held: NDArray[np.bool_], mask_size: int, slide_size: int) -> tuple[int, int]:
    """Start and end, level-0 px, of what lies under the true ones of the mask px `first`, `first` + 1, ..."""
    edges = first + int(held.argmax()), first + len(held) - int(held[::-1].argmax())
    start, stop = (-((mask_size - 2 * edge * slide_size) // (2 * mask_size)) for edge in edges)
    return start, stop


def _snapped(start: int, stop: int, first: int, last: int, granule_px: int) -> tuple[int, int]:
    """Outwards to granules, but within `first` to `last`."""
    start, stop = max(start, first), min(stop, last)
    return start // granule_px * granule_px, min(-(-stop // granule_px) * granule_px, last)


def _z_order(row: int, column: int) -> int:
    """Morton code: the bits of row and column, interleaved."""
    return sum(((row >> bit & 1) << (2 * bit + 1)) | ((column >> bit & 1) << (2 * bit)) for bit in range(24))
