"""Seconds, and growth of the driver's memory, for planning and reducing cohorts of many regions and slides.

    python tests/benchmarks/planning_scale.py --json planning.json
    python tests/benchmarks/planning_scale.py --cohorts 4x25 1133x100

A cohort of 1133x100 has 1,133 slides of 100 regions each. Its slides are one small file under many names, tissue all
over, which every task opens, looks at and cuts for itself on a real Ray. Between plan and reduce the score tables are
written as the scoring actors would, with 5 candidates in each region. Each measurement has a process of its own: `plan`
starts from nothing, `resume` finds everything planned and asks what is left to score, `reduce` goes from there to the
SLIDES table. Growth is the highest resident memory that was sampled, less that after Ray started and the model was
loaded; Linux only.
"""

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import tifffile

from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.planning import plan_cohort
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.run import CHECKPOINT, REGION_TABLES, SCORE_TABLES, Run
from mitoray.scoring.schema import SCORES

REGION_UM = 64.0
REGION_PX = 256
MPP = 0.25
CANDIDATES = 5
BLOCK_ROWS = 64
"""Regions per score table: as many as large runs have."""
COHORTS = ("4x25", "100x100", "100x1000", "1133x100")


def write_slide(path: Path, n_regions: int) -> None:
    """A square slide, stained all over, of the next square number of regions."""
    side = math.ceil(math.sqrt(n_regions)) * REGION_PX
    description = f"Aperio Image Library v12|AppMag = 40|MPP = {MPP}"
    with tifffile.TiffWriter(path) as tiff:
        for downsample in (1, 4, 16, 64):
            pixels = np.empty((side // downsample, side // downsample, 3), np.uint8)
            pixels[:] = (200, 120, 170)
            tile = max(16, min(256, side // downsample // 16 * 16))
            options = {"tile": (tile, tile), "compression": "jpeg", "photometric": "rgb", "metadata": None}
            tiff.write(pixels, description=description, **options)
            if downsample == 1:
                tiff.write(pixels[:64, :64], photometric="rgb", metadata=None, description="Aperio thumbnail")


def claimed(folder: Path, n_slides: int) -> Run:
    """The cohort's run, taken up where it stands."""
    rows = [ManifestRow(f"slide-{place:06d}", str(folder / "slide.svs")) for place in range(n_slides)]
    return Run.claim(Cohort(rows, "mitoray-s", str(folder / "run"), Method(region_um=REGION_UM)))


def write_scores(run: Run) -> None:
    """Score tables and checkpoint of all regions, as scoring leaves them."""
    rng = np.random.default_rng(0)
    for subfolder in (SCORE_TABLES, CHECKPOINT):
        Path(run.folder.path(subfolder)).mkdir(parents=True, exist_ok=True)
    regions = pq.read_table(run.folder.path(REGION_TABLES))
    for number, first in enumerate(range(0, regions.num_rows, BLOCK_ROWS)):
        block = regions.slice(first, BLOCK_ROWS).to_pylist()
        rows = [
            {name: region[name] for name in ("region_id", "slide_id", "x_px", "y_px", "width_px", "height_px")}
            | {"status": "scored", "error": None}
            | {"candidates": [candidate(region, *rng.random(3)) for _ in range(CANDIDATES)]}
            for region in block
        ]
        table = pa.Table.from_pylist(rows, schema=SCORES)
        pq.write_table(table, run.folder.path(f"{SCORE_TABLES}/{number:06d}.parquet"))
        pq.write_table(table.select(["region_id"]), run.folder.path(f"{CHECKPOINT}/{number:06d}.parquet"))


def candidate(region: dict[str, Any], x: float, y: float, score: float) -> dict[str, Any]:
    """A candidate somewhere in the region."""
    point = {"x_px": region["x_px"] + x * region["width_px"], "y_px": region["y_px"] + y * region["height_px"]}
    return point | {"detector_score": score, "score": score}


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def watched(measured: dict[str, float]) -> Iterator[None]:
    """Put the block's seconds and growth of resident memory, MB, into `measured`."""
    before = peak = resident_mb()
    stop = threading.Event()

    def look() -> None:
        nonlocal peak
        while not stop.wait(0.01):
            peak = max(peak, resident_mb())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    started = time.perf_counter()
    yield
    measured["seconds"] = round(time.perf_counter() - started, 2)
    stop.set()
    thread.join()
    measured["growth_mb"] = round(max(peak, resident_mb()) - before, 1)


def measured_plan(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {}
    run.write_record("running")
    with watched(found):
        plan_cohort(run, progress=False)
    return {"plan": found, "regions": run.region_counts().total()}


def measured_reduce(run: Run) -> dict[str, Any]:
    resume: dict[str, float] = {}
    reduce: dict[str, float] = {}
    with watched(resume):
        plans = plan_cohort(run, progress=False)
        n_open = (run.region_counts() - run.scored_counts()).total()
    with watched(reduce):
        slides = reduce_cohort(run, plans, progress=False)
    assert n_open == 0
    assert set(slides["status"].to_pylist()) == {"scored"}
    return {"resume": resume, "reduce": reduce}


def measured(n_slides: int, n_regions: int, cpus: int) -> dict[str, Any]:
    """All measurements of one cohort of so many slides with so many regions each, in processes of their own."""
    with tempfile.TemporaryDirectory() as base:
        write_slide(Path(base) / "slide.svs", n_regions)
        results: dict[str, Any] = {"slides": n_slides}
        for step in ("plan", "scores", "reduce"):
            command = [sys.executable, __file__, "--step", step, base, "--slides", str(n_slides), "--cpus", str(cpus)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            results |= json.loads(done.stdout.splitlines()[-1])
        files = {name: len(list((Path(base) / "run/work" / name).iterdir())) for name in ("plan", "regions")}
    return results | {"files": files}


def step(name: str, folder: Path, n_slides: int, cpus: int) -> dict[str, Any]:
    """One step of one cohort, in this process."""
    run = claimed(folder, n_slides)
    if name == "scores":
        write_scores(run)
        return {}
    ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    steps: dict[str, Callable[[Run], dict[str, Any]]] = {"plan": measured_plan, "reduce": measured_reduce}
    return steps[name](run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cohorts", nargs="+", default=COHORTS, help="slides x regions per slide")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs of the Ray that is started")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--slides", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step[0], Path(options.step[1]), options.slides, options.cpus)))
        return
    print(f"{'slides':>7s} {'regions':>8s} {'files':>6s}", end="")
    print("".join(f" {name + ' s':>9s} {'MB':>6s}" for name in ("plan", "resume", "reduce")))
    results = []
    for cohort in options.cohorts:
        n_slides, n_regions = map(int, cohort.split("x"))
        found = measured(n_slides, n_regions, options.cpus)
        results.append(found)
        print(f"{found['slides']:7,d} {found['regions']:8,d} {sum(found['files'].values()):6,d}", end="")
        steps = [found[name] for name in ("plan", "resume", "reduce")]
        print("".join(f" {one['seconds']:9.1f} {one['growth_mb']:6.0f}" for one in steps), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
