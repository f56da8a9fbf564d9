"""Versions of a label table: each is a file of its own that says which one it was made from, and what was done."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mitoray.errors import BadLabels, OutputBelongsToAnotherRun
from mitoray.labels.schema import LABELS
from mitoray.labels.source import replacing
from mitoray.labels.table import checked_labels

METADATA: Final = b"mitoray.version"
"""Key of the Parquet schema metadata that holds a version's `Version` as JSON."""


@dataclass(frozen=True)
class Version:
    """Where a label table comes from.

    parent: digest of the table it was made from; step: what was done, such as "missed candidates"; raters: who decided;
    review_set: digest of what they decided on; added, changed: labels by kind, "old to new" of those that changed;
    history: the same of every version before, the oldest first; notes: anything else, such as the proposing model.
    """

    parent: str
    step: str
    raters: tuple[str, ...]
    review_set: str
    added: Mapping[str, int]
    changed: Mapping[str, int]
    history: tuple[Mapping[str, Any], ...] = ()
    notes: Mapping[str, Any] | None = None


def labels_digest(labels: pa.Table) -> str:
    """SHA-256, hex, of a label table (schema `LABELS`), votes included, in any order of its rows."""
    rows = sorted(map(repr, zip(*(labels[name].to_pylist() for name in LABELS.names), strict=True)))
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def with_added(labels: pa.Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A label table with more labels, after those it has. rows: with columns of `LABELS`."""
    new = pa.Table.from_pylist([dict(row) for row in rows], schema=LABELS)
    return pa.concat_tables([labels.select(LABELS.names).cast(LABELS), new])


def with_changed(labels: pa.Table, changes: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """A label table with other values in some rows. changes: by row number, the columns of `LABELS` that change.

    A figure's subtype goes with it when it is one no more, unless the change says it.
    """
    rows = labels.to_pylist()
    for number, change in changes.items():
        gone = {"subtype": None} if change.get("kind", rows[number]["kind"]) != "mitotic_figure" else {}
        rows[number] = {**rows[number], **gone, **change}
    return pa.Table.from_pylist(rows, schema=LABELS)


def describe(
    parent: pa.Table,
    child: pa.Table,
    *,
    step: str,
    raters: Sequence[str],
    review_set: str,
    parent_file: Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Version:
    """What makes `child` of `parent`: its rows, some of another kind, then those that are new.

    parent_file: whose own history goes on, where it is a version.
    """
    before, after = parent["kind"].to_pylist(), child["kind"].to_pylist()
    kept = zip(before, after[: len(before)], strict=True)
    changed = Counter(f"{old} to {new}" for old, new in kept if old != new)
    older = version_of(parent_file) if parent_file else None
    history = () if older is None else (*older.history, {k: v for k, v in asdict(older).items() if k != "history"})
    digest, added = labels_digest(parent), Counter(after[len(before) :])
    return Version(digest, step, tuple(raters), review_set, dict(added), dict(changed), history, notes)


def write_version(labels: pa.Table, version: Version, path: Path) -> bool:
    """Write a version as Parquet, its `Version` in the schema metadata; whether it was new.

    A version is never changed: raises OutputBelongsToAnotherRun where the file is there and holds another one.
    """
    labels = checked_labels(labels, path.name)
    told = json.dumps(asdict(version), ensure_ascii=False, sort_keys=True)
    if path.exists():
        if _holds(path, labels, told):
            return False
        raise OutputBelongsToAnotherRun(
            f"{path.name} is there, and holds other labels. Give the new version another name."
        )
    with replacing(path) as part:
        pq.write_table(labels.replace_schema_metadata({METADATA: told}), part)
    return True


def version_of(path: Path) -> Version | None:
    """What a Parquet file says of its version; None for any other file. Raises BadLabels where it cannot be."""
    try:
        told = (pq.read_schema(path).metadata or {}).get(METADATA)
    except (pa.ArrowException, OSError):
        return None
    if told is None:
        return None
    try:
        facts = json.loads(told)
        lists = {name: tuple(facts[name]) for name in ("raters", "history")}
        return Version(**{**facts, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise BadLabels(f"{path.name} says of its version what cannot be read ({type(error).__name__}).") from error


def _holds(path: Path, labels: pa.Table, told: str) -> bool:
    try:
        there = pq.read_table(path)
    except (pa.ArrowException, OSError):
        return False
    same = (there.schema.metadata or {}).get(METADATA) == told.encode()
    return same and labels_digest(there) == labels_digest(labels)
