"""Detections, labels and slides from files, checked before anything is counted."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mitoray.errors import BadDetections, BadManifest, BadOption, RefusedUri
from mitoray.evaluation.cohort import EvaluatedSlide
from mitoray.uris import file_system, redact, telling_no_secrets

log = logging.getLogger(__name__)

_DETECTION_COLUMNS: Final = ("slide_id", "x_px", "y_px", "score")
_SLIDE_COLUMNS: Final = {"slide_id": pa.string(), "mpp": pa.float64(), "domain": pa.string(), "area_mm2": pa.float64()}


def read_detections(uri: str) -> pa.Table:
    """Columns `slide_id, x_px, y_px, score` of a Parquet file, or of all those in a folder; a path or fsspec URI.

    Raises BadDetections for a missing column, a null or NaN, or a score outside 0 to 1. Warns, with counts, of negative
    coordinates and of detections at one and the same place; both are kept.
    """
    return checked_detections(*read_tables(uri))


def read_tables(uri: str) -> tuple[pa.Table, str]:
    """A Parquet file, or all those in a folder, as one table; and its name for messages. Raises BadDetections."""
    name = PurePosixPath(redact(uri)).name
    try:
        with telling_no_secrets(uri):
            filesystem, path = file_system(uri)
            return pq.read_table(path, filesystem=filesystem), name
    except RefusedUri:
        raise
    except FileNotFoundError:
        raise BadDetections(f"There are no detections at {name}. Give a Parquet file, or a folder of them.") from None
    except (OSError, pa.ArrowException) as error:
        raise BadDetections(f"{name} cannot be read as Parquet: {type(error).__name__}. Write it again.") from error


def checked_detections(table: pa.Table, source: str) -> pa.Table:
    """The columns that evaluation needs, checked as `read_detections` says. `source` names the file in messages."""
    if missing := [name for name in _DETECTION_COLUMNS if name not in table.column_names]:
        raise BadDetections(
            f"{source} lacks the columns {', '.join(missing)}. Needed are {', '.join(_DETECTION_COLUMNS)}; "
            f"it has {', '.join(table.column_names) or 'none'}."
        )
    types = (pa.string(), pa.float64(), pa.float64(), pa.float64())
    try:
        columns = [table[name].cast(kind) for name, kind in zip(_DETECTION_COLUMNS, types, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadDetections(f"{source} holds a value of the wrong type: {error}. Correct it.") from error
    table = pa.table(columns, names=list(_DETECTION_COLUMNS))
    _refuse(pc.is_null(table["slide_id"]), "no slide_id", source)
    for name in _DETECTION_COLUMNS[1:]:
        _refuse(pc.invert(pc.fill_null(pc.is_finite(table[name]), False)), f"no finite {name}", source)
    _refuse(pc.or_(pc.less(table["score"], 0), pc.greater(table["score"], 1)), "a score outside 0 to 1", source)
    if negative := pc.sum(pc.or_(pc.less(table["x_px"], 0), pc.less(table["y_px"], 0))).as_py():
        log.warning("%s: %d detections lie left of or above the slide; they are kept.", source, negative)
    places = table.select(["slide_id", "x_px", "y_px"]).group_by(["slide_id", "x_px", "y_px"]).aggregate([])
    if doubles := table.num_rows - places.num_rows:
        log.warning(
            "%s: %d detections lie exactly on another one and can only be false; suppress them first.", source, doubles
        )
    return table


def read_slides(uri: str, mpp: float | None = None) -> list[EvaluatedSlide]:
    """Slides of a CSV or Parquet manifest, or of a run's `slides` table.

    Needs `slide_id`; takes `mpp` (µm/px; where null, the argument stands in), `domain`, and `area_mm2` or `tissue_mm2`.
    Slides of `status` failed are left out with a warning: nothing can be found on what could not be opened. Raises
    BadManifest for a missing or doubly used slide_id, BadOption for a slide without µm/px.
    """
    table = _read_table(uri)
    name = PurePosixPath(redact(uri)).name
    if "slide_id" not in table.column_names:
        raise BadManifest(f"The manifest {name} lacks the column slide_id; it has {', '.join(table.column_names)}.")
    if "status" in table.column_names:
        failed = pc.equal(table["status"], "failed")
        _warn_of(table.filter(failed)["slide_id"].to_pylist(), f"{name}: slides that failed are left out")
        table = table.filter(pc.invert(failed))
    if "area_mm2" not in table.column_names and "tissue_mm2" in table.column_names:
        table = table.append_column("area_mm2", table["tissue_mm2"])
    try:
        columns = {
            key: (table[key].cast(kind) if key in table.column_names else pa.nulls(len(table), kind)).to_pylist()
            for key, kind in _SLIDE_COLUMNS.items()
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadManifest(f"The manifest {name} holds a value of the wrong type: {error}. Correct it.") from error
    ids = columns["slide_id"]
    if None in ids or len(set(ids)) < len(ids):
        raise BadManifest(f"The manifest {name} names a slide twice or not at all. Give each its own slide_id.")
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [_slide(row, mpp) for row in rows]


def slides_of(detections: pa.Table, labels: pa.Table, mpp: float | None) -> list[EvaluatedSlide]:
    """The slides that occur in either table, for want of a manifest; domains are the labels' own.

    Warns of slides that have detections but no label of any kind: they are taken to hold no mitotic figure.
    """
    domains: Mapping[str, str | None] = dict(
        zip(labels["slide_id"].to_pylist(), labels["domain"].to_pylist(), strict=True)
    )
    detected = set(pc.unique(detections["slide_id"]).to_pylist())
    _warn_of(detected - domains.keys(), "Slides without any label are taken to hold no mitotic figure")
    return [_slide({"slide_id": i, "domain": domains.get(i)}, mpp) for i in sorted(detected | domains.keys())]


def check_overlap(detections: pa.Table, labels: pa.Table, slides: Sequence[EvaluatedSlide]) -> None:
    """Warn of rows for slides that are not evaluated; raise BadOption where the tables share no slide with them."""
    known = {slide.slide_id for slide in slides}
    for what, table in (("labels", labels), ("detections", detections)):
        present = set(pc.unique(table["slide_id"]).to_pylist())
        if present and not present & known:
            raise BadOption(
                f"None of the slides in the {what} ({_some(present)}) is in the manifest ({_some(known)}). "
                "Write slide_id alike in all tables."
            )
        _warn_of(present - known, f"Slides that are not in the manifest, their {what} left out")


def _slide(row: Mapping[str, Any], mpp: float | None) -> EvaluatedSlide:
    own = row.get("mpp") if row.get("mpp") is not None else mpp
    if own is None or not 0.1 <= own <= 2:
        raise BadOption(
            f"Slide {row['slide_id']} has {'no' if own is None else f'{own} as'} µm per pixel, but distances are "
            "in µm. Give it in the manifest's column mpp, or for all slides by --mpp (0.1 to 2)."
        )
    return EvaluatedSlide(row["slide_id"], own, row.get("domain"), row.get("area_mm2"))


def _read_table(uri: str) -> pa.Table:
    name = PurePosixPath(redact(uri)).name
    convert = pacsv.ConvertOptions(column_types=_SLIDE_COLUMNS, null_values=["", "NA"], strings_can_be_null=True)
    try:
        with telling_no_secrets(uri):
            filesystem, path = file_system(uri)
            if filesystem.isdir(path) or name.endswith((".parquet", ".pq")):
                return pq.read_table(path, filesystem=filesystem)
            with filesystem.open(path, "rb") as file:
                return pacsv.read_csv(file, convert_options=convert)
    except RefusedUri:
        raise
    except FileNotFoundError:
        raise BadManifest(f"There is no manifest at {name}. Check the path.") from None
    except (OSError, pa.ArrowException) as error:
        raise BadManifest(f"The manifest {name} cannot be read as CSV or Parquet: {error}") from error


def _refuse(wrong: pa.ChunkedArray, situation: str, source: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if len(rows):
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise BadDetections(f"{source}: row {rows[0] + 1}{more} has {situation}. Correct or remove it.")


def _warn_of(slide_ids: Iterable[str], situation: str) -> None:
    if ids := sorted(slide_ids):
        log.warning("%s: %d (%s)", situation, len(ids), _some(ids))


def _some(slide_ids: Iterable[str]) -> str:
    ids = sorted(slide_ids)
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
