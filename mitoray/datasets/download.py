"""One file, fetched whole: resumed where it stopped, and verified before it shows."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import requests

from mitoray.datasets.destination import Destination
from mitoray.datasets.halves import Half
from mitoray.datasets.http import TIMEOUT_S, Client
from mitoray.datasets.listing import RemoteFile, client_for
from mitoray.errors import BrokenDownload

log = logging.getLogger(__name__)

ATTEMPTS: Final = 6
"""Dropped connections in a row, without a single new byte, after which a file is given up."""

_BLOCK_BYTES: Final = 1 << 18

_STALE: Final = (
    "Try again later; if it stays so, the file may have been replaced there: delete _fetch/listing.json in the "
    "destination, so that it is looked up anew."
)


class Digest:
    """The checksum of a file, as its bytes come by."""

    def __init__(self, file: RemoteFile) -> None:
        algorithm, _, self._expected = (file.checksum or "none:").partition(":")
        # The checksums are those the services publish; they guard against accidents, not against forgery.
        self._hash = hashlib.new({"git": "sha1", "none": "md5"}.get(algorithm, algorithm), usedforsecurity=False)
        if algorithm == "git":
            self._hash.update(b"blob %d\0" % file.size_bytes)

    def update(self, block: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(block)

    @property
    def right(self) -> bool:
        """Whether the bytes so far are the announced file; true where no checksum was announced."""
        return not self._expected or self._hash.hexdigest() == self._expected.lower()


def fetch_file(
    file: RemoteFile,
    destination_uri: str,
    storage_options: Mapping[str, Any] | None = None,
    mirror: str | None = None,
) -> Iterator[int]:
    """Fetch one file into the destination, verify its size and checksum, and record it as finished.

    Yields, about once a second, by how many bytes the file has grown since (what an earlier run left counts at the
    start; a file that has to be fetched afresh gives a negative number). A file that lies there already, whole and
    right, is only recorded. Raises BrokenDownload, DatasetForbidden; what has come so far is kept for the next run.
    """
    destination = Destination(destination_uri, storage_options)
    seen, since = 0, time.monotonic()
    for size in _sizes(file, destination, mirror):
        if time.monotonic() - since >= 1:
            yield size - seen
            seen, since = size, time.monotonic()
    destination.record(file)
    yield file.size_bytes - seen


def _sizes(file: RemoteFile, destination: Destination, mirror: str | None) -> Iterator[int]:
    """Bytes of the file that are here, as they grow, until it is finished."""
    if destination.sizes(file.path.partition("/")[0]).get(file.path) == file.size_bytes:
        digest = Digest(file)
        for block in destination.blocks(file.path):
            digest.update(block)
        if digest.right:
            return
        log.warning("%s lies there with a wrong checksum; it is fetched again.", file.name)
    with client_for(file.api, mirror) as client, closing(destination.half(file)) as half:
        for _ in range(2):
            digest = Digest(file)
            for block in half.blocks():
                digest.update(block)
            yield from _grow(client, file, half, digest)
            if half.size == file.size_bytes and digest.right:
                half.finish()
                return
            log.warning("%s came with a wrong checksum; what there is of it is thrown away.", file.name)
            half.clear()
    raise BrokenDownload(
        f"{file.name} came twice with another checksum than {file.api} announces ({file.checksum}). {_STALE}"
    )


def _grow(client: Client, file: RemoteFile, half: Half, digest: Digest) -> Iterator[int]:
    """Append the missing bytes to the half, over as many connections as it takes."""
    drops = 0
    reason = "the connection ended early"
    while half.size < file.size_bytes:
        if drops:
            if drops >= ATTEMPTS:
                raise BrokenDownload(
                    f"{file.name} stopped at {half.size:,} of {file.size_bytes:,} bytes: {reason}, {drops} times in a "
                    "row. Run the same command again to go on from there."
                )
            time.sleep(min(2.0 ** (drops - 2), 60))
        drops += 1
        try:
            for block in _missing(client, file, half.size):
                half.append(block)
                digest.update(block)
                drops = 1
                yield half.size
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "error"
            raise BrokenDownload(f"{file.api} answers HTTP {status} for {file.name}. {_STALE}") from error
        except requests.RequestException as error:
            reason = type(error).__name__
            log.info("%s: %s at %d bytes", file.name, reason, half.size)


def _missing(client: Client, file: RemoteFile, start: int) -> Iterator[bytes]:
    """The file's bytes from `start`, as far as this one connection carries."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.get(file.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        client.refuse(response, file.name)
        skip = start - _first_byte(response, start)
        room = file.size_bytes - start
        for block in response.iter_content(_BLOCK_BYTES):
            wanted = block[skip:]
            skip = max(skip - len(block), 0)
            room -= len(wanted)
            if room < 0:
                raise BrokenDownload(
                    f"{file.name} is longer than the {file.size_bytes:,} bytes that {file.api} announces. {_STALE}"
                )
            if wanted:
                yield wanted


def _first_byte(response: requests.Response, start: int) -> int:
    """Where the body begins in the file, at `start` or before. A server may ignore the range and send all of it."""
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) > start:
        raise requests.exceptions.ContentDecodingError("the server sent another range than it was asked for")
    return int(match[1])
