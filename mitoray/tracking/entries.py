"""What is recorded, in the form that MLflow takes: names and values within its limits, and nothing secret."""

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from mitoray.slide import redact

MAX_NAME: Final = 250
MAX_PARAMETER: Final = 6000
MAX_TAG: Final = 5000
"""Longest name of a parameter or metric, and longest values, in characters, that every MLflow 3 server takes."""

_SECRET: Final = re.compile(r"storage_options|passw|secret|token|credential|api_?key|access_?key", re.IGNORECASE)

T = TypeVar("T")


def parameter_entries(given: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow takes them: nested mappings and dataclasses by dotted names, lists as JSON, all cut to fit.

    Left out are values whose name says that they are secret, storage options among them; URIs lose user, password and
    query.
    """
    flat = _with_clean_names(dict(_flattened(given)))
    return {name: _cut(value, MAX_PARAMETER) for name, value in flat.items()}


def metric_entries(given: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as MLflow takes them, without those that are None or not finite: its databases cannot hold them."""
    numbers = {name: float(value) for name, value in given.items() if value is not None}
    return _with_clean_names({name: value for name, value in numbers.items() if math.isfinite(value)})


def tag_entries(given: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow takes them, without those that are None."""
    known = {name: value for name, value in given.items() if value is not None and not _SECRET.search(name)}
    return {name: _cut(_text(value), MAX_TAG) for name, value in _with_clean_names(known).items()}


def _flattened(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    items = _items(value)
    if not items:
        yield name, _text(value)
        return
    for key, inner in items.items():
        if not _SECRET.search(key):
            yield from _flattened(inner, f"{name}.{key}" if name else key)


def _items(value: Any) -> dict[str, Any]:
    """What a mapping or dataclass holds, by name; nothing for any other value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """The value for JSON, its text redacted; True, None and the like are written as Python writes them."""
    if items := _items(value):
        return {key: _plain(inner) for key, inner in items.items() if not _SECRET.search(key)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return redact(str(value)) if isinstance(value, str | Path | bool | None) else value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _with_clean_names(entries: Mapping[str, T]) -> dict[str, T]:
    """The entries under names that MLflow takes; those that would share one are told apart by a checksum."""
    clean = {name: _clean(name) for name in entries}
    times = Counter(clean.values())
    return {
        short if times[short] == 1 else f"{short[: MAX_NAME - 9]}-{zlib.crc32(name.encode()):08x}": entries[name]
        for name, short in clean.items()
    }


def _clean(name: str) -> str:
    """Dashes for other characters, and for parts that would walk through folders: names are paths in MLflow."""
    parts = re.sub(r"[^\w\-. /:]", "-", name).split("/")
    cleaned = "/".join("-" if part.strip() in ("", ".", "..") else part for part in parts)
    return cleaned[:MAX_NAME].rstrip("/")
