"""What is known of each case: its patient, domain and published split."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitoray.errors import BadLabels
from mitoray.labels.schema import LABELS
from mitoray.labels.source import first_bytes, local_file, short_name
from mitoray.labels.tabular import read_text_columns

DOMAIN_PARTS: Final = ("tumor", "scanner", "laboratory", "species")

CASES: Final = pa.schema(
    [pa.field(name, pa.string()) for name in ("slide_id", "case_id", "domain", *DOMAIN_PARTS, "split")]
)
"""Columns of a case table, one row per slide: text, null if unknown, `slide_id` and `case_id` never."""

_MIDOG_NAMES: Final = {
    "Slide": "slide_id",
    "Tumor": "tumor",
    "Scanner": "scanner",
    "Origin": "laboratory",
    "Species": "species",
    "Dataset": "split",
}

_SPELLINGS: Final = {"Hamammatsu XR": "Hamamatsu XR", "canine lymphoma": "canine lymphosarcoma"}
"""MIDOG++ spells one scanner in two ways in its case table, and one tumour differently from its annotation file."""


def read_cases(uri: str | Path) -> pa.Table:
    """Cases from a CSV or Parquet table, schema `CASES`: a manifest, or MIDOG++'s datasets_xvalidation.csv.

    Needs `slide_id`. A missing `case_id` is the `slide_id`; a missing `domain` is what is known of tumour, scanner,
    laboratory and species, joined by commas. MIDOG++ numbers its slides: 7 becomes 007, as its files are called.
    Raises BadLabels.
    """
    table, source = read_columns(uri)
    from_midog = {"Slide", "Tumor"} <= set(table.column_names)
    if from_midog:
        table = table.rename_columns([_MIDOG_NAMES.get(name, name) for name in table.column_names])
    if "slide_id" not in table.column_names:
        raise BadLabels(f"{source} has no column slide_id. It has {', '.join(table.column_names)}.")
    rows = [
        {name: None if row.get(name) is None else str(row[name]) for name in CASES.names} for row in table.to_pylist()
    ]
    for record, row in enumerate(rows, start=1):
        if not row["slide_id"]:
            raise BadLabels(f"{source}: record {record} has no slide_id. Give it one.")
        if from_midog:
            row |= {name: _SPELLINGS.get(value or "", value) for name, value in row.items()}
            row["slide_id"] = (row["slide_id"] or "").zfill(3)
        row["case_id"] = row["case_id"] or row["slide_id"]
        row["domain"] = row["domain"] or ", ".join(part for name in DOMAIN_PARTS if (part := row[name])) or None
    cases = pa.Table.from_pylist(rows, schema=CASES)
    if len(cases) != len(pc.unique(cases["slide_id"])):
        raise BadLabels(f"{source} lists a slide_id more than once. Keep one row per slide.")
    return cases


def read_columns(uri: str | Path) -> tuple[pa.Table, str]:
    """All columns of a CSV (as text) or Parquet table, and its name for messages. Raises BadLabels."""
    path, source = local_file(str(uri)), short_name(str(uri))
    if not first_bytes(path).startswith(b"PAR1"):
        return read_text_columns(path, source), source
    try:
        return pq.read_table(path), source
    except (pa.ArrowException, OSError) as error:
        raise BadLabels(f"{source} is no complete Parquet file. Write or fetch it again.") from error


def with_domains(labels: pa.Table, cases: pa.Table) -> pa.Table:
    """The labels, with the domain that `cases` gives their slide. Raises BadLabels for a slide that is no case."""
    domains = dict(zip(cases["slide_id"].to_pylist(), cases["domain"].to_pylist(), strict=True))
    slides = labels["slide_id"].to_pylist()
    refuse_strangers(slides, domains)
    column = pa.array([domains[slide_id] for slide_id in slides], pa.string())
    return labels.set_column(LABELS.get_field_index("domain"), LABELS.field("domain"), column)


def refuse_strangers(slides: list[str], known: dict[str, object]) -> None:
    """Raises BadLabels if a labelled slide is not among the known ones."""
    if strangers := sorted(set(slides) - set(known)):
        raise BadLabels(
            f"{len(strangers)} labelled slides are not in the case table, as {strangers[0]!r}. Add them, or remove "
            "their labels."
        )
