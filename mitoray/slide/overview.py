"""The whole slide, small, without ever holding it large."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import CorruptTile, NotASlide
from mitoray.slide.pyramid import Level, TileIndex
from mitoray.slide.tiles import WHITE
from mitoray.slide.window import FILTER, SAME_RESOLUTION, Window

log = logging.getLogger(__name__)

MOST_PX: Final = 1 << 27
"""Of the image that the overview is made from: 400 MB."""
MOST_STACKED_PX: Final = (1 << 28) // 3
"""Of strips that are put together to be reduced: as much as one strip may have."""

Fetch = Callable[[int, Iterable[int]], Iterator[tuple[int, bytes]]]
"""(level, tile indices) to (tile index, compressed bytes), in that order."""


def overview(
    levels: Sequence[Level], tiles: Sequence[TileIndex], downsample: float, fetch: Fetch, name: str
) -> NDArray[np.uint8]:
    """The slide at `downsample` level-0 px per px: (h, w, 3) uint8 RGB.

    From the coarsest level that is fine enough and sound. On level 0 corrupt tiles are left white; if all are
    corrupt: CorruptTile.
    """
    enough = [i for i, level in enumerate(levels) if i == 0 or level.downsample <= downsample * (1 + SAME_RESOLUTION)]
    for number in reversed(enough):
        try:
            reduction = _halvings(levels[number], downsample)
            reduced, factor = _reduced_level(number, levels[number], reduction, tiles[number], downsample, fetch, name)
        except CorruptTile as exc:
            if number == 0:
                raise
            log.warning("the overview falls back to level %d: %s", number - 1, exc)
        else:
            size = [max(1, round(edge / downsample)) for edge in (levels[0].width_px, levels[0].height_px)]
            # Of a level that is no multiple of the reduction, the last px are not there.
            width, height = levels[number].width_px / factor, levels[number].height_px / factor
            box = (0, 0, min(width, reduced.width), min(height, reduced.height))
            return np.asarray(reduced.resize((size[0], size[1]), FILTER, box=box))
    raise AssertionError("level 0 returns or raises")


def _halvings(level: Level, downsample: float) -> int:
    """How often decoding halves the sides of the level's tiles: so often that the filter has something to average."""
    spare = math.floor(math.log2(max(1.0, downsample / level.downsample / 2)))
    return min(level.halvings, spare)


def _reduced_level(
    number: int, level: Level, reduction: int, tiles: TileIndex, downsample: float, fetch: Fetch, name: str
) -> tuple[Image.Image, int]:
    """A level as means of factor × factor px, and the factor. Every tile is decoded once and dropped."""
    width_px, height_px = level.width_px >> reduction, level.height_px >> reduction
    window = Window(number, level.width_px, level.height_px, reduction, 0, 0, width_px, height_px, None, (1, 1))
    indices = window.tile_indices(tiles.tile_format)
    # Only half the way in whole steps: the resampling filter that follows needs something to average.
    most = max(1, int(downsample / level.downsample / 2**reduction / 2))
    tile_width_px, tile_height_px = level.tile_width_px >> reduction, level.tile_height_px >> reduction
    factor, together = _reduction(width_px, height_px, tile_width_px, tile_height_px, most)
    if width_px * height_px > MOST_PX * factor**2:
        raise NotASlide(
            f"{name}: {level.width_px} × {level.height_px} px in tiles of {level.tile_width_px} × "
            f"{level.tile_height_px} px cannot be looked over. Convert it to tiles, e.g. with `vips tiffsave --tile "
            "--pyramid`."
        )
    small = Image.new("RGB", (math.ceil(width_px / factor), math.ceil(height_px / factor)), "white")
    stack: list[NDArray[np.uint8]] = []
    failures = 0
    for index, data in fetch(number, indices):
        if not data and together == 1:
            continue  # absent, and white already
        x, y, width, height = window.tile_extent(index, tiles.tile_format)
        try:
            stack.append(window.decode(index, data, tiles.tile_format, name))
        except CorruptTile as exc:
            failures += 1
            if number > 0 or failures == len(indices):
                raise
            log.warning("left white in the overview: %s", exc)
            stack.append(np.full((height, width, 3), WHITE, np.uint8))
        if len(stack) == together or y + height == height_px:
            block = np.concatenate(stack)
            top = y + height - len(block)
            small.paste(Image.fromarray(block).reduce(factor), (x // factor, top // factor))
            stack.clear()
    return small, factor << reduction


def _reduction(width_px: int, height_px: int, tile_width_px: int, tile_height_px: int, most: int) -> tuple[int, int]:
    """A factor up to `most` that reduces blocks of tiles to whole px, and how many tiles, stacked, make a block."""
    if tile_width_px >= width_px:
        stacks = ((factor, min(math.lcm(factor, tile_height_px), height_px)) for factor in range(most, 0, -1))
        factor = next((factor for factor, rows in stacks if rows * width_px <= MOST_STACKED_PX), 1)
        return factor, factor // math.gcd(factor, tile_height_px)
    common = math.gcd(tile_width_px, tile_height_px)
    return max(factor for factor in range(1, most + 1) if common % factor == 0), 1
