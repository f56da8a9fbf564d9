"""A remote slide as the seekable file that TIFF parsers want."""

import io
import os
from typing import Any, Final

from mitoray.slide.storage import SlideFile

BLOCK_BYTES: Final = 1 << 16
"""Unit in which the table of contents is kept."""
AHEAD_BYTES: Final = 1 << 18
"""Read at once from where a directory begins: its tags and often the next, smaller images follow it closely."""
END_BYTES: Final = 1 << 19
"""Read at once from the end of the file, where scanners put label, overview and their directories."""


class RangeFile(io.RawIOBase):
    """A `SlideFile` that can be sought in; keeps what it has read.

    First it reads the file's beginning and end together; then ahead of where it is asked to read, and twice as far
    where that goes on from the read before: the lists of a large level's tiles are megabytes long.
    """

    def __init__(self, source: SlideFile) -> None:
        self._source = source
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self.size_bytes = source.size_bytes
        self._after_last = -1
        """The block after those last read."""
        total = _blocks_of(source.size_bytes)
        self._load([0, *range(max(1, total - _blocks_of(END_BYTES)), total)])

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set and return the position in bytes."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes from the position on; fewer at the end of the file."""
        start, total = self._position, self._source.size_bytes
        end = total if size < 0 else min(start + size, total)
        if end <= start:
            return b""
        numbers = range(start // BLOCK_BYTES, _blocks_of(end))
        missing = [n for n in numbers if n not in self._blocks]
        if missing:
            goes_on = missing[0] == self._after_last
            count = max(_blocks_of(AHEAD_BYTES), len(numbers) * (2 if goes_on else 1))
            ahead = range(missing[0], min(missing[0] + count, _blocks_of(total)))
            self._load([n for n in ahead if n not in self._blocks])
            self._after_last = ahead.stop
        self._position = end
        joined = b"".join(self._blocks[n] for n in numbers)
        return joined[start - numbers[0] * BLOCK_BYTES :][: end - start]

    def read_at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` on."""
        self.seek(position)
        return self.read(size)

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` from the position on; returns the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _load(self, numbers: list[int]) -> None:
        total = self._source.size_bytes
        spans = [(n * BLOCK_BYTES, min((n + 1) * BLOCK_BYTES, total)) for n in numbers]
        self._blocks.update(zip(numbers, self._source.read_ranges(spans), strict=True))


def _blocks_of(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES)
