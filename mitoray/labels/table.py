"""Rows of any reader, checked and made into the one label table."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mitoray.errors import BadLabels
from mitoray.labels.schema import KINDS, LABELS, SUBTYPES

log = logging.getLogger(__name__)

SLIDE_SUFFIXES: Final = (
    ".bif", ".bmp", ".czi", ".dcm", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".png", ".qptiff", ".scn", ".svs", ".svslide",
    ".tif", ".tiff", ".vms", ".vsi",
)  # fmt: skip


def slide_id_of(file_name: str) -> str:
    """A slide_id from a slide's file name, with or without folders of any system: the name without its suffix.

    Only suffixes of slides and images are taken off, `.ome.tif` as one: an id may hold dots.
    """
    name = PurePosixPath(file_name.replace("\\", "/"))
    if name.suffix.lower() in SLIDE_SUFFIXES:
        name = name.with_suffix("")
        if name.suffix.lower() == ".ome":
            name = name.with_suffix("")
    return name.name


def vote_list(votes: Iterable[tuple[str, str]]) -> list[dict[str, str]] | None:
    """Votes as the table holds them, in the order they were given: (rater, kind) pairs; null for none."""
    return [{"rater": rater, "kind": kind} for rater, kind in votes] or None


def votes_to_text(votes: list[dict[str, str]]) -> str:
    """Votes for a format that holds only text: JSON pairs of rater and kind, in order."""
    return json.dumps([[vote["rater"], vote["kind"]] for vote in votes], ensure_ascii=False)


def votes_from_text(text: str | None, record: str) -> list[dict[str, str]] | None:
    """Votes as `votes_to_text` wrote them. Raises BadLabels, which names `record`."""
    try:
        return vote_list([(str(rater), str(kind)) for rater, kind in json.loads(text or "[]")])
    except (ValueError, TypeError) as error:
        raise BadLabels(f"{record} has votes that are no JSON pairs of rater and kind. Correct them.") from error


def label_table(rows: list[dict[str, Any]], source: str) -> pa.Table:
    """The checked label table of rows with the columns of `LABELS`; absent columns become null."""
    try:
        return checked_labels(pa.Table.from_pylist(rows, schema=LABELS), source)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadLabels(f"{source} holds a value of the wrong type: {error}.") from error


def checked_labels(table: pa.Table, source: str) -> pa.Table:
    """The same labels, in the schema `LABELS`, without exact duplicates.

    `source` names the file in messages. Raises BadLabels for an empty `slide_id` or `kind`, coordinates that are not
    finite, or an unknown subtype, with the record's number, counted from 1. Warns, with counts, of negative coordinates
    (kept: a figure cut by the upper or left edge may have its centre outside), of duplicates (dropped), of one place
    with two kinds (kept), and of kinds that do not count (kept).
    """
    if missing := [name for name in LABELS.names if name not in table.column_names]:
        raise BadLabels(f"{source}: the label table lacks the columns {', '.join(missing)}. Give it the schema LABELS.")
    table = pa.table([_without_blanks(table[name]) for name in LABELS.names], schema=LABELS)
    for name in ("slide_id", "kind"):
        _refuse(pc.is_null(table[name]), f"no {name}", source)
    for name in ("x_px", "y_px"):
        _refuse(pc.invert(pc.fill_null(pc.is_finite(table[name]), False)), f"no finite {name}", source)
    known = pc.is_in(table["subtype"], value_set=pa.array([*SUBTYPES, None]))
    _refuse(pc.invert(known), f"a subtype other than {', '.join(SUBTYPES)}", source)

    if negative := pc.sum(pc.or_(pc.less(table["x_px"], 0), pc.less(table["y_px"], 0))).as_py():
        log.warning("%s: %d labels have their centre left of or above the image; they are kept.", source, negative)
    if others := {k: n for k, n in Counter(table["kind"].to_pylist()).items() if k not in KINDS}:
        log.warning("%s: kinds kept as they are named, not counted as %s: %s", source, " or ".join(KINDS), others)
    return _without_duplicates(table, source)


def _without_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Empty text and empty vote lists say nothing: null."""
    if pa.types.is_string(column.type):
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    if pa.types.is_list(column.type):
        return pc.if_else(pc.equal(pc.list_value_length(column), 0), None, column)
    return column


def _refuse(wrong: pa.ChunkedArray, situation: str, source: str) -> None:
    records = np.flatnonzero(wrong.to_numpy())
    if len(records):
        more = f" and {len(records) - 1} more" if len(records) > 1 else ""
        raise BadLabels(f"{source}: record {records[0] + 1}{more} has {situation}. Correct or remove it.")


def _without_duplicates(table: pa.Table, source: str) -> pa.Table:
    places = list(zip(*(table[name].to_pylist() for name in ("dataset", "slide_id", "x_px", "y_px")), strict=True))
    first: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(zip(places, table["kind"].to_pylist(), strict=True)):
        first.setdefault(key, row)
    if duplicates := len(places) - len(first):
        log.warning("%s: %d duplicate labels dropped (same slide, place and kind).", source, duplicates)
        table = table.take(pa.array(first.values()))
    if contradictions := len(first) - len(set(places)):
        log.warning("%s: %d labels contradict another one at the same place; all are kept.", source, contradictions)
    return table
