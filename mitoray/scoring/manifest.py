"""The slides of a cohort: read from a table or from globs, and checked before any work starts."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mitoray.errors import (
    BadManifest,
    DuplicateSlideId,
    InvalidSlideId,
    MitorayError,
    RefusedUri,
    SlideError,
    StorageUnreachable,
)
from mitoray.storage import file_stem
from mitoray.uris import file_system, options_for, read_file, redact, scheme_of, telling_no_secrets

COLUMNS: Final = ("slide_id", "uri", "case_id", "domain", "mpp", "tissue_uri")
MAX_SLIDE_ID_BYTES: Final = 200
SLIDE_SUFFIXES: Final = (".svs", ".tif", ".tiff", ".btf", ".ndpi", ".scn", ".qptiff", ".ome.tif", ".ome.tiff")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One slide of the cohort. `error` holds why it cannot be taken, found before its file is touched."""

    slide_id: str
    uri: str
    case_id: str | None = None
    domain: str | None = None
    mpp: float | None = None
    tissue_uri: str | None = None
    error: SlideError | None = None


def read_manifest(uri: str, storage_options: Mapping[str, Any] | None = None) -> list[ManifestRow]:
    """Rows of a CSV or Parquet manifest, in its order.

    Needs the columns `slide_id, uri`; takes `case_id, domain, mpp` (µm/px) and `tissue_uri`. Relative slide paths are
    relative to the manifest. Raises `BadManifest` where the table as a whole is unusable; a row that is wrong by itself
    carries its error instead.
    """
    shown = redact(uri)
    try:
        content = io.BytesIO(read_file(uri, storage_options))
        table = _read_table(content, parquet=PurePosixPath(shown).suffix.lower() in {".parquet", ".pq"})
        columns = table.column_names  # an error where they are no text
    except FileNotFoundError:
        raise BadManifest(f"There is no manifest at {shown}. Check the path, or give --slides instead.") from None
    except StorageUnreachable as error:
        raise BadManifest(f"The manifest {error}") from None
    except MitorayError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise BadManifest(f"The manifest {shown} cannot be read as CSV or Parquet: {error}") from error
    if len(set(columns)) < len(columns):
        raise BadManifest(f"The manifest {shown} has two columns of one name: {', '.join(columns)}.")
    missing = [name for name in ("slide_id", "uri") if name not in table.column_names]
    if missing:
        raise BadManifest(
            f"The manifest {shown} lacks the column {' and '.join(missing)}; it has {', '.join(table.column_names)}. "
            "Needed are slide_id and uri; case_id, domain, mpp and tissue_uri are optional."
        )
    if table.num_rows == 0:
        raise BadManifest(f"The manifest {shown} lists no slides.")
    mpp = _numbers(table["mpp"], shown) if "mpp" in table.column_names else [None] * table.num_rows
    try:
        text = {name: _strings(table, name) for name in COLUMNS if name != "mpp"}
    except pa.ArrowException as error:
        raise BadManifest(f"The manifest {shown} holds a column that is no text: {error}") from error
    base = uri.rpartition("/")[0]
    rows = [
        ManifestRow(
            slide_id=text["slide_id"][i] or "",
            uri=_resolved(text["uri"][i], base) or "",
            case_id=text["case_id"][i],
            domain=text["domain"][i],
            mpp=mpp[i],
            tissue_uri=_resolved(text["tissue_uri"][i], base),
        )
        for i in range(table.num_rows)
    ]
    return checked(rows)


