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
from tifffile import TiffFile, TiffPageSeries
from tiffslide import TiffSlide

from mitoray.errors import NotASlide, SlideError, TruncatedSlide
from mitoray.slide.directories import check_directories
from mitoray.slide.range_file import RangeFile
from mitoray.slide.reduction import halvings
from mitoray.slide.storage import SlideFile
from mitoray.slide.tiles import TileFormat

log = logging.getLogger(__name__)

TILE_BYTES_MAX: Final = 1 << 28
"""256 MiB: the most that one decoded tile or strip may take."""
MOST_OFFSET_PX: Final = 1 << 30
SPARE_BYTES: Final = 1 << 20
"""What a compressed tile may take beyond twice its decoded size, for tables and profiles in it."""
COPY_AGAIN: Final = "Copy it again from its source."
FIRST_DIRECTORY: Final = {b"II*\0": "<4xI", b"MM\0*": ">4xI", b"II+\0": "<8xQ", b"MM\0+": ">8xQ"}
"""Where a header of TIFF, big-endian TIFF, BigTIFF, big-endian BigTIFF points to the first image."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide. `downsample`: level-0 px per px of this level.

    `halvings`: how often decoding can halve its tiles' sides, at less than the cost of decoding them whole.
    """

    width_px: int
    height_px: int
    downsample: float
    tile_width_px: int
    tile_height_px: int
    halvings: int = 0


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
        return _read(reader, file)
    except (NotASlide, TruncatedSlide):
        # A slide that is still being copied looks damaged.
        file.check_unchanged()
        raise


def _read(reader: RangeFile, file: SlideFile) -> Pyramid:
    _refuse_other_files(reader, file.name)
    check_directories(reader, file.name)
    reader.seek(0)
    try:
        with TiffSlide(reader) as slide:
            _refuse_broken_chain(slide.ts_tifffile, reader, file.name)
            properties = _properties(slide, file.name)
            series = slide.ts_tifffile.series[int(properties.get("tiffslide.series-index", 0))]
            return Pyramid(*_read_levels(series, file), properties, slide.ts_tifffile.ome_metadata)
    except SlideError:
        raise
    except Exception as exc:
        raise NotASlide(f"{file.name}: its table of contents makes no sense ({exc}). {COPY_AGAIN}") from exc


def _read_levels(series: TiffPageSeries, file: SlideFile) -> tuple[tuple[Level, ...], tuple[TileIndex, ...]]:
    levels: list[Level] = []
    indices: list[TileIndex] = []
    for number, level in enumerate(series.levels):
        # An Aperio level may be a stack of focal planes; the first is read.
        if level.kind != "svs" and len(level.pages) != 1:
            raise NotASlide(f"{file.name} is a stack of {len(level.pages)} images. Export the plane to score.")
        page: Any = level.pages[0]
        try:
            index = _tile_index(page, file)
            width, height = int(page.keyframe.imagewidth), int(page.keyframe.imagelength)
            if min(width, height) < 1:
                raise ValueError("an image without pixels")
            downsample = _downsample(levels[0], width, height) if levels else 1.0
        except TruncatedSlide:
            raise
        except Exception as exc:
            if number == 0:
                raise
            log.warning("%s: level %d is left out: %s", file.name, number, exc)
            continue
        if not levels or downsample > levels[-1].downsample:
            tile = index.tile_format
            most = min(halvings(tile), min(width, height).bit_length() - 1)
            levels.append(Level(width, height, downsample, tile.width_px, tile.height_px, most))
            indices.append(index)
    return tuple(levels), tuple(indices)


def _tile_index(page: Any, file: SlideFile) -> TileIndex:
    tile_format = TileFormat.of_page(page, file.name)
    tile_bytes = tile_format.width_px * tile_format.height_px * max(tile_format.samples, 3)
    if not 0 < tile_bytes <= TILE_BYTES_MAX:
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
    if byte_counts.max(initial=0) > 2 * tile_bytes + SPARE_BYTES:
        raise NotASlide(
            f"{file.name} lists a tile of {byte_counts.max()} bytes, of which decoding makes {tile_bytes}. {COPY_AGAIN}"
        )
    end = int((offsets + byte_counts)[byte_counts > 0].max(initial=0))
    if end > file.size_bytes or min(offsets.min(initial=0), byte_counts.min(initial=0)) < 0:
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


def _properties(slide: TiffSlide, name: str) -> Mapping[str, Any]:
    """tiffslide's properties. NotASlide where they tell of several scanned areas."""
    try:
        properties = dict(slide.properties)
    except SlideError:
        raise
    except Exception as exc:
        # Pixels can be read without metadata; the resolution may come from the manifest.
        log.warning("%s: the metadata cannot be read: %s", name, exc)
        return {}
    composition = properties.get("tiffslide.series-composition")
    areas = 1 if composition is None else len(composition["located_series"])
    if areas != 1:
        raise NotASlide(f"{name} holds {areas} scanned areas. Export each to its own file.")
    corner = [int(properties.get(f"tiffslide.bounds-{axis}") or 0) for axis in "xy"]
    if max(map(abs, corner)) > MOST_OFFSET_PX:
        raise NotASlide(f"{name}: its scanned area lies {corner} px from the slide's corner. {COPY_AGAIN}")
    return properties


def _refuse_other_files(reader: RangeFile, name: str) -> None:
    """NotASlide for what has no TIFF header, TruncatedSlide where the header points past the end of the file."""
    head = reader.read_at(0, 16)
    if head[:4] not in FIRST_DIRECTORY:
        raise NotASlide(
            f"{name} is no TIFF-based slide, whatever its name says. "
            "Aperio SVS, Leica SCN, Hamamatsu NDPI, Philips and generic tiled TIFF are read."
        )
    where = struct.Struct(FIRST_DIRECTORY[head[:4]])
    if len(head) < where.size or where.unpack_from(head)[0] + 2 > reader.seek(0, os.SEEK_END):
        raise TruncatedSlide(f"{name} ends before its table of contents. {COPY_AGAIN}")


def _refuse_broken_chain(tiff: TiffFile, reader: RangeFile, name: str) -> None:
    """tifffile takes a pointer past the end of the file for the end of the list of images; here it is a loss."""
    position = tiff.pages.next_page_offset
    size = reader.seek(0, os.SEEK_END)
    pointer = b"" if position is None else reader.read_at(position, tiff.tiff.offsetsize)
    if len(pointer) < tiff.tiff.offsetsize or struct.unpack(tiff.tiff.offsetformat, pointer)[0] >= size:
        raise TruncatedSlide(f"{name} ends before its list of images does. {COPY_AGAIN}")
