"""Seconds, and growth of the driver's memory, for planning and reducing cohorts of many regions and slides.

    python tests/benchmarks/planning_scale.py --json planning.json
    python tests/benchmarks/planning_scale.py --cohorts 4x25 1133x100

A cohort of 1133x100 has 1,133 slides of 100 regions each, in all of which 5 candidates are found. What is measured and
how is told in `mitoray.benchmark.planning`: `plan` starts from nothing, `resume` finds everything planned and asks what
is left to score, `reduce` goes from there to the SLIDES table. Linux only.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from mitoray.benchmark.planning import COHORTS, plan_alone, reduce_alone, write_scores, write_slide

STEPS = ("plan", "resume", "reduce")


def measured(n_slides: int, n_regions: int) -> dict[str, Any]:
    """All measurements of one cohort of so many slides with so many regions each, in processes of their own."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        write_slide(folder / "slide.svs", n_regions)
        done = []
        for step in (plan_alone, write_scores, reduce_alone):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                done.append(pool.submit(step, folder, n_slides).result())
        n_files = sum(len(list((folder / "run/work" / name).iterdir())) for name in ("plan", "regions"))
    steps = dict(zip(STEPS, [*done[0], *done[2]], strict=True))
    found: dict[str, Any] = {"slides": n_slides, "regions": done[1], "files": n_files}
    return found | {name: {"seconds": one.seconds, "growth_mb": one.growth_mb} for name, one in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = [f"{n_slides}x{n_regions}" for n_slides, n_regions in COHORTS]
    parser.add_argument("--cohorts", nargs="+", default=default, help="slides x regions per slide")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    options = parser.parse_args()
    columns = "".join(f" {name + ' s':>9s} {'MB':>6s}" for name in STEPS)
    print(f"{'slides':>7s} {'regions':>8s} {'files':>6s}{columns}", flush=True)
    results = []
    for cohort in options.cohorts:
        found = measured(*map(int, cohort.split("x")))
        results.append(found)
        columns = "".join(f" {found[name]['seconds']:9.1f} {found[name]['growth_mb']:6.0f}" for name in STEPS)
        print(f"{found['slides']:7,d} {found['regions']:8,d} {found['files']:6,d}{columns}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
