"""Cut the tissue into regions to score."""

import math

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadOption
from mitoray.slide.geometry import Rect
from mitoray.slide.tissue import Tissue


def plan_regions(
    tissue: Tissue, *, width_px: int, height_px: int, core_px: int, halo_px: int, granule_px: int
) -> list[Rect]:
    """Core rectangles that cover the tissue, each tissue px exactly once.

    width_px, height_px: the slide. core_px: side of a grid cell. halo_px: the margin that will be read around a core.
    granule_px: cores begin and end at multiples of it (or at the slide's edge), so that few distinct shapes arise.
    A cell without tissue gives no core, others the bounding box of their tissue. Ordered along a Z-curve: cores that
    follow each other are neighbours and share native tiles. Errors: BadOption.
    """
    if granule_px < 1 or core_px < granule_px or core_px % granule_px:
        raise BadOption(f"core_px {core_px} must be a positive multiple of granule_px {granule_px}.")
    if not 0 <= halo_px < core_px:
        raise BadOption(f"halo_px {halo_px} must be at least 0 and less than core_px {core_px}.")
    cells = [
        (row, column)
        for row in range(math.ceil(height_px / core_px))
        for column in range(math.ceil(width_px / core_px))
    ]
    cells.sort(key=lambda cell: _z_order(*cell))
    cores = []
    for row, column in cells:
        rows = _mask_span(row * core_px, min((row + 1) * core_px, height_px), tissue.mask.shape[0], height_px)
        columns = _mask_span(column * core_px, min((column + 1) * core_px, width_px), tissue.mask.shape[1], width_px)
        held = tissue.mask[rows, columns]
        if not held.any():
            continue
        y0, y1 = _slide_span(rows.start, np.any(held, axis=1), tissue.mask.shape[0], height_px)
        x0, x1 = _slide_span(columns.start, np.any(held, axis=0), tissue.mask.shape[1], width_px)
        y0, y1 = _snapped(y0, y1, row * core_px, core_px, granule_px, height_px)
        x0, x1 = _snapped(x0, x1, column * core_px, core_px, granule_px, width_px)
        cores.append(Rect(x0, y0, x1 - x0, y1 - y0))
    return cores


def _mask_span(start_px: int, stop_px: int, mask_size: int, slide_size: int) -> slice:
    """The mask px that level-0 px start..stop-1 fall into, px centres deciding as in `Tissue.contains`."""
    first, last = ((2 * px + 1) * mask_size // (2 * slide_size) for px in (start_px, stop_px - 1))
    return slice(first, last + 1)


def _slide_span(first: int, held: NDArray[np.bool_], mask_size: int, slide_size: int) -> tuple[int, int]:
    """Start and end, level-0 px, of what lies under the true ones of the mask px `first`, `first` + 1, ..."""
    edges = first + int(held.argmax()), first + len(held) - int(held[::-1].argmax())
    start, stop = (-((mask_size - 2 * edge * slide_size) // (2 * mask_size)) for edge in edges)
    return start, stop


def _snapped(start: int, stop: int, cell: int, core_px: int, granule_px: int, slide_size: int) -> tuple[int, int]:
    """Outwards to granules, but within the cell and the slide."""
    start, stop = max(start, cell), min(stop, cell + core_px)
    return start // granule_px * granule_px, min(-(-stop // granule_px) * granule_px, slide_size)


def _z_order(row: int, column: int) -> int:
    """Morton code: the bits of row and column, interleaved."""
    return sum(((row >> bit & 1) << (2 * bit + 1)) | ((column >> bit & 1) << (2 * bit)) for bit in range(24))
