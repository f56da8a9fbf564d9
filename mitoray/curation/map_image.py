"""The map of cells as a pyramidal TIFF, written tile row by tile row, in the memory of a few rows."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from mitoray.curation.cell_grid import Grid
from mitoray.errors import BadOption
from mitoray.labels.source import replacing

TILE_PX: Final = 256
BACKGROUND: Final = 255
"""Grey of places without a cell, and beyond the map: white, as glass."""

_STEP: Final = 4
_SMALLEST_PX: Final = 1024
_BIG: Final = 2**31
_QUALITY: Final = 90
_BUFFER: Final = 2**22


class CellStore:
    """Images of cells, uint8 (s, s, 3) each, in a file without a name, and not in memory."""

    def __init__(self, side_px: int, folder: Path) -> None:
        """side_px: s. folder: where the file lies while the store is open; s² · 3 bytes per cell."""
        self.side_px = side_px
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the store
        self._cells = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """The next cells, uint8 (n, s, s, 3)."""
        if images.shape[1:] != (self.side_px, self.side_px, 3):
            raise BadOption(f"Cells are {images.shape[1:]} and not {self.side_px} px wide.")
        self._file.write(np.ascontiguousarray(images, np.uint8).tobytes())
        self._cells += len(images)

    def __len__(self) -> int:
        return self._cells

    def __getitem__(self, cell: int) -> NDArray[np.uint8]:
        """The image of a cell, by the order in which it was added."""
        size = self.side_px**2 * 3
        self._file.flush()
        data = os.pread(self._file.fileno(), size, cell * size)
        return np.frombuffer(data, np.uint8).reshape(self.side_px, self.side_px, 3)

    def __enter__(self) -> "CellStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_map(
    path: Path, grid: Grid, cells: CellStore, mpp: float, done: Callable[[int], object] = lambda _: None
) -> tuple[int, int]:
    """Write the map as a tiled, pyramidal JPEG TIFF that states `mpp` (µm/px) as Aperio does; its width and height.

    A cell of place (column, row) covers px from (column, row) · side. Levels are 4, 16, ... times smaller, each the
    mean of the level below; what fills no whole px there is left out. The file appears whole or not at all. done:
    called with the number of tile rows of level 0 that are written.
    """
    side = cells.side_px
    width, height = grid.columns * side, grid.rows * side
    sizes = [(height, width)]
    while max(sizes[-1]) > _SMALLEST_PX and min(sizes[-1]) >= _STEP * 16:
        sizes.append((sizes[-1][0] // _STEP, sizes[-1][1] // _STEP))
    options: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "metadata": None,
        "compression": "jpeg",
        "compressionargs": {"level": _QUALITY},
        "subsampling": (2, 2),
        "dtype": np.uint8,
        "buffersize": _BUFFER,
        "maxworkers": 1,
    }
    power = 40 if mpp < 0.35 else 20
    about = f"Aperio Cell map\r\n{width}x{height}|AppMag = {power}|MPP = {mpp:g}"
    per_cm = 1e4 / mpp
    with replacing(path) as part, ExitStack() as files:
        levels = [files.enter_context(tempfile.TemporaryFile(dir=path.parent)) for _ in sizes[1:]]
        tiff = files.enter_context(tifffile.TiffWriter(part, bigtiff=height * width * 3 > _BIG))
        for number, shape in enumerate(sizes):
            below = levels[number] if number < len(levels) else None
            strips = _map_strips(grid, cells) if number == 0 else _file_strips(levels[number - 1], shape)
            told = done if number == 0 else lambda _: None
            first: dict[str, Any] = (
                {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"} if not number else {}
            )
            tiles = _tiles(strips, below, told)
            tiff.write(tiles, shape=(*shape, 3), description=about, **first, **options)
            if number == 0:
                # Readers of Aperio files take the second page for a thumbnail, whatever it holds.
                thumbnail = _thumbnail(levels[0] if levels else None, sizes[-1] if not levels else sizes[1])
                tiff.write(
                    thumbnail,
                    description=about,
                    photometric="rgb",
                    compression="jpeg",
                    rowsperstrip=16,
                    metadata=None,
                )
    return width, height


def tile_rows(grid: Grid, side_px: int) -> int:
    """How many rows of tiles level 0 has."""
    return -(-grid.rows * side_px // TILE_PX)


def _map_strips(grid: Grid, cells: CellStore) -> Iterator[NDArray[np.uint8]]:
    """Level 0 in strips of `TILE_PX` rows, the last one of what is left, uint8 (h, width, 3)."""
    side, height = cells.side_px, grid.rows * cells.side_px
    in_row: dict[int, list[tuple[int, int]]] = {}
    for cell, (column, row) in enumerate(grid.places.tolist()):
        in_row.setdefault(row, []).append((column, cell))
    for top in range(0, height, TILE_PX):
        bottom = min(top + TILE_PX, height)
        strip = np.full((bottom - top, grid.columns * side, 3), BACKGROUND, np.uint8)
        for row in range(top // side, -(-bottom // side)):
            start, end = max(top, row * side), min(bottom, (row + 1) * side)
            for column, cell in in_row.get(row, ()):
                seen = cells[cell][start - row * side : end - row * side]
                strip[start - top : end - top, column * side : (column + 1) * side] = seen
        yield strip


def _file_strips(file: Any, shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """A level that was kept in a file, in strips."""
    height, width = shape
    for top in range(0, height, TILE_PX):
        rows = min(TILE_PX, height - top)
        yield _kept(file, top, rows, width)


def _kept(file: Any, top: int, rows: int, width: int) -> NDArray[np.uint8]:
    data = os.pread(file.fileno(), rows * width * 3, top * width * 3)
    return np.frombuffer(data, np.uint8).reshape(rows, width, 3)


def _tiles(
    strips: Iterator[NDArray[np.uint8]], below: Any, done: Callable[[int], object]
) -> Iterator[NDArray[np.uint8]]:
    """The strips' tiles, row by row, padded at the edges; each strip, made smaller, goes into the file `below` too."""
    for strip in strips:
        height, width = strip.shape[:2]
        if below is not None:
            below.write(_shrunk(strip).tobytes())
            below.flush()
        for left in range(0, width, TILE_PX):
            tile = strip[:, left : left + TILE_PX]
            if tile.shape[:2] != (TILE_PX, TILE_PX):
                missing = ((0, TILE_PX - height), (0, TILE_PX - tile.shape[1]), (0, 0))
                tile = np.pad(tile, missing, constant_values=BACKGROUND)
            yield np.ascontiguousarray(tile)
        done(1)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of blocks of 4 × 4 px; the last rows and columns that fill no block are left out."""
    height, width = image.shape[0] // _STEP, image.shape[1] // _STEP
    blocks = image[: height * _STEP, : width * _STEP].reshape(height, _STEP, width, _STEP, 3)
    total = blocks.sum(axis=1, dtype=np.uint16).sum(axis=2, dtype=np.uint16)
    return np.asarray((total + _STEP**2 // 2) // _STEP**2, dtype=np.uint8)


def _thumbnail(level: Any, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Every n-th px of level 1, at most `_SMALLEST_PX` wide or high; white where the map is as small as that itself."""
    height, width = shape
    if level is None:
        return np.full((height, width, 3), BACKGROUND, np.uint8)
    step = -(-max(shape) // _SMALLEST_PX)
    rows = [_kept(level, top, 1, width)[0, ::step] for top in range(0, height, step)]
    return np.stack(rows)
