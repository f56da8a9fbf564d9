"""The table of contents of a slide file: its levels, where their tiles lie, what the metadata says."""

import logging
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile
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
    reader = RangeFile(file)
    try:
        tiff_slide = TiffSlide(reader)
    except SlideError:
        raise
    except Exception as exc:
        if _first_directory_is_missing(reader):
            raise TruncatedSlide(f"{file.name} ends before its table of contents. {COPY_AGAIN}") from exc
        raise NotASlide(
            f"{file.name} is no TIFF-based slide, whatever its name says ({exc}). "
            "Aperio SVS, Leica SCN, Hamamatsu NDPI, Philips and generic tiled TIFF are read."
        ) from exc
    with tiff_slide:
        tiff = tiff_slide.ts_tifffile
        if _first_directory_is_missing(reader):
            raise TruncatedSlide(f"{file.name} ends before its table of contents. {COPY_AGAIN}")
        _refuse_broken_chain(tiff, reader, file.name)
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


def _first_directory_is_missing(reader: RangeFile) -> bool:
    """Whether this is a TIFF header that ends early or points past the end of the file."""
    head = reader.read_at(0, 16)
    size = reader.seek(0, os.SEEK_END)
    formats = {b"II*\0": "<4xI", b"MM\0*": ">4xI", b"II+\0": "<8xQ", b"MM\0+": ">8xQ"}
    if head[:4] not in formats:
        return False
    try:
        (offset,) = struct.unpack_from(formats[head[:4]], head)
    except struct.error:
        return True
    return bool(offset + 2 > size)


def _refuse_broken_chain(tiff: TiffFile, reader: RangeFile, name: str) -> None:
    """tifffile takes a pointer past the end of the file for the end of the list of images; here it is a loss."""
    position = tiff.pages.next_page_offset
    size = reader.seek(0, os.SEEK_END)
    pointer = b"" if position is None else reader.read_at(position, tiff.tiff.offsetsize)
    if len(pointer) < tiff.tiff.offsetsize or struct.unpack(tiff.tiff.offsetformat, pointer)[0] >= size:
        raise TruncatedSlide(f"{name} ends before its list of images does. {COPY_AGAIN}")
