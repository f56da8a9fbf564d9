"""Files that are not finished yet: added to by many attempts, over many runs, and shown only when whole."""

import fcntl
import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import fsspec

from mitoray.errors import BrokenDownload

PART_BYTES: Final = 32 << 20
"""Size of the pieces in object storage: at least 5 MiB, as S3 wants, and held in memory once per file under way."""

_BLOCK_BYTES: Final = 1 << 20


class Half(ABC):
    """The first bytes of a file."""

    size: int
    """Bytes so far."""

    @abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """The bytes so far, block by block."""

    @abstractmethod
    def append(self, block: bytes) -> None:
        """Add bytes at the end."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all bytes."""

    @abstractmethod
    def finish(self) -> None:
        """Show the file under its own name, in one step."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; an unfinished half stays for a later run."""


class LocalHalf(Half):
    """A file on disk, written as `NAME.part` and renamed when it is whole. One process at a time may hold it."""

    def __init__(self, target: Path) -> None:
        self._target, self._part = target, target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another run may have renamed the file between our opening and our locking it.
            held = os.path.samestat(self._part.stat(), os.fstat(self._file.fileno()))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            self._file.close()
            raise BrokenDownload(
                f"Another run is fetching {target.name} into the same folder. Wait until it has ended."
            )
        self.size = self._part.stat().st_size

    def blocks(self) -> Iterator[bytes]:
        """The bytes so far, block by block."""
        self._file.flush()
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            yield block

    def append(self, block: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(block)
        self.size += len(block)

    def clear(self) -> None:
        """Forget all bytes."""
        self._file.truncate(0)
        self.size = 0

    def finish(self) -> None:
        """Rename the file to its own name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._target)

    def close(self) -> None:
        """Flush, and unlock."""
        self._file.close()


class ObjectHalf(Half):
    """A file in object storage, collected in pieces of equal size and joined there when it is whole.

    Pieces rather than an open multipart upload: their bytes can be read again, which the checksum of a resumed file
    needs. The storage joins them by itself, without a second transfer. What is less than a piece is lost when the
    process ends.
    """

    def __init__(
        self, filesystem: fsspec.AbstractFileSystem, target: str, folder: str, part_bytes: int = PART_BYTES
    ) -> None:
        self._filesystem, self._target, self._folder, self._part_bytes = filesystem, target, folder, part_bytes
        self._rest = bytearray()
        filesystem.invalidate_cache()
        try:
            sizes = {posixpath.basename(entry["name"]): entry["size"] for entry in filesystem.ls(folder, detail=True)}
        except FileNotFoundError:
            sizes = {}
        self._parts = 0
        while sizes.get(f"{self._parts:05d}") == part_bytes:
            self._parts += 1
        self.size = self._parts * part_bytes

    def blocks(self) -> Iterator[bytes]:
        """The bytes so far, piece by piece."""
        for part in range(self._parts):
            yield self._filesystem.cat_file(self._path(part))
        yield bytes(self._rest)

    def append(self, block: bytes) -> None:
        """Add bytes at the end."""
        self._rest += block
        self.size += len(block)
        while len(self._rest) >= self._part_bytes:
            self._store(self._part_bytes)

    def clear(self) -> None:
        """Forget all bytes."""
        self._rest.clear()
        self._parts = self.size = 0
        self._remove()

    def finish(self) -> None:
        """Join the pieces under the file's own name."""
        if self._parts == 0:
            self._filesystem.pipe_file(self._target, bytes(self._rest))
            return
        if self._rest:
            self._store(len(self._rest))
        self._filesystem.merge(self._target, [self._path(part) for part in range(self._parts)])
        self._remove()

    def close(self) -> None:
        """Forget what is less than a piece."""
        self._rest.clear()

    def _store(self, length: int) -> None:
        self._filesystem.pipe_file(self._path(self._parts), bytes(self._rest[:length]))
        del self._rest[:length]
        self._parts += 1

    def _remove(self) -> None:
        if self._filesystem.exists(self._folder):
            self._filesystem.rm(self._folder, recursive=True)

    def _path(self, part: int) -> str:
        return f"{self._folder}/{part:05d}"
