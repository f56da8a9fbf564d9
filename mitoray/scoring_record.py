"""What MLflow keeps of a scoring job: its model's version, settings, counts, durations, and what failed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mitoray.errors import BadModel, TrackingUnreachable
from mitoray.models.sources import REGISTERED
from mitoray.scoring.config import Resources
from mitoray.scoring.run import RECORD, Run
from mitoray.tracking import RunRef, TrackedRun, version_of
from mitoray.tracking.store import tracking_address

log = logging.getLogger(__name__)

NOTE: Final = "work/mlflow.json"
"""In a run's folder: the MLflow run in which the next attempt goes on, and whether it holds the results."""
NONE: Final = "none"
FAILURES: Final = "failures.json"
_FAILED: Final = ("slide_id", "case_id", "status", "error")


def tracking_of(given: str | None, *models: str | None) -> str | None:
    """Where a run is recorded: where it is told to, else MLFLOW_TRACKING_URI, else nowhere. "none": nowhere at all.

    models: addresses of the models; one of a registry is recorded beside its registry.
    """
    if given == NONE:
        return None
    named = given or os.environ.get("MLFLOW_TRACKING_URI")
    if named or any(model and model.startswith(REGISTERED) for model in models):
        return tracking_address(named)
    return None


@contextmanager
def recorded(run: Run, resources: Resources, tracking_uri: str | None) -> Iterator[RunRef | None]:
    """Record what the block scores, in one MLflow run however often the job is resumed. None records nothing.

    Raises TrackingUnreachable before anything is scored. Once it is, a server that fails is only warned of: the results
    are safe in the run's folder, and the same command once more records them.
    """
    note = _note(run)
    if tracking_uri is None or (run.status == "complete" and note.get("holds") == "complete"):
        yield None
        return
    tracked = TrackedRun.again(note["run_id"], tracking_uri=tracking_uri) if "run_id" in note else None
    if tracked is None:
        data = {"manifest": run.identity.manifest_digest, "model": run.identity.model_digest}
        tracked = TrackedRun.start("score_cohort", tracking_uri=tracking_uri, data=data)
        run.folder.write_json(NOTE, {"run_id": tracked.ref.run_id})
        tracked.log_parameters({"identity": run.identity, "files": run.cohort.files, "resources": resources})
    tracked.set_tags(
        {
            "cohort": run.cohort.name,
            "output": run.folder.shown,
            "attempts": run.attempt,
            "model.version": _version(run.cohort.model, tracking_uri),
            "classifier.version": _version(run.cohort.classifier, tracking_uri),
        }
    )
    try:
        with tracked:
            yield tracked.ref
            _record_results(run, tracked)
    except TrackingUnreachable as unreachable:
        log.warning("%s The results are whole; give the same command again to record them.", unreachable)


def _note(run: Run) -> dict[str, Any]:
    try:
        return dict(run.folder.read_json(NOTE))
    except FileNotFoundError:
        return {}


def _version(model: str | None, tracking_uri: str) -> int | None:
    """The number that a registry gives the model; None for models of elsewhere, or of another registry."""
    if not model or not model.startswith(REGISTERED):
        return None
    try:
        return version_of(model, tracking_uri=tracking_uri)
    except BadModel:  # the registry is another server, and has given the model already
        return None


def _record_results(run: Run, tracked: TrackedRun) -> None:
    record = run.folder.read_json(RECORD)
    counts = record["counts"]
    tracked.set_tags({"status": record["status"]})
    tracked.log_metrics(
        {f"slides/{status}": number for status, number in counts["slides"].items()}
        | {name: number for name, number in counts.items() if name != "slides"}
        | {f"actor_seconds/{stage}": seconds for stage, seconds in record["actor_seconds"].items()}
        | {f"duration_s/{stage}": seconds for stage, seconds in record["duration_s"].items()},
        step=run.attempt,
    )
    failed = failures(run.slides())
    if failed.num_rows:
        tracked.log_table(failed.to_pydict(), FAILURES)
    for name in (RECORD, "slides.csv", "cases.csv"):
        tracked.log_text(run.folder.read_bytes(name).decode(), name)
    run.folder.write_json(NOTE, {"run_id": tracked.ref.run_id, "holds": record["status"]})


def failures(slides: pa.Table) -> pa.Table:
    """The slides of a SLIDES table that were not scored whole, with their errors: slide_id, case_id, status, error."""
    return slides.filter(pc.not_equal(slides["status"], "scored")).select(_FAILED)
