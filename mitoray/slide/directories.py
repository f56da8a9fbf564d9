"""A slide's image directories, looked through before any parser allocates what they ask for."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mitoray.errors import NotASlide
from mitoray.slide.range_file import RangeFile

MOST_DIRECTORIES: Final = 4096
"""Images in a file, whole stacks of focal planes included."""
MOST_TAGS: Final = 1024
MOST_TILES: Final = 1 << 22
"""Of one image: 1,048,576 px squared in tiles of 512."""
MOST_VALUE_BYTES: Final = 1 << 27
"""Of the values of all tags together; parsers make objects of them that take five times as much."""
MOST_TEXT_BYTES: Final = 1 << 24

_LAYOUTS: Final = {
    b"II*\0": ("<4xI", "<H", "<HHI4s", "<I"),
    b"MM\0*": (">4xI", ">H", ">HHI4s", ">I"),
    b"II+\0": ("<8xQ", "<Q", "<HHQ8s", "<Q"),
    b"MM\0+": (">8xQ", ">Q", ">HHQ8s", ">Q"),
}
"""TIFF and BigTIFF in both byte orders: header, number of tags, tag (code, type, count, value), offset."""
_TYPE_BYTES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_TILES: Final = (273, 279, 324, 325)
_TEXTS: Final = (270, 700)
"""Description and XMP, in which formats put XML."""
_SUB_DIRECTORIES: Final = 330
_NDPI: Final = 65420
"""Hamamatsu's mark: offsets of directories take 8 bytes although the rest is plain TIFF."""


@dataclass(frozen=True, slots=True)
class _Tag:
    code: int
    count: int
    value_bytes: int
    n_bytes: int
    field: bytes

    def values(self, reader: RangeFile, offset: struct.Struct) -> bytes:
        """The bytes of its values, which stand in the tag itself where they fit."""
        if self.n_bytes <= len(self.field):
            return self.field[: self.n_bytes]
        return reader.read_at(offset.unpack(self.field)[0], self.n_bytes)


def check_directories(reader: RangeFile, name: str) -> None:
    """NotASlide for directories that run in a circle, are too many, or say more than a file can hold or a slide needs.

    What lies past the end of the file is left to those who read it.
    """
    walk = _Walk(reader, name, *map(struct.Struct, _LAYOUTS[reader.read_at(0, 4)]))
    while walk.chains:
        chain: set[int] = set()
        start = walk.chains.pop()
        while start and start not in walk.seen:
            chain.add(start)
            start = walk.visit(start)
        if start in chain:
            raise NotASlide(f"{name}: its list of images runs in a circle. Copy it again from its source.")


class _Walk:
    """`chains`: where lists of directories begin that were not followed yet. `seen`: directories that were visited."""

    def __init__(
        self,
        reader: RangeFile,
        name: str,
        header: struct.Struct,
        number: struct.Struct,
        tag: struct.Struct,
        offset: struct.Struct,
    ) -> None:
        self.chains: list[int] = [header.unpack(reader.read_at(0, header.size))[0]]
        self.seen: set[int] = set()
        self._reader, self._name = reader, name
        self._number, self._tag, self._offset = number, tag, offset
        self._next = self._offset
        self._value_bytes = 0

    def visit(self, start: int) -> int:
        """Where the next directory lies; 0 for nowhere. Raises NotASlide."""
        self.seen.add(start)
        if len(self.seen) > MOST_DIRECTORIES:
            raise NotASlide(f"{self._name} holds more than {MOST_DIRECTORIES} images. Export the one to score.")
        counted = self._reader.read_at(start, self._number.size)
        n_tags = self._number.unpack(counted)[0] if len(counted) == self._number.size else 0
        if n_tags > MOST_TAGS:
            raise _senseless(self._name, f"a directory of {n_tags} tags")
        size = n_tags * self._tag.size
        body = self._reader.read_at(start + self._number.size, size + 8)
        if len(body) < size:
            return 0
        tags = list(_tags(body[:size], self._tag))
        if any(one.code == _NDPI for one in tags):
            self._next = struct.Struct("<Q")
        for one in tags:
            self._value_bytes += one.n_bytes if one.n_bytes > len(one.field) else 0
            self.chains += _checked(one, self._reader, self._offset, self._name)
        if self._value_bytes > MOST_VALUE_BYTES:
            raise _senseless(self._name, f"more than {MOST_VALUE_BYTES >> 20} MiB of it")
        pointer = body[size:][: self._next.size]
        return int(self._next.unpack(pointer)[0]) if len(pointer) == self._next.size else 0


def _tags(body: bytes, tag: struct.Struct) -> Iterator[_Tag]:
    for code, kind, count, field in tag.iter_unpack(body):
        size = _TYPE_BYTES.get(kind, 0)
        yield _Tag(code, count, size, count * size, field)


def _checked(tag: _Tag, reader: RangeFile, offset: struct.Struct, name: str) -> tuple[int, ...]:
    """Where the directories lie that the tag lists, if that is what it does. Raises NotASlide."""
    if tag.n_bytes > reader.size_bytes:
        raise _senseless(name, f"{tag.count} values in tag {tag.code}")
    if tag.code in _TILES and tag.count > MOST_TILES:
        raise NotASlide(f"{name}: an image of {tag.count} tiles is not read; at most {MOST_TILES} are.")
    if tag.code in _TILES:
        # Now, since the parser wants them next, and a read that goes on from the one before reaches twice as far.
        tag.values(reader, offset)
    if tag.code in _TEXTS:
        if tag.n_bytes > MOST_TEXT_BYTES:
            raise _senseless(name, f"a description of {tag.n_bytes >> 20} MiB")
        text = tag.values(reader, offset)
        # Metadata of slides define no entities; those that do multiply when they are parsed.
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise NotASlide(f"{name}: its XML metadata define entities, which are not expanded. Remove them.")
    if tag.code == _SUB_DIRECTORIES and tag.value_bytes in (4, 8):
        if tag.count > MOST_DIRECTORIES:
            raise NotASlide(f"{name} holds more than {MOST_DIRECTORIES} images. Export the one to score.")
        listed = tag.values(reader, offset)
        order = offset.format[0]
        kind = "I" if tag.value_bytes == 4 else "Q"
        return struct.unpack(
            f"{order}{len(listed) // tag.value_bytes}{kind}", listed[: len(listed) // tag.value_bytes * tag.value_bytes]
        )
    return ()


def _senseless(name: str, what: str) -> NotASlide:
    return NotASlide(f"{name}: its table of contents makes no sense ({what}). Copy it again from its source.")
