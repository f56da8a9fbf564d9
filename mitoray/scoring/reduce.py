"""Reduce one slide's region scores to detections, fields of view and a summary row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mitoray.counting.hotspot import Hotspot
from mitoray.evaluation.matching import nms
from mitoray.scoring.config import Method
from mitoray.scoring.counts import count_slide, points_px
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import core_rect
from mitoray.scoring.schema import DETECTIONS, SCORES, SLIDES
from mitoray.slide import Tissue, redact
from mitoray.storage import Folder

_GONE: Final = "RegionLost: the table with its scores is gone from the output. Run again."


@dataclass(frozen=True)
class SlideResult:
    """What a run says of one slide: its SLIDES row (file names not yet set), its detections, its fields of view."""

    row: dict[str, Any]
    detections: pa.Table
    fields_of_view: Sequence[Hotspot] = ()


def failed_slide(source: ManifestRow, error: str) -> dict[str, Any]:
    """The SLIDES row of a slide that could not be opened."""
    return _row(source, "failed", error)


def slide_scores(folder: Folder, files: Sequence[str], slide_id: str) -> pa.Table:
    """The SCORES rows of one slide, from the score tables that hold them."""
    # Each on its own: tables of a run that an earlier version began lack columns.
    own = [table.filter(pc.equal(table["slide_id"], slide_id)).cast(SCORES) for table in folder.tables(files)]
    return pa.concat_tables(own) if own else SCORES.empty_table()


def reduce_slide(
    source: ManifestRow,
    plan: Mapping[str, Any],
    scores: pa.Table,
    method: Method,
    threshold: float,
    calibrated: bool = False,
) -> SlideResult:
    """Detections of one slide, best first, and its counts.

    plan: the slide's PLAN row. scores: its SCORES rows; a region that was tried again has several, of which a scored
    one wins, and one that has none counts as lost. Of the candidates in tissue the best of each group within
    `nms_radius_um` stays. Those whose score reaches `threshold` count; with a lower `candidate_threshold` the
    detections hold more. calibrated: whether scores are probabilities, so that the count has an interval from them.
    """
    mpp = plan["mpp"]
    tissue = Tissue.from_png(plan["tissue_png"], plan["width_px"], plan["height_px"], mpp)
    scored, lost = _by_outcome(scores, plan["cores"])
    unscored_mm2 = sum(tissue.area_mm2(core_rect(row)) for row in lost)
    n_regions = len(plan["cores"])
    row = _row(
        source,
        "scored" if not lost else "partial" if len(lost) < n_regions else "failed",
        _loss(lost, n_regions, unscored_mm2),
        mpp=mpp,
        mpp_source=plan["mpp_source"],
        tissue_mm2=plan["tissue_mm2"],
        unscored_mm2=unscored_mm2,
        n_regions=n_regions,
        n_failed_regions=len(lost),
        threshold=threshold,
    )
    if row["status"] == "failed":
        return SlideResult(row, DETECTIONS.empty_table())
    lowest = threshold if method.candidate_threshold is None else method.candidate_threshold
    detections = _suppressed(_candidates(scored, source.slide_id, lowest), tissue, method.nms_radius_um / mpp)
    counts = count_slide(detections, tissue, method, threshold, calibrated)
    return SlideResult(row | counts.columns, detections, counts.fields_of_view)


def _row(source: ManifestRow, status: str, error: str | None, **known: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SLIDES.names)
    identity = {name: getattr(source, name) for name in ("slide_id", "case_id", "domain")}
    return row | identity | {"uri": redact(source.uri), "status": status, "error": error} | known


def _by_outcome(scores: pa.Table, cores: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, list[Mapping[str, Any]]]:
    """The scored rows, and one for each region that no attempt could score, or whose scores are gone."""
    scored = scores.filter(pc.equal(scores["status"], "scored"))
    done = {(row["x_px"], row["y_px"]) for row in scored.select(["x_px", "y_px"]).to_pylist()}
    failed = scores.filter(pc.equal(scores["status"], "failed")).drop(["candidates"]).to_pylist()
    gone = [{**core, "error": _GONE} for core in cores]
    lost = {(row["x_px"], row["y_px"]): row for row in [*gone, *failed] if (row["x_px"], row["y_px"]) not in done}
    return scored, [lost[key] for key in sorted(lost)]


def _loss(lost: Sequence[Mapping[str, Any]], n_regions: int, unscored_mm2: float) -> str | None:
    if not lost:
        return None
    return f"{len(lost)} of {n_regions} regions, {unscored_mm2:.2f} mm² of tissue, not scored. {lost[0]['error']}"


def _candidates(scored: pa.Table, slide_id: str, lowest: float) -> pa.Table:
    flat = pa.Table.from_struct_array(pc.list_flatten(scored["candidates"].combine_chunks()))
    flat = flat.add_column(0, DETECTIONS.field("slide_id"), pa.array([slide_id] * flat.num_rows, pa.string()))
    return flat.cast(DETECTIONS).filter(pc.greater_equal(flat["score"], lowest))


def _suppressed(candidates: pa.Table, tissue: Tissue, radius_px: float) -> pa.Table:
    inside = candidates.filter(pa.array(tissue.contains(points_px(candidates))))
    kept = nms(points_px(inside), inside["score"].to_numpy(), radius_px)
    order = [("score", "descending"), ("y_px", "ascending"), ("x_px", "ascending")]
    return inside.take(pa.array(kept)).sort_by(order)
