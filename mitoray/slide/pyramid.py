"""The table of contents of a slide file: its levels, where their tiles lie, what the metadata says."""

import contextlib
import logging
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffFileError
from tiffslide import TiffSlide

from mitoray.errors import NotASlide, SlideError, TruncatedSlide
from mitoray.slide.storage import RangeFile, SlideFile
from mitoray.slide.tiles import TileFormat

log = logging.getLogger(__name__)

TILE_BYTES_MAX: Final = 1 << 28
"""256 MiB: the most that one decoded tile or strip may take."""
COPY_AGAIN: Final = "Copy it again from its source."


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide. `downsample`: level-0 px per px of this level."""

    width_px: int
    height_px: int
    downsample: float
    tile_width_px: int
    tile_height_px: int


@dataclass(frozen=True, slots=True)
class TileIndex:
    """Where the tiles of a level lie in the file, row by row: (n,) int64 each; 0 bytes means an absent tile."""

    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    tile_format: TileFormat


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What stays of a slide file's table of contents once it is read. `levels` and `tiles` go finest first."""

    levels: tuple[Level, ...]
    tiles: tuple[TileIndex, ...]
    properties: Mapping[str, Any]
    ome_xml: str | None


def read_pyramid(file: SlideFile) -> Pyramid:
    """Read the table of contents. Errors: NotASlide, TruncatedSlide, and those of `SlideFile`."""
    try:
        tiff_slide = TiffSlide(RangeFile(file))
    except SlideError:
        raise
    except Exception as exc:
        if _first_directory_is_missing(file):
            raise TruncatedSlide(f"{file.name} ends before its table of contents. {COPY_AGAIN}") from exc
        raise NotASlide(
            f"{file.name} is no TIFF-based slide, whatever its name says ({exc}). "
            "Aperio SVS, Leica SCN, Hamamatsu NDPI, Philips and generic tiled TIFF are read."
        ) from exc
    with tiff_slide:
        tiff = tiff_slide.ts_tifffile
        _refuse_broken_chain(tiff, file)
        properties = _properties(tiff_slide, file.name)
        if "tiffslide.series-composition" in properties and len(_areas(properties)) != 1:
            raise NotASlide(f"{file.name} holds {len(_areas(properties))} scanned areas. Export each to its own file.")
        try:
            series = tiff.series[int(properties.get("tiffslide.series-index", 0))]
        except SlideError:
            raise
        except Exception as exc:
            raise TruncatedSlide(f"{file.name}: the list of images cannot be read ({exc}). {COPY_AGAIN}") from exc
        return Pyramid(*_read_levels(series, file), properties, tiff.ome_metadata)


def _read_levels(series: Any, file: SlideFile) -> tuple[tuple[Level, ...], tuple[TileIndex, ...]]:
    levels: list[Level] = []
    indices: list[TileIndex] = []
    for number, level in enumerate(series.levels):
        page = level.pages[0]
        if level.kind != "svs" and len(level.pages) != 1:
            raise NotASlide(f"{file.name} is a stack of {len(level.pages)} images. Export the plane to score.")
        try:
            index = _tile_index(page, file)
        except NotASlide as exc:
            if number == 0:
                raise
            log.warning("level %d is left out: %s", number, exc)
            continue
        key = page.keyframe
        width, height = int(key.imagewidth), int(key.imagelength)
        downsample = _downsample(levels[0], width, height) if levels else 1.0
        if levels and downsample <= levels[-1].downsample:
            continue
        levels.append(Level(width, height, downsample, index.tile_format.width_px, index.tile_format.height_px))
        indices.append(index)
    return tuple(levels), tuple(indices)


def _tile_index(page: Any, file: SlideFile) -> TileIndex:
    tile_format = TileFormat.of_page(page, file.name)
    tile_bytes = tile_format.width_px * tile_format.height_px * max(tile_format.samples, 3)
    if tile_bytes > TILE_BYTES_MAX:
        raise NotASlide(
            f"{file.name}: an image of {page.keyframe.imagewidth} × {page.keyframe.imagelength} px is stored "
            f"in pieces of {tile_bytes >> 20} MiB. Convert it to tiles, e.g. with `vips tiffsave --tile --pyramid`."
        )
    offsets = np.asarray(page.dataoffsets, np.int64)
    byte_counts = np.asarray(page.databytecounts, np.int64)
    columns = math.ceil(page.keyframe.imagewidth / tile_format.width_px)
    count = columns * math.ceil(page.keyframe.imagelength / tile_format.height_px)
    if len(offsets) < count or len(byte_counts) < count:
        raise TruncatedSlide(f"{file.name} lists {min(len(offsets), len(byte_counts))} of {count} tiles. {COPY_AGAIN}")
    end = int((offsets + byte_counts)[byte_counts > 0].max(initial=0))
    if end > file.size_bytes:
        raise TruncatedSlide(
            f"{file.name} has {file.size_bytes} bytes, but its tiles reach to byte {end}. {COPY_AGAIN}"
        )
    return TileIndex(offsets, byte_counts, tile_format)


def _downsample(base: Level, width: int, height: int) -> float:
    """Level-0 px per px, after which writers round the edge up or down."""
    ratio = (base.width_px / width + base.height_px / height) / 2
    whole = round(ratio)
    rounded_off = abs(base.width_px / whole - width) <= 1 and abs(base.height_px / whole - height) <= 1
    return float(whole) if rounded_off else ratio


def _properties(tiff_slide: TiffSlide, name: str) -> Mapping[str, Any]:
    try:
        return dict(tiff_slide.properties)
    except SlideError:
        raise
    except Exception as exc:
        # Pixels can be read without metadata; the resolution may come from the manifest.
        log.warning("%s: the metadata cannot be read: %s", name, exc)
        return {}


def _areas(properties: Mapping[str, Any]) -> Mapping[int, Any]:
    return properties["tiffslide.series-composition"].located_series  # type: ignore[no-any-return]


def _first_directory_is_missing(file: SlideFile) -> bool:
    """Whether a TIFF header points past the end of the file."""
    head = RangeFile(file).read(16)
    with contextlib.suppress(KeyError, struct.error):
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        version = struct.unpack(order + "H", head[2:4])[0]
        if version not in (42, 43):
            return False
        offset = struct.unpack(order + "I", head[4:8]) if version == 42 else struct.unpack(order + "Q", head[8:16])
        return bool(offset[0] + 2 > file.size_bytes)
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _refuse_broken_chain(tiff: TiffFile, file: SlideFile) -> None:
    """tifffile takes a pointer past the end of the file for the end of the list of images; here it is a loss."""
    try:
        position = tiff.pages.next_page_offset
        following = b"" if position is None else RangeFile(file).read_at(position, tiff.tiff.offsetsize)
        first = _first_directory_is_missing(file)
    except TiffFileError as exc:
        raise TruncatedSlide(f"{file.name}: the list of images cannot be read ({exc}). {COPY_AGAIN}") from exc
    if first or (position is not None and any(following)) or len(following) < tiff.tiff.offsetsize:
        raise TruncatedSlide(f"{file.name} ends before its list of images does. {COPY_AGAIN}")
