"""Planning and reducing cohorts of many regions and slides: seconds, and what the driver's memory grows by.

The slides of a cohort are one small file under many names, which every task opens, looks at and cuts for itself on a
real Ray. Between plan and reduce the score tables are written as the scoring actors would. Each step has a process of
its own, in which nothing ran before but Ray's start and an empty task.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import tifffile

from mitoray.benchmark.efficiency import fresh
from mitoray.benchmark.rows import Row
from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.planning import plan_cohort
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.schema import CANDIDATE, SCORES
from mitoray.scoring.tasks import in_tasks
from mitoray.scoring.work import CHECKPOINT, REGION_TABLES, SCORE_TABLES

COHORTS: Final = ((4, 25), (100, 100), (100, 1024), (1133, 100))
"""Slides, and regions of each; 1,133 is the number of slides of TCGA-BRCA."""
QUICK: Final = ((4, 25), (10, 100))

MPP: Final = 0.25
REGION_UM: Final = 64.0
REGION_PX: Final = 256
CANDIDATES: Final = 5
"""Of each region."""
BLOCK_ROWS: Final = 64
"""Regions per score table: as many as large runs have."""
_LOOK_S: Final = 0.01


@dataclass(frozen=True)
class Step:
    """What one step took. `growth_mb`: the driver's highest resident memory, less that before the step."""

    name: str
    seconds: float
    growth_mb: float


def planning(folder: Path, quick: bool) -> list[Row]:
    """Seconds and growth of memory of planning, of taking a planned and scored cohort up again, and of reducing it."""
    return [row for cohort in (QUICK if quick else COHORTS) for row in _rows(folder, *cohort)]


def _rows(folder: Path, n_slides: int, n_each: int) -> list[Row]:
    output = fresh(folder, f"planning-{n_slides}x{n_each}")
    output.mkdir(parents=True)
    slide = output / "slide.svs"
    write_slide(slide, n_each)
    planned = _alone(plan_alone, output, n_slides)
    n_regions = _alone(write_scores, output, n_slides)
    rows = []
    for step in (*planned, *_alone(reduce_alone, output, n_slides)):
        what = f"{step.name}, {n_regions:,} regions, {n_slides:,} slides"
        rows.append(Row("planning", what, step.seconds, "s"))
        rows.append(Row("planning", f"{what}: memory of the driver", step.growth_mb, "MB more"))
    return rows


def _alone(step: Callable[[Path, int], Any], output: Path, n_slides: int) -> Any:
    """What a step gives that runs in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(step, output, n_slides).result()


def plan_alone(output: Path, n_slides: int) -> list[Step]:
    """Plan the cohort from nothing."""
    run = claimed(output, n_slides)
    run.write_record("running")
    with _ray():
        plan, _ = _watched("plan", lambda: plan_cohort(run, progress=False))
    return [plan]


def reduce_alone(output: Path, n_slides: int) -> list[Step]:
    """Take the cohort up again with everything planned and scored, and reduce it."""
    run = claimed(output, n_slides)
    with _ray():
        again, (plans, n_open) = _watched("take up again", lambda: (plan_cohort(run, progress=False), _n_open(run)))
        reduce, slides = _watched("reduce", lambda: reduce_cohort(run, plans, progress=False))
    if n_open or set(slides["status"].to_pylist()) != {"scored"}:
        raise ValueError(f"{output} was not scored whole")
    return [again, reduce]


def _n_open(run: Run) -> int:
    return (run.work.region_counts() - run.work.scored_counts()).total()


def claimed(output: Path, n_slides: int) -> Run:
    """The cohort's run, taken up where it stands."""
    rows = [ManifestRow(f"slide-{place:06d}", str(output / "slide.svs")) for place in range(n_slides)]
    return Run.claim(Cohort(rows, "mitoray-s", str(output / "run"), Method(region_um=REGION_UM)))


