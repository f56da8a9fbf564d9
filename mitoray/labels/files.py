"""One way in and one way out for every annotation format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels import coco, geojson, sliderunner, sliderunner_writer, tabular
from mitoray.labels.schema import LABELS
from mitoray.labels.source import first_bytes, load_json, local_file, naming_errors, short_name
from mitoray.labels.table import checked_labels

Dialect = Literal["midog", "coco", "sliderunner", "geojson", "csv", "parquet"]
"""`midog` is COCO with boxes `[x1, y1, x2, y2]`; `coco` has `[x, y, width, height]`."""

_SUFFIXES: dict[str, Dialect] = {
    ".csv": "csv",
    ".geojson": "geojson",
    ".json": "coco",
    ".parquet": "parquet",
    ".sqlite": "sliderunner",
}


def read_labels(
    uri: str | Path,
    dialect: Dialect | None = None,
    *,
    dataset: str | None = None,
    classes: Mapping[str, str] | None = None,
) -> pa.Table:
    """Labels of an annotation file, in the schema `LABELS`.

    uri: a path, an fsspec URI, or a local folder of QuPath GeoJSON files, one per slide. The `slide_id` is the slide's
    file name without suffix. dialect: by default told from the content. dataset: fills the column where the file does
    not say it. classes: the file's class names to kinds, beyond the names that `kind_of` knows. A box or outline counts
    as its centre, also where it reaches past the image. Raises BadLabels, naming the record, for what cannot be read;
    what is left out is logged with its count.
    """
    path, source = local_file(str(uri)), short_name(str(uri))
    with naming_errors(source):
        dialect = dialect or _dialect_of(path, source)
        match dialect:
            case "midog" | "coco":
                table = coco.read(load_json(path, source), source, dialect, classes)
            case "sliderunner":
                table = sliderunner.read(path, source, classes)
            case "geojson":
                table = geojson.read(path, source, classes)
            case "csv":
                table = tabular.read_csv(path, source, classes)
            case "parquet":
                table = tabular.read_parquet(path, source, classes)
            case _:
                raise _unknown_dialect(dialect)
    if dataset is not None:
        column = LABELS.get_field_index("dataset")
        table = table.set_column(column, LABELS.field(column), table["dataset"].fill_null(dataset))
    return table


def write_labels(table: pa.Table, path: str | Path, dialect: Dialect | None = None, *, slide_suffix: str = "") -> None:
    """Writes a label table of the schema `LABELS`; the file is replaced whole, never left half written.

    dialect: by default told from the suffix: .json COCO, .sqlite SlideRunner, .geojson QuPath, .csv, .parquet; a path
    without suffix is a folder of QuPath GeoJSON files, one per slide. slide_suffix: appended to the `slide_id` where a
    format names slide files (".svs"), so that SlideRunner finds them. COCO, GeoJSON, CSV and Parquet hold every column;
    SlideRunner has no place for `dataset` and `domain`.
    """
    path = Path(path)
    dialect = dialect or ("geojson" if not path.suffix else _SUFFIXES.get(path.suffix.lower()))
    table = checked_labels(table, path.name)
    match dialect:
        case "midog" | "coco":
            coco.write(table, path, dialect, slide_suffix)
        case "sliderunner":
            sliderunner_writer.write(table, path, slide_suffix)
        case "geojson":
            geojson.write(table, path)
        case "csv":
            tabular.write_csv(table, path)
        case "parquet":
            tabular.write_parquet(table, path)
        case _:
            raise _unknown_dialect(dialect or path.suffix)


def _dialect_of(path: Path, source: str) -> Dialect:
    if path.is_dir():
        return "geojson"
    start = first_bytes(path)
    if start.startswith(b"SQLite format 3\0"):
        return "sliderunner"
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        document = load_json(path, source)
        if isinstance(document, dict) and "annotations" in document:
            return coco.box_dialect(document, source)
        return "geojson"
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return "csv"
    raise BadLabels(f"{source} is no annotation file that mitoray knows. State one of {', '.join(get_args(Dialect))}.")


def _unknown_dialect(name: str) -> BadLabels:
    return BadLabels(f"No annotation dialect belongs to {name!r}. State one of {', '.join(get_args(Dialect))}.")
