"""Open a slide and read regions of it in µm."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import CorruptTile, NotASlide
from mitoray.slide.cache import TileCache
from mitoray.slide.geometry import Rect
from mitoray.slide.overview import overview
from mitoray.slide.pyramid import Level, Pyramid, read_pyramid
from mitoray.slide.resolution import resolve_mpp
from mitoray.slide.storage import SlideFile
from mitoray.slide.tiles import tile_memory
from mitoray.slide.window import Allocate, RegionBytes, Window, new_memory, plan_window

TILE_CACHE_BYTES: Final = 256 << 20
FETCH_BYTES: Final = 64 << 20
"""The most compressed bytes that one read holds at a time."""
MOST_MM2: Final = 40_000
"""Of the largest glass, 200 mm square."""
SHARED_UM: Final = 80.0
"""How far neighbouring regions with halos of 40 µm reach into each other."""
LARGE_SHARE: Final = 8
"""Of a read of more than this part of the tile cache, only tiles within SHARED_UM of its edges are kept for the next
one. Others are decoded into the same memory one by one: new memory for each would cost half as much again as decoding
JPEG, and they would push out those that neighbours want."""


def open_slide(
    uri: str,
    storage_options: Mapping[str, Any] | None = None,
    mpp: float | None = None,
    *,
    tile_cache_bytes: int = TILE_CACHE_BYTES,
    reduced_decode: bool = True,
) -> "Slide":
    """Open a slide; use it as a context manager.

    uri: a local path, file://, s3://, http(s)://, or what else fsspec reads. storage_options: for fsspec.
    mpp: µm per level-0 px, overrides the metadata. tile_cache_bytes: the most that decoded tiles may take.
    reduced_decode: let JPEG and JPEG2000 give tiles at a half, a quarter or an eighth of their side where that is fine
    enough and no level is that coarse: twice as fast or faster; else tiles are decoded whole, and averaged.
    Reads the table of contents, no pixels. Errors: every SlideError but CorruptTile and the manifest's.
    """
    file = SlideFile(uri, storage_options)
    pyramid = read_pyramid(file)
    resolved = resolve_mpp(file.name, mpp, pyramid.properties, pyramid.ome_xml)
    _refuse_larger_than_glass(file.name, pyramid.levels[0], resolved[0])
    if not reduced_decode:
        pyramid = replace(pyramid, levels=tuple(replace(level, halvings=0) for level in pyramid.levels))
    return Slide(uri, file, pyramid, resolved, TileCache(tile_cache_bytes))


class Slide:
    """An open slide. Threads may share it; processes open their own.

    `mpp`: µm per level-0 px, found in `mpp_source`. `levels`: finest first. `bounds_offset_px`: x, y of this slide's
    origin in OpenSlide's frame; add it to points meant for OpenSlide. QuPath shows the slide from this origin on.
    """

    def __init__(
        self, uri: str, file: SlideFile, pyramid: Pyramid, resolved_mpp: tuple[float, str], cache: TileCache
    ) -> None:
        self.uri = uri
        self.mpp, self.mpp_source = resolved_mpp
        self.levels: tuple[Level, ...] = pyramid.levels
        self.width_px, self.height_px = pyramid.levels[0].width_px, pyramid.levels[0].height_px
        self.size_bytes = file.size_bytes
        self.properties: Mapping[str, Any] = pyramid.properties
        self.bounds_offset_px = _offset(pyramid.properties, "x"), _offset(pyramid.properties, "y")
        self._file = file
        self._tiles = pyramid.tiles
        self._cache = cache

    def output_shape(self, rect: Rect, mpp: float) -> tuple[int, int]:
        """(height, width) in px of what `read_region` gives."""
        return plan_window(self.levels, self.mpp, rect, mpp).shape

    def read_region(self, rect: Rect, mpp: float) -> NDArray[np.uint8]:
        """`rect` at `mpp` µm/px: (h, w, 3) uint8 RGB, white outside the slide and where it has no tile.

        Pixels come from the coarsest level that is fine enough: as they are if its µm/px is within 3 %, else
        resampled with anti-aliasing. Errors: CorruptTile, TruncatedSlide, SlideChanged, SlideUnreachable,
        SlideForbidden.
        """
        window = plan_window(self.levels, self.mpp, rect, mpp)
        return self._paint(window, lambda indices: self._fetch(window.level, indices))

    def fetch_region(self, rect: Rect, mpp: float) -> RegionBytes:
        """The compressed tiles of `rect`, for `decode_region` here or elsewhere. Errors as `read_region`."""
        window = plan_window(self.levels, self.mpp, rect, mpp)
        tile_format = self._tiles[window.level].tile_format
        indices = window.tile_indices(tile_format)
        tiles = tuple(data for _, data in self._fetch(window.level, indices))
        return RegionBytes(self._file.name, window, tile_format, tuple(indices), tiles)

    def decode_region(self, region: RegionBytes, allocate: Allocate = new_memory) -> NDArray[np.uint8]:
        """What `read_region` gives, from bytes fetched before; shares its cache of tiles. Errors: CorruptTile.

        allocate: gives the memory that tiles are painted in, which is that of the image where nothing is resampled.
        """
        data = dict(zip(region.indices, region.tiles, strict=True))
        return self._paint(region.window, lambda indices: ((index, data[index]) for index in indices), allocate)

    def thumbnail(self, mpp: float = 16.0) -> NDArray[np.uint8]:
        """The whole slide at `mpp` µm/px, (h, w, 3) uint8 RGB, in bounded memory.

        A level with a corrupt tile gives way to the next finer one; on the finest, what is corrupt stays white.
        Errors: CorruptTile if no tile can be decoded, and as `read_region`.
        """
        return overview(self.levels, self._tiles, mpp / self.mpp, self._fetch, self._file.name)

    def close(self) -> None:
        """Forget the decoded tiles."""
        self._cache = TileCache(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("an open Slide stays in its process: send its uri and open it there")

    def _fetch(self, level: int, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Index and compressed bytes of each tile, in batches of bounded size."""
        tiles = self._tiles[level]
        batch: list[int] = []
        size = 0
        for index in indices:
            batch.append(index)
            size += int(tiles.byte_counts[index])
            if size >= FETCH_BYTES:
                yield from self._fetch_batch(level, batch)
                batch, size = [], 0
        yield from self._fetch_batch(level, batch)

    def _fetch_batch(self, level: int, indices: list[int]) -> Iterator[tuple[int, bytes]]:
        tiles = self._tiles[level]
        present = [index for index in indices if tiles.byte_counts[index] > 0]
        ranges = [(int(tiles.offsets[i]), int(tiles.offsets[i] + tiles.byte_counts[i])) for i in present]
        found = dict(zip(present, self._file.read_ranges(ranges), strict=True))
        return ((index, found.get(index, b"")) for index in indices)

    def _paint(
        self,
        window: Window,
        load: Callable[[list[int]], Iterable[tuple[int, bytes]]],
        allocate: Allocate = new_memory,
    ) -> NDArray[np.uint8]:
        """The window's image, from cached tiles and from those that `load` gives."""
        tile_format = self._tiles[window.level].tile_format
        cache, canvas, memory = self._cache, window.blank(allocate), tile_memory(tile_format)
        margin_px = SHARED_UM / (self.mpp * self.levels[window.level].downsample * 2**window.reduction)
        keys = {index: (window.level, window.reduction, index) for index in window.tile_indices(tile_format)}
        large = window.size_bytes * LARGE_SHARE > cache.max_bytes
        passing = {index for index in keys if large and window.is_inside(index, tile_format, margin_px)}
        ready, mine, awaited = cache.claim(key for index, key in keys.items() if index not in passing)
        ready |= cache.held(keys[index] for index in passing)
        pending = {key[-1]: key for key in mine}
        try:
            for key, tile in ready.items():
                window.paste(canvas, key[-1], tile, tile_format)
            for index, data in load([i for i, key in keys.items() if key not in ready and key not in awaited]):
                tile = self._decode(window, index, data, None if index in pending else memory)
                if index in pending:
                    cache.deliver(pending.pop(index), tile)
                window.paste(canvas, index, tile, tile_format)
        except BaseException as exc:
            cache.give_up(pending.values(), exc)
            raise
        for key, coming in awaited.items():
            window.paste(canvas, key[-1], coming.result(), tile_format)
        return window.image(canvas)

    def _decode(self, window: Window, index: int, data: bytes, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """A tile, in `memory` or in its own.

        CorruptTile only where the file holds those bytes, and is still the one that was opened.
        """
        tile_format = self._tiles[window.level].tile_format
        try:
            return window.decode(index, data, tile_format, self._file.name, memory)
        except CorruptTile:
            self._file.check_unchanged()
            ((_, again),) = self._fetch(window.level, [index])
            if again == data:
                raise
        return window.decode(index, again, tile_format, self._file.name, memory)


def _refuse_larger_than_glass(name: str, level: Level, mpp: float) -> None:
    area_mm2 = level.width_px * level.height_px * mpp**2 / 1e6
    if area_mm2 > MOST_MM2:
        raise NotASlide(
            f"{name}: {level.width_px} × {level.height_px} px at {mpp:g} µm/px are {area_mm2:,.0f} mm². No slide is "
            f"larger than {MOST_MM2:,} mm². Check its µm/px, or copy it again from its source."
        )


def _offset(properties: Mapping[str, Any], axis: str) -> int:
    return int(properties.get(f"tiffslide.bounds-{axis}") or 0)
