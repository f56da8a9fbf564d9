"""Bytes of one slide file, wherever fsspec finds it, with failures in the words of `mitoray.errors`."""

import bisect
import errno
import io
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.http import HTTPFileSystem

from mitoray.errors import (
    EmptySlide,
    NoByteRanges,
    NotASlide,
    SlideError,
    SlideForbidden,
    SlideNotFound,
    SlideUnreachable,
    TruncatedSlide,
)

log = logging.getLogger(__name__)

ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.2
"""Before the second attempt; doubles with each."""
BLOCK_BYTES: Final = 1 << 16
"""Unit in which the table of contents is read: it is scattered, a few hundred bytes here and there."""
MERGE_GAP_BYTES: Final = 1 << 15
"""Unwanted bytes that cost less than another request."""
MERGED_BYTES: Final = 1 << 23
"""Longer requests gain nothing, and object stores answer several short ones at once."""

T = TypeVar("T")


def redact(uri: str) -> str:
    """`uri` without what may be secret: user and password, query, fragment. Local paths stay as they are."""
    if "://" not in uri or uri.startswith("file://"):
        return uri
    # Keys may hold "/", so a password is taken to end at the last "@" that follows "user:".
    uri = re.sub(r"://(?:[^/@:]*:(?!\d+(?:/|$)).*@|[^/]*@)", "://", uri)
    return re.sub(r"[?#].*", "", uri)


def options_for(uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The storage options for one URI: they describe object storage, so local paths and web addresses take none."""
    remote = "://" in uri and not uri.startswith(("file://", "http://", "https://"))
    return dict(storage_options or {}) if remote else {}


class SlideFile:
    """A slide's bytes, by range. `size_bytes` is known from the start; nothing is ever read whole.

    Errors: SlideNotFound, SlideForbidden, SlideUnreachable, NoByteRanges, EmptySlide, NotASlide (a folder).
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.name = redact(uri)
        self._process = os.getpid()
        try:
            self._fs, self._path = _file_system(uri, storage_options or {})
        except (ImportError, ValueError) as exc:
            raise SlideUnreachable(
                f"{self.name}: no file system for this URI ({_brief(exc)}). Use a local path, s3:// or https://, "
                "or install the fsspec package of its protocol."
            ) from None
        info = self._patiently(lambda: self._fs.info(self._path))
        if info.get("type") == "directory":
            raise NotASlide(f"{self.name} is a folder. Give the URI of one slide file.")
        size = info.get("size")
        if info.get("partial") is False or size is None:
            self._refuse_whole_files()
        if size == 0:
            raise EmptySlide(f"{self.name} has 0 bytes. Copy it again from its source.")
        self.size_bytes = int(size)
        if isinstance(self._fs, HTTPFileSystem):
            self._prove_ranges()

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, end), in the order asked.

        Ranges close to each other travel together; on object stores all requests run at once.
        """
        if os.getpid() != self._process:
            raise RuntimeError(f"{self.name} was opened before a fork, which connections do not survive. Open it again")
        merged = merge_ranges(ranges)
        starts, ends = [start for start, _ in merged], [end for _, end in merged]
        blocks = self._patiently(
            lambda: self._fs.cat_ranges([self._path] * len(merged), starts, ends, on_error="raise") if merged else []
        )
        for (start, end), block in zip(merged, blocks, strict=True):
            if len(block) > end - start:
                self._refuse_whole_files()
            if len(block) < end - start:
                raise TruncatedSlide(f"{self.name} ends before byte {end}. Copy it again from its source.")
        homes = [bisect.bisect_right(starts, start) - 1 for start, _ in ranges]
        return [
            blocks[home][start - starts[home] : end - starts[home]]
            for home, (start, end) in zip(homes, ranges, strict=True)
        ]

    def _prove_ranges(self) -> None:
        """Ask for the last byte: where ranges are ignored, that shows before the whole file is on its way."""
        try:
            with self._fs.open(self._path, size=self.size_bytes, block_size=1, cache_type="none") as file:
                self._patiently(lambda: file._fetch_range(self.size_bytes - 1, self.size_bytes))
        except ValueError:
            self._refuse_whole_files()

    def _refuse_whole_files(self) -> NoReturn:
        raise NoByteRanges(
            f"{self.name}: the server gives whole files only. Slides are read by byte range: "
            "use a server that answers Range requests, or copy the slide to disk or S3."
        )

    def _patiently(self, ask: Callable[[], T]) -> T:
        """`ask()`, again after growing pauses while the failure may pass."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except SlideError:
                raise
            except Exception as exc:
                error = _named(exc, self.name)
                if error is None:
                    raise
                if not isinstance(error, SlideUnreachable) or attempt == ATTEMPTS:
                    # The cause's own text may hold a signed URL.
                    raise error from None
                log.warning("%s; attempt %d of %d", error, attempt, ATTEMPTS)
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


