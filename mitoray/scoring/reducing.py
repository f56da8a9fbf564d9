"""Reduce a cohort: one CPU task per slide, which reads its own plan and the score tables that hold its regions."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mitoray.scoring.config import Files, Method
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import named
from mitoray.scoring.progress import slide_bar
from mitoray.scoring.reduce import failed_slide, reduce_slide, slide_scores
from mitoray.scoring.results import write_slide
from mitoray.scoring.schema import PLAN, SLIDES
from mitoray.scoring.stopping import StopRequest
from mitoray.scoring.tasks import in_tasks
from mitoray.scoring.work import PlanRef, Work
from mitoray.storage import Folder

if TYPE_CHECKING:  # a run knows its models, and tasks have no need to import torch
    from mitoray.scoring.metrics import RunMetrics
    from mitoray.scoring.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counting:
    """How slides are reduced. `default` and `by_domain`: thresholds of the model that decides."""

    folder: Folder
    method: Method
    files: Files
    default: float
    by_domain: Mapping[str, float]
    calibrated: bool


@dataclass(frozen=True)
class Scored:
    """A manifest row, its place, its plan (None where the row itself is wrong), and its score tables."""

    place: int
    source: ManifestRow
    plan: PlanRef | None
    tables: Sequence[str]


def reduce_cohort(
    run: "Run",
    plans: Mapping[str, PlanRef],
    progress: bool,
    stop: StopRequest | None = None,
    metrics: "RunMetrics | None" = None,
) -> pa.Table:
    """The SLIDES table, in the order of the manifest; each slide's own files are written by its task."""
    model, cohort = run.deciding, run.cohort
    how = Counting(run.folder, cohort.method, cohort.files, model.threshold, model.thresholds, run.calibrated)
    tables = run.work.files_by_slide()
    slides = [
        Scored(place, row, plans.get(row.slide_id), tables.get(row.slide_id, []))
        for place, row in enumerate(cohort.rows)
    ]
    found: dict[int, dict[str, Any]] = {}
    stop = stop or StopRequest()
    with slide_bar("counting", len(slides), progress) as bar:
        for place, row in in_tasks(partial(reduce_one, how), slides, check=stop.check):
            found[place] = row
            bar.update()
            _told(row)
            if metrics:
                failed = sum(row["status"] != "scored" for row in found.values())
                metrics.slides("reduce", len(found), failed, len(slides) - len(found))
    return pa.Table.from_pylist([found[place] for place in range(len(slides))], schema=SLIDES)


def _told(row: Mapping[str, Any]) -> None:
    """Log a slide's outcome."""
    facts = {name: row[name] for name in ("slide_id", "status", "error", "n_detections", "mitotic_count")}
    log.info("slide %r %s", row["slide_id"], row["status"], extra={"stage": "reduce", **facts})


def reduce_one(how: Counting, slide: Scored) -> tuple[int, dict[str, Any]]:
    """The slide's place and its SLIDES row, after its files were written."""
    source = slide.source
    if source.error or slide.plan is None:
        return slide.place, failed_slide(source, named(source.error) if source.error else "")
    # The last row, where an earlier version wrote a slide's failure and its plan into one table.
    plan = Work(how.folder).plan_rows(slide.plan.file, [source.slide_id], PLAN.names).to_pylist()[-1]
    if plan["status"] != "planned":
        return slide.place, failed_slide(source, plan["error"])
    threshold = how.method.threshold_for(source.domain, how.default, how.by_domain)
    scores = slide_scores(how.folder, slide.tables, source.slide_id)
    result = reduce_slide(source, plan, scores, how.method, threshold, how.calibrated)
    return slide.place, write_slide(how.folder, plan, result, how.files)
