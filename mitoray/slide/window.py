"""What one read takes from a level, and the compressed tiles it takes it from."""

import base64
import dataclasses
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import CorruptTile
from mitoray.slide.geometry import Rect
from mitoray.slide.pyramid import Level
from mitoray.slide.reduction import decode_reduced
from mitoray.slide.tiles import WHITE, TileFormat, decode_tile, tile_memory

SAME_RESOLUTION = 0.03
"""µm per px that differ by less than 3 % count as equal: pixels are given as they are."""
FILTER = Image.Resampling.BICUBIC
FILTER_SUPPORT = 2

Allocate = Callable[[tuple[int, int, int]], NDArray[np.uint8]]
"""Gives memory of a shape, whatever stands in it."""


def new_memory(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Plain memory."""
    return np.empty(shape, np.uint8)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a level's pixels to paste tiles into, and the image to make of it.

    `level_width, level_height`: px of the level. Its tiles are decoded with their sides halved `reduction` times, which
    gives a level that much smaller. `x, y, width, height`: px of that one, may reach past it. `box`: left, top, right,
    bottom of the part to resample, px of the window, or None where pixels are given as they are. `shape`: (height,
    width) of the image.
    """

    level: int
    level_width: int
    level_height: int
    reduction: int
    x: int
    y: int
    width: int
    height: int
    box: tuple[float, float, float, float] | None
    shape: tuple[int, int]

    @property
    def size_bytes(self) -> int:
        """What the canvas takes."""
        return self.width * self.height * 3

    def blank(self, allocate: Allocate = new_memory) -> NDArray[np.uint8]:
        """A canvas for all tiles, (height, width, 3) uint8: white if it reaches past the level, else unpainted."""
        right, bottom = self.level_width >> self.reduction, self.level_height >> self.reduction
        canvas = allocate((self.height, self.width, 3))
        if self.x < 0 or self.y < 0 or self.x + self.width > right or self.y + self.height > bottom:
            canvas.fill(WHITE)
        return canvas

    def tile_indices(self, tile_format: TileFormat) -> list[int]:
        """Indices of the tiles that the window touches, row by row."""
        columns = math.ceil(self.level_width / tile_format.width_px)
        tile_width, tile_height = tile_format.width_px >> self.reduction, tile_format.height_px >> self.reduction
        x0, x1 = max(self.x, 0), min(self.x + self.width, self.level_width >> self.reduction)
        y0, y1 = max(self.y, 0), min(self.y + self.height, self.level_height >> self.reduction)
        if x0 >= x1 or y0 >= y1:
            return []
        return [
            row * columns + column
            for row in range(y0 // tile_height, (y1 - 1) // tile_height + 1)
            for column in range(x0 // tile_width, (x1 - 1) // tile_width + 1)
        ]

    def tile_extent(self, index: int, tile_format: TileFormat) -> tuple[int, int, int, int]:
        """x, y, width, height of a tile, decoded, without what it stores beyond the level."""
        row, column = divmod(index, math.ceil(self.level_width / tile_format.width_px))
        tile_width, tile_height = tile_format.width_px >> self.reduction, tile_format.height_px >> self.reduction
        x, y = column * tile_width, row * tile_height
        return (
            x,
            y,
            min(tile_width, (self.level_width >> self.reduction) - x),
            min(tile_height, (self.level_height >> self.reduction) - y),
        )

    def is_inside(self, index: int, tile_format: TileFormat, margin_px: float) -> bool:
        """Whether a tile lies wholly inside the window, no nearer to its edges than `margin_px` px of it."""
        x, y, width, height = self.tile_extent(index, tile_format)
        right, bottom = self.x + self.width - margin_px, self.y + self.height - margin_px
        inside_x = x >= self.x + margin_px and x + width <= right
        return inside_x and y >= self.y + margin_px and y + height <= bottom

    def decode(
        self, index: int, data: bytes, tile_format: TileFormat, name: str, memory: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Tile `index` as (h, w, 3) RGB, white if it has no bytes. CorruptTile if it cannot be decoded.

        memory: of `tile_memory`, where it may be put; None takes new memory.
        """
        x, y, width, height = self.tile_extent(index, tile_format)
        if not data:
            return np.full((height, width, 3), WHITE, np.uint8)
        try:
            if self.reduction:
                return decode_reduced(data, tile_format, self.reduction, width, height, memory)
            return decode_tile(data, tile_format, width, height, memory)
        except MemoryError:
            raise
        except Exception as exc:
            raise CorruptTile(
                f"{name}: tile {index} of level {self.level}, at x {x}, y {y} px, cannot be decoded "
                f"({type(exc).__name__}: {exc}). Only its region is lost; copy the slide again to get it back."
            ) from exc

    def paste(self, canvas: NDArray[np.uint8], index: int, tile: NDArray[np.uint8], tile_format: TileFormat) -> None:
        """Put a decoded tile where it belongs on the canvas."""
        x, y, width, height = self.tile_extent(index, tile_format)
        x0, x1 = max(x, self.x), min(x + width, self.x + self.width)
        y0, y1 = max(y, self.y), min(y + height, self.y + self.height)
        canvas[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] = tile[y0 - y : y1 - y, x0 - x : x1 - x]

    def image(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The canvas, resampled where the resolution asks for it."""
        if self.box is None:
            return canvas
        size = (self.shape[1], self.shape[0])
        return np.asarray(Image.fromarray(canvas).resize(size, FILTER, box=self.box))


def plan_window(levels: Sequence[Level], slide_mpp: float, rect: Rect, mpp: float) -> Window:
    """The window that gives `rect` at `mpp` µm/px: from the coarsest level, or reduction of one, still fine enough."""
    wanted = mpp / slide_mpp
    number = max(i for i, level in enumerate(levels) if i == 0 or level.downsample <= wanted * (1 + SAME_RESOLUTION))
    level = levels[number]
    reduction = _halvings(level, wanted, rect)
    downsample = level.downsample * 2**reduction
    left, top = rect.x_px / downsample, rect.y_px / downsample
    width, height = rect.width_px / downsample, rect.height_px / downsample
    tiles = (number, level.width_px, level.height_px, reduction)
    if abs(wanted / downsample - 1) <= SAME_RESOLUTION:
        shape = (max(1, round(height)), max(1, round(width)))
        return Window(*tiles, round(left), round(top), shape[1], shape[0], None, shape)
    shape = (max(1, round(rect.height_px / wanted)), max(1, round(rect.width_px / wanted)))
    # The filter looks past the box; without real pixels there, neighbouring regions would not meet seamlessly.
    margin = FILTER_SUPPORT * max(1.0, width / shape[1], height / shape[0])
    x0, y0 = math.floor(left - margin), math.floor(top - margin)
    x1, y1 = math.ceil(left + width + margin), math.ceil(top + height + margin)
    box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
    return Window(*tiles, x0, y0, x1 - x0, y1 - y0, box, shape)


def _halvings(level: Level, wanted: float, rect: Rect) -> int:
    """How often decoding halves the level's tiles for `wanted` level-0 px per px.

    Not at all where that would give the wanted px themselves, but not where `rect` begins: they would stand up to half
    a px beside their place, which a coarser level of the slide could not help.
    """
    reduction = 0
    while reduction < level.halvings and level.downsample * 2 ** (reduction + 1) <= wanted * (1 + SAME_RESOLUTION):
        reduction += 1
    downsample = level.downsample * 2**reduction
    as_it_is = abs(wanted / downsample - 1) <= SAME_RESOLUTION
    begins_there = rect.x_px % downsample == 0 and rect.y_px % downsample == 0
    return 0 if as_it_is and not begins_there else reduction


@dataclass(frozen=True, slots=True)
class RegionBytes:
    """A region as the slide stores it: compressed native tiles and all it takes to decode them, elsewhere if need be.

    `tiles[i]` are the bytes of native tile `indices[i]`; empty where the slide has none. `name`: the slide, for errors.
    """

    name: str
    window: Window
    tile_format: TileFormat
    indices: tuple[int, ...]
    tiles: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """One byte string, for an Arrow binary column."""
        header = dataclasses.asdict(self)
        tiles = header.pop("tiles")
        header["sizes"] = [len(tile) for tile in tiles]
        text = json.dumps(header, default=lambda raw: base64.b64encode(raw).decode()).encode()
        return b"".join([struct.pack("<I", len(text)), text, *tiles])

    @classmethod
    def from_bytes(cls, packed: bytes) -> "RegionBytes":
        """The inverse of `to_bytes`."""
        position = 4 + struct.unpack_from("<I", packed)[0]
        header: dict[str, Any] = json.loads(packed[4:position])
        window, tile_format = header["window"], header["tile_format"]
        for key in ("jpeg_tables", "jpeg_header"):
            tile_format[key] = None if tile_format[key] is None else base64.b64decode(tile_format[key])
        window["box"] = None if window["box"] is None else tuple(window["box"])
        window["shape"] = tuple(window["shape"])
        tiles = []
        for size in header["sizes"]:
            tiles.append(packed[position : position + size])
            position += size
        return cls(header["name"], Window(**window), TileFormat(**tile_format), tuple(header["indices"]), tuple(tiles))


def decode_region(region: RegionBytes) -> NDArray[np.uint8]:
    """The pixels of a fetched region, (h, w, 3) uint8 RGB, white outside the slide. Needs no open slide.

    Errors: CorruptTile.
    """
    window, canvas, memory = region.window, region.window.blank(), tile_memory(region.tile_format)
    for index, data in zip(region.indices, region.tiles, strict=True):
        tile = window.decode(index, data, region.tile_format, region.name, memory)
        window.paste(canvas, index, tile, region.tile_format)
    return window.image(canvas)
