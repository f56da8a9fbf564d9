"""The demo drawn, and scored with subtypes and low candidates: what the notebooks look at by default."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mitoray.scoring import demo
from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.tasks import in_tasks, ray_for_job

CANDIDATE_THRESHOLD: Final = 0.05


def draw_demo(rows: Sequence[ManifestRow]) -> None:
    """Draw the demo's slides, several at once, on the Ray cluster that this process is connected to."""
    list(in_tasks(lambda place: demo.draw(rows[place], place), range(len(rows))))


def scored_demo(folder: Path | str = "mitoray-demo") -> str:
    """Draw and score the demo below `folder`, and give the run's folder; at once where that is done already.

    Uses the Ray that is connected to, or starts one. Phantoms say nothing about real slides.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    output = Path(folder).resolve() / "run-with-subtypes"
    rows = demo.rows(Path(folder))
    method = Method(candidate_threshold=CANDIDATE_THRESHOLD, detector_threshold=CANDIDATE_THRESHOLD)
    run = Run.claim(Cohort(rows, "mitoray-s", str(output), method, classifier="mitoray-c"))
    if run.status != "complete":
        with ray_for_job():
            draw_demo(rows)
            score_cohort(run, progress=False)
    return str(output)
