"""The demo cohort, drawn and scored with subtypes and low candidates: what the notebooks look at by default."""

import logging
import os
from pathlib import Path
from typing import Final

import ray

from mitoray.commandline import ray_address
from mitoray.scoring import demo
from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run

CANDIDATE_THRESHOLD: Final = 0.05


def scored_demo(folder: Path | str = "mitoray-demo") -> str:
    """Draw and score the demo below `folder`, and give the run's folder; at once where that is done already.

    Uses the Ray that is connected to, or starts one. Phantoms say nothing about real slides.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    output = Path(folder).resolve() / "run-with-subtypes"
    rows = demo.rows(Path(folder))
    method = Method(candidate_threshold=CANDIDATE_THRESHOLD, detector_threshold=CANDIDATE_THRESHOLD)
    run = Run.claim(Cohort(rows, "mitoray-s", str(output), method, classifier="mitoray-c"))
    if run.status == "complete":
        return str(output)
    started = not ray.is_initialized()
    if started:
        ray.init(ray_address(), include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        draw = ray.remote(demo.draw)
        ray.get([draw.remote(row, index) for index, row in enumerate(rows)])
        score_cohort(run, progress=False)
    finally:
        if started:
            ray.shutdown()
    return str(output)
