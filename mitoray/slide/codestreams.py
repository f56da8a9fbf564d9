"""What compressed tiles say of their own size, read before a decoder allocates by it."""

import io
from collections.abc import Iterator
from typing import Final

from PIL import Image

MOST_SCANS: Final = 64
"""Of a progressive JPEG: each makes the decoder go through all of its pixels again."""
MOST_BLOCKS: Final = 1 << 18
"""Code blocks of a JPEG2000 tile; the decoder keeps some hundred bytes for each."""
MOST_PARTS: Final = 1024
"""Tiles within a JPEG2000 tile."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE: Final = frozenset((0x00, 0x01, _SOI, _EOI, *range(0xD0, 0xD8)))
"""JPEG markers without a length."""
_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's frame headers."""
_SIZ, _COD, _COC, _SOT, _SOD = 0x51, 0x52, 0x53, 0x90, 0x93


def check_jpeg(data: bytes, most_px: int) -> None:
    """ValueError where a JPEG stream, or the beginning of one, is larger than `most_px`, or has too many scans."""
    if data.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"a JPEG of more than {MOST_SCANS} scans")
    position = data.find(b"\xff")
    while 0 <= position < len(data) - 9:
        marker = data[position + 1]
        if marker in _SIZES:
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (5, 7))
            if width * height > most_px or data[position + 9] > 4:
                raise ValueError(f"its JPEG says that it has {width} × {height} px of {data[position + 9]} samples")
            return  # decoders refuse a second frame
        if marker == _SOS:
            return
        if marker == 0xFF:
            position += 1
        elif marker in _ALONE:
            position = data.find(b"\xff", position + 2)
        else:
            # Decoders look for the next marker behind the segment, whatever lies between.
            position = data.find(b"\xff", position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4])))


def check_jpeg2000(data: bytes, most_px: int) -> None:
    """ValueError where a JPEG2000 file or codestream is larger than `most_px`, or cut into too many parts."""
    width = height = components = 0
    for marker, segment in _segments(_codestream(data)):
        if marker == _SIZ:
            right, bottom, left, top, part_width, part_height, part_left, part_top = (
                int.from_bytes(segment[at : at + 4]) for at in range(4, 36, 4)
            )
            width, height, components = right - left, bottom - top, int.from_bytes(segment[36:38])
            parts = -((part_left - right) // max(1, part_width)) * -((part_top - bottom) // max(1, part_height))
            if min(width, height) < 1 or width * height > most_px or right * bottom > 4 * most_px or components > 4:
                raise ValueError(f"its JPEG2000 says that it has {width} × {height} px of {components} samples")
            if parts > MOST_PARTS:
                raise ValueError(f"a JPEG2000 image in {parts} parts")
        elif marker in (_COD, _COC):
            _check_blocks(segment, width * height * components, wide=components > 256, of_one=marker == _COC)


def check_picture(data: bytes, kind: str, most_px: int) -> None:
    """ValueError where an image file that Pillow knows as `kind` is larger than `most_px`. Decodes nothing."""
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        if image.width * image.height > most_px:
            raise ValueError(f"its {kind} says that it has {image.width} × {image.height} px")


def _check_blocks(segment: bytes, samples: int, *, wide: bool, of_one: bool) -> None:
    """COD: Scod, progression, layers (2), transform, then levels, block width and height, style, kernel, precincts."""
    at = 2 + (2 if wide else 1) + 1 if of_one else 2 + 1 + 4
    if len(segment) < at + 5:
        raise ValueError("a JPEG2000 header cut short")
    has_precincts = segment[at - 1 if of_one else 2] & 1
    levels, block_width, block_height = segment[at], segment[at + 1] % 16 + 2, segment[at + 2] % 16 + 2
    sizes = segment[at + 5 : at + 6 + levels] if has_precincts else b"\xff"
    smallest = min((min(size % 16 + size // 16, block_width + block_height) for size in sizes), default=0)
    if levels > 32 or samples >> smallest > MOST_BLOCKS:
        raise ValueError(f"a JPEG2000 image in {samples >> smallest} blocks")


def _codestream(data: bytes) -> bytes:
    """The codestream in a JP2 file's boxes, or the codestream that `data` is."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return data
    position = 0
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        head = 16 if size == 1 else 8
        size = int.from_bytes(data[position + 8 : position + 16]) if size == 1 else size
        if kind == b"jp2c":
            return data[position + head :]
        if size < head:
            break
        position += size
    raise ValueError("no JPEG2000 codestream")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and segment, its length included, of a codestream's main header and of the headers of its parts."""
    position, after, parts = 2, 0, 0
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError("a JPEG2000 header that makes no sense")
        marker = data[position + 1]
        if marker == _SOD:
            if after <= position:
                return
            position = after
            continue
        if marker == _EOI:
            return
        size = int.from_bytes(data[position + 2 : position + 4])
        if marker == _SOT:
            parts += 1
            length = int.from_bytes(data[position + 6 : position + 10])
            after = position + length if length else 0
            if parts > 4 * MOST_PARTS:
                raise ValueError(f"a JPEG2000 image in more than {parts} parts")
        yield marker, data[position + 2 : position + 2 + size]
        position += 2 + max(2, size)
