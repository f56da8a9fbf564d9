"""Annotation files as bytes: fetched, parsed, replaced."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.errors import BadLabels, RefusedUri
from mitoray.uris import local_copy

MOST_JSON_BYTES: Final = 1 << 29
"""Of a JSON file, whose objects take ten times as much: a hundred times MIDOG++."""


@contextmanager
def naming_errors(source: str) -> Iterator[None]:
    """BadLabels for whatever else a reader of the file stumbles over."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        pa.ArrowException,
    ) as error:
        told = f"{type(error).__name__}: {str(error)[:200]}"
        raise BadLabels(f"{source} holds something that makes no sense in an annotation file ({told}).") from error


def short_name(uri: str) -> str:
    """What messages call a file: its last part, without folders, query or credentials."""
    return uri.partition("?")[0].rstrip("/").rpartition("/")[2]


def local_file(uri: str) -> Path:
    """The file or folder on this machine; a remote file is copied while the process lives. Raises BadLabels."""
    source = short_name(uri)
    try:
        path = local_copy(uri)
    except RefusedUri:
        raise
    except Exception as error:  # storage backends raise what they like; their messages may hold credentials
        raise BadLabels(f"{source} could not be fetched ({type(error).__name__}). Check its URI and access.") from None
    if not path.exists():
        raise BadLabels(f"There is no annotation file {source}. Check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise BadLabels(f"The annotation file {source} is empty. Fetch it again.")
    return path


def first_bytes(path: Path) -> bytes:
    """Enough of a file to tell what it is."""
    with path.open("rb") as file:
        return file.read(64)


def load_json(path: Path, source: str) -> object:
    """A JSON document. Raises BadLabels where it is cut short or no JSON."""
    if path.stat().st_size > MOST_JSON_BYTES:
        raise BadLabels(
            f"{source} has {path.stat().st_size >> 20} MiB; at most {MOST_JSON_BYTES >> 20} are read. Split it."
        )
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadLabels(f"{source} is no complete JSON file ({error}). Fetch it again.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` once the writing has succeeded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
