"""Label tables as CSV and Parquet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mitoray.errors import BadLabels
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import LABELS
from mitoray.labels.source import replacing
from mitoray.labels.table import checked_labels, slide_id_of, votes_from_text, votes_to_text

_NEEDED: Final = ("slide_id", "x_px", "y_px", "kind")
_OPTIONAL: Final = tuple(name for name in LABELS.names if name not in _NEEDED)

_FILE_NAMES: Final = ("filename", "file_name", "slide", "image")
"""Columns that give a slide by its file, taken in place of a missing `slide_id`."""


def read_csv(path: Path, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    """Labels of a CSV file with a header.

    Needs `slide_id` (or `filename`), `x_px, y_px, kind`; takes the rest of `LABELS`. `votes` is JSON:
    `[["rater", "kind"], ...]`. Separated by commas, semicolons or tabs. Raises BadLabels.
    """
    table = read_text_columns(path, source)
    if "votes" in table.column_names:
        texts = table["votes"].to_pylist()
        votes = [votes_from_text(text, f"{source}: record {n}") for n, text in enumerate(texts, start=1)]
        table = table.set_column(
            table.column_names.index("votes"), "votes", pa.array(votes, LABELS.field("votes").type)
        )
    return _labels(table, source, classes)


def read_parquet(path: Path, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    """Labels of a Parquet file with the columns of `LABELS`, of which `slide_id, x_px, y_px, kind` are needed."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadLabels(f"{source} is no complete Parquet file. Write or fetch it again.") from error
    return _labels(table, source, classes)


def write_csv(table: pa.Table, path: Path) -> None:
    """The columns of `LABELS`; `votes` as JSON text, null as nothing."""
    votes = [votes_to_text(votes) if votes else None for votes in table["votes"].to_pylist()]
    table = table.set_column(LABELS.get_field_index("votes"), "votes", pa.array(votes, pa.string()))
    with replacing(path) as part:
        pyarrow.csv.write_csv(table, part)


def write_parquet(table: pa.Table, path: Path) -> None:
    """The columns of `LABELS`, as they are."""
    with replacing(path) as part:
        pq.write_table(table, part)


def read_text_columns(path: Path, source: str) -> pa.Table:
    """A CSV file with a header, every column as text: 001 stays what it is. Empty is null. Raises BadLabels."""
    with path.open("rb") as file:
        header = file.readline()
    delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    names = [name.strip().strip('"') for name in header.decode("utf-8-sig", "replace").strip().split(delimiter)]
    if len(set(names)) < len(names):
        raise BadLabels(f"{source} has two columns of one name: {', '.join(names)}. Rename one.")
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    try:
        return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadLabels(f"{source} is no CSV table with a header and rows of one length ({error}).") from error


def _labels(table: pa.Table, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    columns: dict[str, Any] = {name: table[name] for name in table.column_names if name in LABELS.names}
    if "slide_id" not in columns:
        by_file = next((name for name in table.column_names if name.lower() in _FILE_NAMES), None)
        if by_file is not None:
            columns["slide_id"] = pa.array(
                [name and slide_id_of(name) for name in table[by_file].to_pylist()], pa.string()
            )
    if missing := [name for name in _NEEDED if name not in columns]:
        raise BadLabels(
            f"{source} lacks the columns {', '.join(missing)}. Needed are {', '.join(_NEEDED)}; "
            f"{', '.join(_OPTIONAL)} are optional. It has {', '.join(table.column_names) or 'none'}."
        )
    for name in _OPTIONAL:
        columns.setdefault(name, pa.nulls(len(table)))
    try:
        labels = pa.table({name: pc.cast(columns[name], LABELS.field(name).type) for name in LABELS.names})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadLabels(f"{source} holds a value of the wrong type: {error}. Correct it.") from error
    kinds = [kind and kind_of(kind, classes) for kind in labels["kind"].to_pylist()]
    labels = labels.set_column(labels.column_names.index("kind"), "kind", pa.array(kinds, pa.string()))
    return checked_labels(labels, source)