class RangeFile(io.RawIOBase):
    """A `SlideFile` as the seekable file that TIFF parsers want; keeps the 64 KiB blocks it has read."""

    def __init__(self, source: SlideFile) -> None:
        self._source = source
        self._blocks: dict[int, bytes] = {}
        self._position = 0

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
        numbers = range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1)
        missing = [n for n in numbers if n not in self._blocks]
        spans = [(n * BLOCK_BYTES, min((n + 1) * BLOCK_BYTES, total)) for n in missing]
        self._blocks.update(zip(missing, self._source.read_ranges(spans), strict=True))
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


def merge_ranges(
    ranges: Sequence[tuple[int, int]], gap: int = MERGE_GAP_BYTES, most: int = MERGED_BYTES
) -> list[tuple[int, int]]:
    """Few ranges that cover all of `ranges`: gaps up to `gap` bytes bridged, joined ones at most `most` bytes long."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + gap and max(end, merged[-1][1]) - merged[-1][0] <= most:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif not merged or end > merged[-1][1]:
            merged.append((start, end))
    return merged


def _file_system(uri: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    if "://" in uri and not uri.startswith("file://"):
        fs, path = fsspec.core.url_to_fs(uri, **storage_options)
        return fs, str(path)
    # Local names may hold "::" or "#", which a URL parser would take for its own.
    path = uri.removeprefix("file://")
    if path != uri and not Path(path).exists():
        path = unquote(path)
    return fsspec.filesystem("file"), str(Path(path).expanduser().absolute())


def _named(exc: Exception, name: str) -> SlideError | None:
    """The `SlideError` for a storage failure, None for what is no storage failure."""
    if isinstance(exc, FileNotFoundError) and type(exc.__cause__).__module__.startswith(
        ("aiohttp", "builtins", "asyncio")
    ):
        # fsspec calls whatever goes wrong over HTTP "not found"; the cause knows better.
        exc = exc.__cause__ if isinstance(exc.__cause__, Exception) else exc
    kind, status = type(exc).__name__, getattr(exc, "status", None)
    if isinstance(exc, FileNotFoundError | NotADirectoryError) or status in (404, 410):
        return SlideNotFound(f"{name}: no such file. Check the uri in the manifest.")
    if isinstance(exc, IsADirectoryError):
        return NotASlide(f"{name} is a folder. Give the URI of one slide file.")
    if isinstance(exc, PermissionError) or status in (401, 403, 407) or kind in _CREDENTIALS:
        return SlideForbidden(f"{name}: reading is not allowed ({_brief(exc)}). Check credentials and permissions.")
    module = type(exc).__module__.partition(".")[0]
    if isinstance(exc, OSError | TimeoutError | EOFError) or module in ("aiohttp", "botocore", "aiobotocore"):
        return SlideUnreachable(
            f"{name}: the storage did not answer properly ({_brief(exc)}). Check network and endpoint, then run again."
        )
    return None


_CREDENTIALS: Final = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
)


def _brief(exc: Exception) -> str:
    """What failed, without the text of the exception, which may hold a signed URL."""
    status = getattr(exc, "status", None)
    code = getattr(exc, "errno", None) or 0
    detail = f", HTTP status {status}" if status else f", {errno.errorcode[code]}" if code in errno.errorcode else ""
    return type(exc).__name__ + detail
