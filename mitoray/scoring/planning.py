"""Plan a cohort in tasks that write what they find: the driver holds where each slide's plan stands, no more.

First the slides are opened, a few per task; then the planned ones are cut into regions, in the order of the manifest.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.progress import slide_bar
from mitoray.scoring.schema import REGIONS
from mitoray.scoring.stopping import StopRequest
from mitoray.scoring.tasks import cluster_cpus, in_tasks
from mitoray.scoring.work import PLANS, REGION_TABLES, PlanRef, Work
from mitoray.storage import Folder

if TYPE_CHECKING:  # a run knows its models, and tasks have no need to import torch
    from mitoray.scoring.metrics import RunMetrics
    from mitoray.scoring.run import Run

KEEP_EVERY_S: Final = 30.0
"""A planning task writes what it has this often: little is lost when a run is killed."""
REGION_ROWS: Final = 20_000
"""Regions from which a table is full: few files, and a few MB in memory."""

_TASKS_PER_CPU: Final = 4
_MOST_SLIDES: Final = 16
"""Slides that one task plans: few files in large cohorts, work for every CPU in small ones."""
_CUT_SLIDES: Final = 64
"""Slides that are worth a task of their own to cut."""


@dataclass(frozen=True)
class Batch:
    """Slides that one task plans, and the file for their plans."""

    rows: Sequence[ManifestRow]
    file: str


@dataclass(frozen=True)
class Cut:
    """A planned slide whose regions are wanted; `file` is for them, and for those of slides behind it."""

    plan: PlanRef
    uri: str
    file: str


def plan_cohort(
    run: "Run", progress: bool, stop: StopRequest | None = None, metrics: "RunMetrics | None" = None
) -> dict[str, PlanRef]:
    """Where the plan of each slide stands, those of earlier attempts included.

    A slide that failed before is opened again, one that was planned is not, and none is cut twice.
    """
    cohort, work = run.cohort, run.work
    sizes = {"region_um": cohort.method.region_um, "halo_um": run.halo_um()}
    plans = work.plans()
    rows = [row for row in cohort.rows if not row.error]
    to_plan = [row for row in rows if row.slide_id not in plans or plans[row.slide_id].status != "planned"]
    planning = partial(plan_batch, run.folder, sizes, cohort.storage_options)
    stop = stop or StopRequest()
    done = failed = 0
    with slide_bar("planning", len(to_plan), progress) as bar:
        for refs in in_tasks(planning, _batches(to_plan, work.new_names(PLANS)), check=stop.check):
            plans |= {ref.slide_id: ref for ref in refs}
            bar.update(len(refs))
            done += len(refs)
            failed += sum(ref.status != "planned" for ref in refs)
            if metrics:
                metrics.slides("plan", done, failed, len(to_plan) - done)
    cut = work.region_counts()
    files = work.new_names(REGION_TABLES)
    planned = [row for row in rows if plans[row.slide_id].status == "planned" and row.slide_id not in cut]
    cuts = [Cut(plans[row.slide_id], row.uri, next(files)) for row in planned]
    for _ in in_tasks(partial(cut_regions, run.folder, sizes), _shares(cuts), check=stop.check):
        pass
    return plans


def _batches(rows: Sequence[ManifestRow], files: Iterator[str]) -> list[Batch]:
    if not rows:
        return []
    size = max(1, min(_MOST_SLIDES, len(rows) // int(cluster_cpus() * _TASKS_PER_CPU)))
    return [Batch(rows[first : first + size], next(files)) for first in range(0, len(rows), size)]


def _shares(cuts: Sequence[Cut]) -> list[Sequence[Cut]]:
    """The slides in as many parts as there are CPUs, or fewer, each of slides that follow each other."""
    if not cuts:
        return []
    size = max(_CUT_SLIDES, -(-len(cuts) // int(cluster_cpus())))
    return [cuts[first : first + size] for first in range(0, len(cuts), size)]


def plan_batch(
    folder: Folder, sizes: Mapping[str, float], storage_options: Mapping[str, Any] | None, batch: Batch
) -> list[PlanRef]:
    """Plan some slides one after the other and write their plans, in further files where that takes long."""
    refs: list[PlanRef] = []
    work, plans, file = Work(folder), [], batch.file
    since = time.perf_counter()
    for number, row in enumerate(batch.rows, 1):
        plans.append(plan_slide(row, **sizes, storage_options=storage_options))
        if number < len(batch.rows) and time.perf_counter() - since < KEEP_EVERY_S:
            continue
        work.write_plans(file, plans)
        refs += [PlanRef(plan["slide_id"], plan["status"], file) for plan in plans]
        plans, file = [], f"{batch.file.removesuffix('.parquet')}-{number + 1:02d}.parquet"
        since = time.perf_counter()
    return refs


def cut_regions(folder: Folder, sizes: Mapping[str, float], cuts: Sequence[Cut]) -> None:
    """Write the regions of planned slides, each slide's in one table; a slide without tissue has none."""
    tables: list[pa.Table] = []
    n_rows, file = 0, ""
    for cut, plan in _with_cores(Work(folder), cuts):
        regions = regions_of(plan, cut.uri, **sizes)
        if not regions.num_rows:
            continue
        file = file or cut.file
        tables.append(regions)
        n_rows += regions.num_rows
        if n_rows >= REGION_ROWS:
            folder.write_table(file, pa.concat_tables(tables).cast(REGIONS))
            tables, n_rows, file = [], 0, ""
    if tables:
        folder.write_table(file, pa.concat_tables(tables).cast(REGIONS))


def _with_cores(work: Work, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, dict[str, Any]]]:
    """Each slide with `slide_id`, `mpp` and `cores`, a RECT array, of its plan; a table is read once for neighbours."""
    for file, neighbours in groupby(cuts, lambda cut: cut.plan.file):
        own = {cut.plan.slide_id: cut for cut in neighbours}
        table = work.plan_rows(file, list(own), ["slide_id", "mpp", "status", "cores"])
        # The last row, where an earlier version wrote a slide's failure and its plan into one table.
        places = {slide_id: place for place, slide_id in enumerate(table["slide_id"].to_pylist())}
        for slide_id, cut in own.items():
            place = places[slide_id]
            cores = table["cores"][place].values
            yield cut, {"slide_id": slide_id, "mpp": table["mpp"][place].as_py(), "cores": cores}