def manifest_from_globs(patterns: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> list[ManifestRow]:
    """One row per slide file that the paths, URIs or globs name; the `slide_id` is the file name without its suffix.

    A pattern without wildcards stands for itself, so that a missing file is that slide's failure; a wildcard that
    matches nothing raises `BadManifest`.
    """
    uris: list[str] = []
    for pattern in patterns:
        if not any(mark in pattern for mark in "*?[") or pattern.startswith(("http://", "https://")):
            uris.append(pattern)
            continue
        try:
            with telling_no_secrets(pattern):
                filesystem, path = file_system(pattern, options_for(pattern, storage_options))
                found = sorted(name for name in filesystem.glob(path) if name.lower().endswith(SLIDE_SUFFIXES))
        except StorageUnreachable as error:
            raise BadManifest(str(error)) from None
        if not found:
            raise BadManifest(
                f"{redact(pattern)} matches no slide file ({', '.join(SLIDE_SUFFIXES)}). Quote globs so that the shell "
                "leaves them alone."
            )
        remote = "://" in pattern
        uris.extend(filesystem.unstrip_protocol(name) if remote else name for name in found)
    return checked([ManifestRow(slide_id=slide_id_of(uri), uri=uri) for uri in dict.fromkeys(uris)])


def checked(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """The same rows, those with an unusable or doubly used `slide_id`, or without `uri`, carrying their error."""
    rows = list(rows)
    uses = Counter(row.slide_id for row in rows)
    return [
        ManifestRow(
            _as_text(row.slide_id),
            _as_text(row.uri),
            row.case_id,
            row.domain,
            row.mpp,
            row.tissue_uri,
            _row_error(row, uses),
        )
        for row in rows
    ]


def _as_text(name: str) -> str:
    """The name as tables hold it: bytes of a file name that are no text as \\udc80 and the like."""
    return name.encode("utf-8", "backslashreplace").decode()


def _row_error(row: ManifestRow, uses: Mapping[str, int]) -> SlideError | None:
    problem = _slide_id_problem(row.slide_id)
    if problem:
        return InvalidSlideId(
            f"slide_id {row.slide_id[:60]!r} {problem}. Rename it in the manifest: it names the slide's output files."
        )
    if uses[row.slide_id] > 1:
        return DuplicateSlideId(
            f"slide_id {row.slide_id!r} stands in {uses[row.slide_id]} rows of the manifest. None of them was scored: "
            "give each slide its own slide_id."
        )
    if row.uri != _as_text(row.uri):
        return InvalidSlideId(f"Slide {row.slide_id!r} lies at a path that is no text in UTF-8. Rename the file.")
    if not row.uri:
        return SlideError(f"Slide {row.slide_id!r} has no uri in the manifest.")
    try:
        for uri in (row.uri, row.tissue_uri):
            scheme_of(uri or "")
    except RefusedUri as refused:
        return refused
    return None


def _slide_id_problem(slide_id: str) -> str | None:
    if not slide_id.strip():
        return "is empty"
    if not slide_id.isprintable():
        return "holds line breaks, control characters, or bytes that are no text"
    if len(file_stem(slide_id)) > MAX_SLIDE_ID_BYTES:
        return f"is longer than {MAX_SLIDE_ID_BYTES} bytes"
    if "/" in slide_id or "\\" in slide_id or slide_id.startswith("."):
        return "is not usable as a file name (it holds / or \\, or starts with a dot)"
    return None


def slide_id_of(uri: str) -> str:
    """A slide_id from a path or URI: the file's name without suffix, query or folder."""
    name = PurePosixPath(redact(uri.partition("?")[0]) if "://" in uri else uri).name
    suffix = next(
        (known for known in reversed(SLIDE_SUFFIXES) if name.lower().endswith(known)), PurePosixPath(name).suffix
    )
    return name[: len(name) - len(suffix)]


def manifest_digest(rows: Iterable[ManifestRow]) -> str:
    """SHA-256 of what the manifest says of its slides, free of credentials and order."""
    lines = sorted(
        json.dumps(
            [r.slide_id, redact(r.uri), r.case_id, r.domain, r.mpp, redact(r.tissue_uri) if r.tissue_uri else None]
        )
        for r in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_table(file: Any, *, parquet: bool) -> pa.Table:
    if parquet:
        return pq.read_table(file)
    options = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in COLUMNS}, strings_can_be_null=True, null_values=["", "NA", "nan"]
    )
    parse = pacsv.ParseOptions(newlines_in_values=True)
    return pacsv.read_csv(file, convert_options=options, parse_options=parse)


def _strings(table: pa.Table, name: str) -> list[str | None]:
    if name not in table.column_names:
        return [None] * table.num_rows
    values: list[str | None] = pc.cast(table[name], pa.string()).to_pylist()
    return values


def _numbers(column: pa.ChunkedArray, shown: str) -> list[float | None]:
    try:
        numbers: list[float | None] = pc.cast(column, pa.float64()).to_pylist()
    except pa.ArrowException as error:
        raise BadManifest(
            f"The column mpp of the manifest {shown} must hold µm per pixel as numbers: {error}"
        ) from error
    return numbers


def _resolved(uri: str | None, base: str) -> str | None:
    if not uri or not base or "://" in uri or uri.startswith("/"):
        return uri
    return f"{base}/{uri}"
