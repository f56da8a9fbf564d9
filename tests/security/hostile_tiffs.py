"""TIFF files written byte by byte, to say what no writer would."""

import struct
from dataclasses import dataclass, field

BYTE, ASCII, SHORT, LONG, LONG8, IFD8 = 1, 2, 3, 4, 16, 18
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, LONG8: 8, IFD8: 8}
_LETTERS = {SHORT: "H", LONG: "I", LONG8: "Q", IFD8: "Q"}


@dataclass
class Directory:
    """Tags as code: (type, values), or code: (type, count, field as an integer) for one that lies."""

    tags: dict
    following: int | None = None
    """Where it says that the next one lies; None for the truth."""


@dataclass
class HostileTiff:
    """A BigTIFF of directories, behind them the data of tiles."""

    directories: list = field(default_factory=list)

    def to_bytes(self):
        content = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16))
        for number, directory in enumerate(self.directories):
            start, last = len(content), number == len(self.directories) - 1
            size = 8 + 20 * len(directory.tags) + 8
            body, beside = struct.pack("<Q", len(directory.tags)), b""
            for code, (kind, *said) in sorted(directory.tags.items()):
                count, value, more = self._field(kind, said, start + size + len(beside))
                body += struct.pack("<HHQ", code, kind, count) + value
                beside += more
            after = 0 if last else start + size + len(beside)
            following = after if directory.following is None else directory.following
            content += body + struct.pack("<Q", following) + beside
        return bytes(content)

    def _field(self, kind, said, where):
        if len(said) == 2:
            return said[0], struct.pack("<Q", said[1]), b""
        values = said[0]
        packed = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_LETTERS[kind]}", *values)
        count = len(packed) // _SIZES[kind]
        return (count, packed.ljust(8, b"\0"), b"") if len(packed) <= 8 else (count, struct.pack("<Q", where), packed)


def image(width, height, *, tile=(256, 256), compression=8, tiles=None, data=b"", photometric=2, **more):
    """A directory of an 8-bit RGB image; all its tiles are `data`, which stands in a tag of its own; `more`: tags."""
    n_tiles = -(-width // tile[0]) * -(-height // tile[1]) if tiles is None else tiles
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        270: (ASCII, b"Aperio Image Library|MPP = 0.25|AppMag = 40\0"),
        277: (SHORT, [3]),
        322: (LONG, [tile[0]]),
        323: (LONG, [tile[1]]),
        324: (LONG8, [0] * n_tiles),
        325: (LONG8, [0] * n_tiles),
    }
    return Directory(tags | {int(code.lstrip("t")): value for code, value in more.items()})


def slide(width, height, data, **options):
    """A slide of one image, of which each tile is `data`."""
    head = len(HostileTiff([image(width, height, **options)]).to_bytes())
    whole = image(width, height, **options)
    n_tiles = len(whole.tags[324][1])
    whole.tags[324], whole.tags[325] = (LONG8, [head] * n_tiles), (LONG8, [len(data)] * n_tiles)
    return HostileTiff([whole]).to_bytes() + data