@contextmanager
def _ray() -> Iterator[None]:
    """A Ray here, warm: what its first task loads is no growth with the cohort."""
    ray.init(
        "local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        for _ in in_tasks(abs, [1]):
            pass
        yield
    finally:
        ray.shutdown()


def _watched(name: str, work: Callable[[], Any]) -> tuple[Step, Any]:
    """What a piece of work took, and gave."""
    before = peak = _resident_bytes()
    stop = threading.Event()

    def look() -> None:
        nonlocal peak
        while not stop.wait(_LOOK_S):
            peak = max(peak, _resident_bytes())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    started = time.perf_counter()
    try:
        given = work()
    finally:
        seconds = time.perf_counter() - started
        stop.set()
        thread.join()
    peak = max(peak, _resident_bytes())
    return Step(name, seconds, (peak - before) / 1e6), given


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- what is planned and reduced


def write_slide(path: Path, n_regions: int) -> None:
    """A square slide, stained all over, of the next square number of regions."""
    side = math.ceil(math.sqrt(n_regions)) * REGION_PX
    description = f"Aperio Image Library v12|AppMag = 40|MPP = {MPP}"
    with tifffile.TiffWriter(path) as tiff:
        for downsample in (1, 4, 16):
            pixels = np.full((side // downsample, side // downsample, 3), (200, 120, 170), np.uint8)
            tile = max(16, min(256, side // downsample // 16 * 16))
            tiff.write(
                pixels,
                description=description,
                tile=(tile, tile),
                compression="jpeg",
                photometric="rgb",
                metadata=None,
            )
            if downsample == 1:
                tiff.write(pixels[:64, :64], photometric="rgb", metadata=None, description="Aperio thumbnail")


def write_scores(output: Path, n_slides: int) -> int:
    """Score tables and checkpoint of all regions, as scoring leaves them; returns the number of regions."""
    run = claimed(output, n_slides)
    rng = np.random.default_rng(0)
    for subfolder in (SCORE_TABLES, CHECKPOINT):
        Path(run.folder.path(subfolder)).mkdir(parents=True, exist_ok=True)
    regions = pq.read_table(run.folder.path(REGION_TABLES))
    for number, first in enumerate(range(0, regions.num_rows, BLOCK_ROWS)):
        table = scores_of(regions.slice(first, BLOCK_ROWS), rng)
        pq.write_table(table, run.folder.path(f"{SCORE_TABLES}/{number:06d}.parquet"))
        pq.write_table(table.select(["region_id"]), run.folder.path(f"{CHECKPOINT}/{number:06d}.parquet"))
    return int(regions.num_rows)


def scores_of(regions: pa.Table, rng: np.random.Generator) -> pa.Table:
    """SCORES rows for REGIONS rows, all scored, with CANDIDATES each at places and scores that chance gives."""
    n = regions.num_rows
    x, y, score = rng.random((3, n, CANDIDATES))
    points = {
        "x_px": (regions["x_px"].to_numpy()[:, None] + x * regions["width_px"].to_numpy()[:, None]).ravel(),
        "y_px": (regions["y_px"].to_numpy()[:, None] + y * regions["height_px"].to_numpy()[:, None]).ravel(),
        "detector_score": score.astype(np.float32).ravel(),
        "score": score.astype(np.float32).ravel(),
    }
    columns = [
        pa.array(points[field.name], field.type) if field.name in points else pa.nulls(n * CANDIDATES, field.type)
        for field in CANDIDATE
    ]
    candidates = pa.StructArray.from_arrays(columns, fields=list(CANDIDATE))
    offsets = pa.array(np.arange(n + 1) * CANDIDATES, pa.int32())
    own = {name: regions[name] for name in SCORES.names if name in regions.column_names}
    outcome = {
        "status": pa.array(["scored"] * n),
        "error": pa.nulls(n, pa.string()),
        "candidates": pa.ListArray.from_arrays(offsets, candidates),
    }
    return pa.table({**own, **outcome}).cast(SCORES)
