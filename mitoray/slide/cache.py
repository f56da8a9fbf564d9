"""Decoded tiles that threads share."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

Tile = NDArray[np.uint8]
TileKey = tuple[int, int, int]
"""Level, reduction and index of a native tile."""


class TileCache:
    """Decoded tiles, the least recently used dropped first, together at most `max_bytes`.

    A thread claims the tiles it needs, and then delivers or gives up every tile that fell to it. What another
    thread is decoding at that moment, it waits for: no tile is decoded twice at the same time.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._tiles: LRUCache[TileKey, Tile] = LRUCache(max_bytes, getsizeof=lambda tile: tile.nbytes)
        self._coming: dict[TileKey, Future[Tile]] = {}
        self._lock = threading.Lock()

    def claim(self, keys: Iterable[TileKey]) -> tuple[dict[TileKey, Tile], list[TileKey], dict[TileKey, Future[Tile]]]:
        """The tiles at hand, the keys that are now the caller's to deliver, and what other threads will deliver."""
        ready: dict[TileKey, Tile] = {}
        mine: list[TileKey] = []
        awaited: dict[TileKey, Future[Tile]] = {}
        with self._lock:
            for key in keys:
                if (tile := self._tiles.get(key)) is not None:
                    ready[key] = tile
                elif key in self._coming:
                    awaited[key] = self._coming[key]
                else:
                    self._coming[key] = Future()
                    mine.append(key)
        return ready, mine, awaited

    def held(self, keys: Iterable[TileKey]) -> dict[TileKey, Tile]:
        """Those of the tiles that are at hand; none is claimed."""
        with self._lock:
            return {key: tile for key in keys if (tile := self._tiles.get(key)) is not None}

    def deliver(self, key: TileKey, tile: Tile) -> None:
        """Hand over a claimed tile. A tile larger than the whole cache goes to those who wait, and is not kept."""
        with self._lock:
            if tile.nbytes <= self._tiles.maxsize:
                self._tiles[key] = tile
            waiting = self._coming.pop(key)
        waiting.set_result(tile)

    def give_up(self, keys: Iterable[TileKey], reason: BaseException) -> None:
        """Tell those who wait that these claimed and undelivered tiles will not come."""
        with self._lock:
            waiting = [self._coming.pop(key) for key in keys]
        for future in waiting:
            future.set_exception(reason)
