"""Native tiles decoded at a half, a quarter or an eighth of their side, where their codec offers it."""

import io
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, Jpeg2KImagePlugin

from mitoray.slide.codestreams import check_jpeg, check_jpeg2000
from mitoray.slide.tiles import JPEG, JPEG2000, PADDED, TileFormat, decode_tile, jpeg2000_rgb, on_level, tile_memory

MOST_HALVINGS: Final = 3
"""JPEG decodes blocks of 8 × 8 px, of which an eighth of a side is one px."""
_SOI: Final = b"\xff\xd8"
_EOI: Final = b"\xff\xd9"
_SOS: Final = 0xDA
_ADOBE_RGB: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def halvings(tile_format: TileFormat) -> int:
    """How often decoding can halve the side of such tiles, 0 to 3."""
    if tile_format.compression != JPEG and tile_format.compression not in JPEG2000:
        return 0
    if tile_format.samples not in (1, 3):
        return 0
    sides = tile_format.width_px, tile_format.height_px
    return next(n for n in range(MOST_HALVINGS, -1, -1) if all(side % 2**n == 0 for side in sides))


def decode_reduced(
    data: bytes,
    tile_format: TileFormat,
    reduction: int,
    width_px: int,
    height_px: int,
    memory: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """One native tile, 2 ** `reduction` times smaller, as (height_px, width_px, 3) uint8 RGB.

    `width_px, height_px`: the part of the reduced tile that lies on the level. JPEG: from the lowest 4 × 4, 2 × 2 or
    1 × 1 of each block's 8 × 8 frequencies (libjpeg's scaled transform). JPEG2000: the wavelet's own lower resolution,
    whose px lie half a px of the full tile further left and up. A tile that gives no such thing is decoded whole and
    averaged. memory and errors: as of `decode_tile`.
    """
    try:
        stored = _reduced(data, tile_format, reduction, memory)
    except (OSError, SyntaxError, ValueError):
        # Too few resolutions, or bytes that are no image: decoding it whole gives pixels, or the error.
        full = decode_tile(data, tile_format, width_px << reduction, height_px << reduction)
        return np.asarray(Image.fromarray(full).reduce(2**reduction))
    return on_level(stored, tile_format, width_px, height_px)


def _reduced(
    data: bytes, tile_format: TileFormat, reduction: int, memory: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    size = tile_format.width_px >> reduction, tile_format.height_px >> reduction
    if tile_format.compression == JPEG:
        jpeg = _whole_jpeg(data, tile_format)
        check_jpeg(jpeg, PADDED * tile_format.width_px * tile_format.height_px)
        height_px, width_px, *_ = simplejpeg.decode_jpeg_header(jpeg)
        _check_size((width_px, height_px), tile_format)
        place = tile_memory(tile_format) if memory is None else memory
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            jpeg,
            "GRAY" if tile_format.samples == 1 else "RGB",
            fastdct=False,
            fastupsample=False,
            min_width=size[0],
            min_height=size[1],
            buffer=place[: size[0] * size[1] * tile_format.samples],
        )
        return pixels
    check_jpeg2000(data, PADDED * tile_format.width_px * tile_format.height_px)
    jpeg2000 = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data))
    _check_size(jpeg2000.size, tile_format)
    jpeg2000.reduce = reduction
    jpeg2000.load()
    if jpeg2000.size != size:
        raise ValueError(f"decoded to {jpeg2000.size}, wanted {size}")
    return jpeg2000_rgb(data, np.asarray(jpeg2000), tile_format)


def _check_size(size: tuple[int, int], tile_format: TileFormat) -> None:
    if size != (tile_format.width_px, tile_format.height_px):
        raise ValueError(f"holds {size}, wanted {(tile_format.width_px, tile_format.height_px)}")


def _whole_jpeg(data: bytes, tile_format: TileFormat) -> bytes:
    """A tile as a JPEG file of its own: with the tables that tiles share, and its colours said in its header."""
    if tile_format.jpeg_header is not None or data[:2] != _SOI:
        raise ValueError("is no JPEG stream of its own")
    tables = (tile_format.jpeg_tables or b"").removeprefix(_SOI).removesuffix(_EOI)
    if not tile_format.holds_rgb:
        return _SOI + tables + data[2:]
    # That the three components are R, G, B can only be said by an Adobe segment, of which the last one counts.
    scan = _start_of_scan(data)
    return _SOI + tables + data[2:scan] + _ADOBE_RGB + data[scan:]


def _start_of_scan(data: bytes) -> int:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == _SOS:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ValueError("has no scan")
