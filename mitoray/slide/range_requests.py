"""Range requests for one file: each says which version of the file it answered from, and none can wait for ever."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.http import HTTPFileSystem

from mitoray import uris

CONNECT_S: Final = 5.0
SILENCE_S: Final = 15.0
"""A connection that says nothing for so long is given up, unless the storage options say otherwise."""
LEAST_BYTES_PER_S: Final = 1 << 17
"""An answer that drips more slowly than 128 KiB/s, and for longer than `DRIP_S`, is given up too."""
DRIP_S: Final = 60.0
AT_ONCE: Final = 16
"""Requests of one read that are on their way together."""

Span = tuple[int, int]
"""First byte, and the byte after the last."""


class WholeFileError(OSError):
    """The whole file was offered where a part was asked for; its bytes were not read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of one range; `etag` and `size_bytes` of the whole file, where the storage says them along."""

    data: bytes
    etag: str | None = None
    size_bytes: int | None = None


def file_system(uri: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of `uri`, with timeouts, and the path within. Errors: as of `uris.file_system`."""
    fs, path = uris.file_system(uri, _with_timeouts(uri, storage_options) if uris.scheme_of(uri) != "file" else None)
    if _is_s3(fs):
        # s3fs asks up to 5 × 5 times by itself. The options above make this instance ours alone.
        fs.retries = 1
    return fs, path


def file_info(fs: Any, path: str) -> Mapping[str, Any]:
    """What the storage says of the file now, not what a listing once said."""
    fs.invalidate_cache(path)
    info: Mapping[str, Any] = fs.info(path, **_limit(fs, 0))
    return info


def fetch(fs: Any, path: str, spans: Sequence[Span]) -> list[Reply | BaseException]:
    """A reply or an exception for each span, in their order; the requests run at once where the storage allows it."""
    ask: Callable[[Any, str, int, int], Awaitable[Reply]]
    if isinstance(fs, HTTPFileSystem):
        ask = _from_http
    elif _is_s3(fs):
        ask = _from_s3
    else:
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        limit = _limit(fs, sum(ends) - sum(starts))
        blocks = fs.cat_ranges([path] * len(spans), starts, ends, on_error="return", **limit)
        return [block if isinstance(block, BaseException) else Reply(block) for block in blocks]

    async def all_at_once() -> list[Reply | BaseException]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(start: int, end: int) -> Reply:
            async with turn, asyncio.timeout(_longest_s(fs, end - start)):
                reply = await ask(fs, path, start, end)
            if len(reply.data) > end - start:
                raise WholeFileError
            return reply

        return await asyncio.gather(*(one(*span) for span in spans), return_exceptions=True)

    replies: list[Reply | BaseException] = sync(fs.loop, all_at_once)
    return replies


async def _from_http(fs: HTTPFileSystem, url: str, start: int, end: int) -> Reply:
    options = dict(fs.kwargs)
    headers = {
        **options.pop("headers", {}),
        "Range": f"bytes={start}-{end - 1}",
        # Ranges of a compressed answer are not ranges of the file.
        "Accept-Encoding": "identity",
    }
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), headers=headers, **options) as reply:
        if reply.status == 416:
            return Reply(b"")
        reply.raise_for_status()
        size_bytes = _checked(reply.headers.get("Content-Range"), start, end, reply.content_length)
        return Reply(await reply.read(), reply.headers.get("ETag"), size_bytes)


async def _from_s3(fs: Any, path: str, start: int, end: int) -> Reply:
    bucket, key, version = fs.split_path(path)
    asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{end - 1}", **fs.req_kw}
    try:
        reply = await fs._call_s3("get_object", **asked, **({"VersionId": version} if version else {}))
    except OSError as exc:
        if getattr(exc.__cause__, "response", {}).get("Error", {}).get("Code") == "InvalidRange":
            return Reply(b"")
        raise
    body = reply["Body"]
    try:
        size_bytes = _checked(reply.get("ContentRange"), start, end, reply.get("ContentLength"))
        return Reply(await body.read(), reply.get("ETag"), size_bytes)
    finally:
        body.close()


def _checked(content_range: str | None, start: int, end: int, length: int | None) -> int | None:
    """The file's size by the Content-Range of an answer.

    Called before the answer's body is read, which may be gigabytes. Raises WholeFileError where it is no range,
    OSError where it is another.
    """
    if content_range is None:
        if start > 0 or length is None or length > end:
            raise WholeFileError
        return length
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if found is None or int(found[1]) != start or int(found[2]) >= end:
        raise OSError("another range was given than was asked for")
    return None if found[3] == "*" else int(found[3])


def _with_timeouts(uri: str, storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """The storage options, with limits to waiting and to retrying where they set none."""
    options = dict(storage_options)
    scheme = uris.scheme_of(uri)
    if scheme in ("s3", "s3a"):
        # botocore would retry up to 5 times inside each attempt of `retry.patiently`, and s3fs 25 times around that:
        # 625 attempts of 15 s where 5 are meant. Whoever sets `retries` here gets so many within each of ours.
        # aiohttp, beneath both and beneath HTTP, repeats once what a closed connection left unanswered: 10 at most.
        ours = {
            "connect_timeout": CONNECT_S,
            "read_timeout": SILENCE_S,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": 2 * AT_ONCE,
        }
        options["config_kwargs"] = ours | dict(options.get("config_kwargs") or {})
    elif scheme in ("http", "https"):
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        options["client_kwargs"] = {"timeout": limits} | dict(options.get("client_kwargs") or {})
    return options


def _is_s3(fs: Any) -> bool:
    return type(fs).__module__.partition(".")[0] == "s3fs"


def _limit(fs: Any, size_bytes: int) -> dict[str, float]:
    """fsspec's own deadline, for file systems that have one."""
    return {"timeout": _longest_s(fs, size_bytes)} if isinstance(fs, AsyncFileSystem) else {}


def _longest_s(fs: Any, size_bytes: int) -> float:
    """The most that one request may take; not less than the timeouts that the storage options set."""
    config = getattr(fs, "config_kwargs", {})
    limits = (getattr(fs, "client_kwargs", None) or {}).get("timeout")
    asked = [config.get("connect_timeout"), config.get("read_timeout")]
    asked += [getattr(limits, "sock_connect", None), getattr(limits, "sock_read", None)]
    waiting_s = sum(float(limit) for limit in asked if limit)
    return max(DRIP_S, waiting_s) + size_bytes / LEAST_BYTES_PER_S
