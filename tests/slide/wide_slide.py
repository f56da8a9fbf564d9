"""A slide as large as a scanner's, 100,000 px wide, of which only the tiles of one region take room on disk."""

import io
import math
import struct

import numpy as np
from PIL import Image
from slide_writer import aperio, stained

TILE_PX = 256
TILE_BYTES = 20_480
"""What one JPEG tile takes; a row of 391 tiles is 8 MB long."""
SHORT, LONG, ASCII, LONG8 = 3, 4, 2, 16


def write_wide(path, *, width_px=100_000, height_px=80_000, filled=(0, 0, 0, 0)):
    """A BigTIFF in Aperio's order, without its associated images' pixels.

    filled: x, y, width, height in px of the part of level 0 that has tiles to decode. Returns that part's pixels,
    from the corner of its first tile on.
    """
    x, y, width, height = filled
    columns, rows = (range(low // TILE_PX, -(-high // TILE_PX)) for low, high in ((x, x + width), (y, y + height)))
    pixels = np.zeros((len(rows) * TILE_PX, len(columns) * TILE_PX, 3), np.uint8)
    image = stained(*pixels.shape[:2]) if pixels.size else pixels
    stride = math.ceil(width_px / TILE_PX)
    with path.open("wb") as file:
        file.write(b"II+\0" + struct.pack("<HHQ", 8, 0, 0))
        pointer = 8
        for downsample, tiled in ((1, True), (100, False), (4, True), (16, True), (250, False), (80, False)):
            size = (width_px // downsample, height_px // downsample)
            start = file.seek(0, io.SEEK_END)
            offsets, counts = _layout(size, start, tiled)
            if downsample == 1:
                for row in rows:
                    for column in columns:
                        top, left = (row - rows.start) * TILE_PX, (column - columns.start) * TILE_PX
                        tile = _jpeg(image[top : top + TILE_PX, left : left + TILE_PX])
                        pixels[top : top + TILE_PX, left : left + TILE_PX] = Image.open(io.BytesIO(tile))
                        file.seek(int(offsets[row * stride + column]))
                        file.write(tile.ljust(TILE_BYTES, b"\0"))
            file.truncate(int(offsets[-1] + counts[-1]))
            description = aperio(np.empty((height_px, width_px, 0)), 0.25, TILE_PX)
            pointer = _append_directory(file, pointer, size, offsets, counts, tiled, description)
    return pixels


def _layout(size, start, tiled):
    across, down = (math.ceil(edge / TILE_PX) for edge in size)
    count, each = (across * down, TILE_BYTES) if tiled else (math.ceil(size[1] / 16), 8192)
    return start + np.arange(count, dtype=np.uint64) * each, np.full(count, each, np.uint32)


def _jpeg(tile):
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, "JPEG", quality=90)
    assert stream.tell() <= TILE_BYTES
    return stream.getvalue()


def _append_directory(file, pointer, size, offsets, counts, tiled, description):
    """Link a directory at the end of the file, its long values behind it. Returns where the next is linked."""
    text = description.encode() + b"\0"
    tags = {
        256: (LONG, np.array([size[0]], np.uint32)),
        257: (LONG, np.array([size[1]], np.uint32)),
        258: (SHORT, np.array([8, 8, 8], np.uint16)),
        259: (SHORT, np.array([7], np.uint16)),
        262: (SHORT, np.array([6], np.uint16)),
        270: (ASCII, np.frombuffer(text, np.uint8)),
        277: (SHORT, np.array([3], np.uint16)),
        530: (SHORT, np.array([2, 2], np.uint16)),
    }
    side = np.array([TILE_PX], np.uint16)
    if tiled:
        tags |= {322: (SHORT, side), 323: (SHORT, side), 324: (LONG8, offsets), 325: (LONG, counts)}
    else:
        tags |= {278: (SHORT, np.array([16], np.uint16)), 273: (LONG8, offsets), 279: (LONG, counts)}
    where = file.seek(0, io.SEEK_END)
    behind = where + 8 + 20 * len(tags) + 8
    entries, values = b"", b""
    for code, (kind, value) in sorted(tags.items()):
        data = value.tobytes()
        inline = data.ljust(8, b"\0") if len(data) <= 8 else struct.pack("<Q", behind + len(values))
        values += data if len(data) > 8 else b""
        entries += struct.pack("<HHQ", code, kind, len(value)) + inline
    file.write(struct.pack("<Q", len(tags)) + entries + bytes(8) + values)
    file.seek(pointer)
    file.write(struct.pack("<Q", where))
    return behind - 8
