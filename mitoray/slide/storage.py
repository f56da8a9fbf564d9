"""Bytes of one slide file, wherever fsspec finds it, with failures in the words of `mitoray.errors`."""

import bisect
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mitoray.errors import EmptySlide, NotASlide, SlideChanged, SlideUnreachable, TruncatedSlide
from mitoray.slide.range_requests import Reply, Span, fetch, file_info, file_system
from mitoray.slide.retry import patiently, whole_files_only
from mitoray.uris import brief, redact

RECHECK_S: Final = 10.0
"""How long it is trusted that a file has not changed, where answers do not say which version they are from."""
MERGE_GAP_BYTES: Final = 1 << 15
"""Unwanted bytes that cost less than another request."""
MERGED_BYTES: Final = 1 << 23
"""Longer requests gain nothing, and object stores answer several short ones at once."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one version of a file from the next. `etag`: without its mark of weakness."""

    size_bytes: int
    etag: str | None = None
    modified: str | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Version":
        """The version that an fsspec file system's `info`, which holds a size, tells of."""
        times = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "Last-Modified", "updated"))
        modified = next((str(time) for time in times if time), None)
        return cls(int(info["size"]), _plain(info.get("ETag") or info.get("etag")), modified)

    def differs(self, other: "Version") -> bool:
        """Whether the two are not of the same bytes, as far as both of them say."""
        if self.size_bytes != other.size_bytes:
            return True
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified and self.modified != other.modified)

    def __str__(self) -> str:
        facts = [f"{self.size_bytes} bytes", f"ETag {self.etag}" if self.etag else f"modified {self.modified}"]
        return ", ".join(facts if self.etag or self.modified else facts[:1])


class SlideFile:
    """A slide's bytes, by range. `size_bytes` is known from the start; nothing is ever read whole.

    Errors: RefusedUri, SlideNotFound, SlideForbidden, SlideUnreachable, EmptySlide, NotASlide (a folder), NoByteRanges
    (when it is read, at the latest).
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.name = redact(uri)
        self._process = os.getpid()
        try:
            self._fs, self._path = file_system(uri, storage_options or {})
        except (ImportError, ValueError) as exc:
            raise SlideUnreachable(
                f"{self.name}: no file system for this URI ({brief(exc)}). Use a local path, s3:// or https://, "
                "or install the fsspec package of its protocol."
            ) from None
        info = self._info()
        if info.get("type") == "directory":
            raise NotASlide(f"{self.name} is a folder. Give the URI of one slide file.")
        if info.get("partial") is False or info.get("size") is None:
            raise whole_files_only(self.name)
        self._version = Version.of(info)
        self._checked_s = time.monotonic()
        self.size_bytes = self._version.size_bytes
        if self.size_bytes == 0:
            raise EmptySlide(f"{self.name} has 0 bytes. Copy it again from its source.")

    def read_ranges(self, ranges: Sequence[Span]) -> list[bytes]:
        """The bytes of each (start, end), in the order asked.

        Ranges close to each other travel together; on object stores all requests run at once, and only those that
        failed are asked again. Errors: SlideChanged, TruncatedSlide, NoByteRanges, and the storage's.
        """
        if os.getpid() != self._process:
            raise RuntimeError(f"{self.name} was opened before a fork, which connections do not survive. Open it again")
        merged = merge_ranges(ranges)
        blocks = self._fetch(merged)
        for (start, end), block in zip(merged, blocks, strict=True):
            if len(block) < end - start:
                self.check_unchanged()
                raise TruncatedSlide(f"{self.name} ends before byte {end}. Copy it again from its source.")
        starts = [start for start, _ in merged]
        homes = [bisect.bisect_right(starts, start) - 1 for start, _ in ranges]
        return [
            blocks[home][start - starts[home] : end - starts[home]]
            for home, (start, end) in zip(homes, ranges, strict=True)
        ]

    def check_unchanged(self) -> None:
        """Ask the storage for the file's version: SlideChanged where it is not the one that was opened."""
        info = self._info()
        self._compare(Version.of(info if info.get("size") is not None else {**info, "size": self.size_bytes}))
        self._checked_s = time.monotonic()

    def _fetch(self, spans: list[Span]) -> list[bytes]:
        """The bytes of each span, of the version that was opened."""
        found: dict[Span, Reply] = {}

        def ask() -> None:
            missing = [span for span in spans if span not in found]
            failures = []
            for span, reply in zip(missing, fetch(self._fs, self._path, missing), strict=True):
                if isinstance(reply, Reply):
                    found[span] = reply
                else:
                    failures.append(reply)
            if failures:
                raise failures[0]

        patiently(ask, self.name)
        replies = [found[span] for span in spans]
        for reply in replies:
            size = self.size_bytes if reply.size_bytes is None else reply.size_bytes
            self._compare(Version(size, _plain(reply.etag)))
        if replies and self._version.etag and all(reply.etag for reply in replies):
            self._checked_s = time.monotonic()
        elif time.monotonic() - self._checked_s >= RECHECK_S:
            # After the read, so that what it gave is known to be of the old version.
            self.check_unchanged()
        return [reply.data for reply in replies]

    def _info(self) -> Mapping[str, Any]:
        return patiently(lambda: file_info(self._fs, self._path), self.name)

    def _compare(self, now: Version) -> None:
        if now.differs(self._version):
            raise SlideChanged(
                f"{self.name} changed while it was read (it was {self._version}; now {now}). "
                "Score it again once nothing writes to it."
            )


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


def _plain(etag: str | None) -> str | None:
    """An ETag without quotes and without the mark of weakness that proxies add."""
    return etag.removeprefix("W/").strip('"') if etag else None
