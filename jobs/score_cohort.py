"""Score a cohort of slides: detections, mitotic counts and hotspots, from disk or object storage.

    python jobs/score_cohort.py                                            (the demo: six phantom slides)
    python jobs/score_cohort.py --slides "s3://bucket/slides/*.svs" --output s3://bucket/out
    python jobs/score_cohort.py --manifest cohort.csv --model models:/mitoray@champion --output out
    python jobs/score_cohort.py --manifest cohort.csv --classifier models:/mitoray-c@champion --output out

The same command again resumes a run, and tries again what failed. Exit status: 0 all slides scored, 2 bad arguments or
manifest (nothing was started), 3 some slides failed or were scored in part (each is named), 4 stopped by SIGTERM after
the regions in hand, 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Under `uv run` Ray would copy the project and build a second environment for its workers, and it would report usage.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import ray

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import (
    BadManifest,
    BadModel,
    BadOption,
    OutputBelongsToAnotherRun,
    OutputUnreachable,
    TrackingUnreachable,
)
from mitoray.logs import LogFormat, LogLevel, LogSettings
from mitoray.report.cards import keep_cards
from mitoray.report.cohort_report import REPORT, ReportSource, write_report
from mitoray.report.text import as_text
from mitoray.scoring import demo
from mitoray.scoring.config import Cohort, Files, Method, Resources
from mitoray.scoring.demo_run import draw_demo
from mitoray.scoring.manifest import ManifestRow, manifest_from_globs, read_manifest
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.stopping import StopRequest, stop_on_sigterm
from mitoray.scoring.tasks import ray_for_job
from mitoray.scoring_record import NONE, recorded, tracking_of
from mitoray.storage import Folder

DEMO_FOLDER: Final = Path("mitoray-demo")


@dataclass(frozen=True)
class Options:
    """What to score, and where to.

    Args:
        slides: slides by path, URI or glob.
        manifest: CSV or Parquet with slide_id, uri and, where known, case_id, domain, mpp (µm/px), tissue_uri (mask).
        model: mitoray-s (shipped), a bundle's folder or URI, models:/name@alias or models:/name/version, or
            python:package.module:attribute, a detector of your own.
        classifier: second stage, judges the model's candidates: the bundle of a classifier or an ensemble, by folder,
            URI, models:/name@alias or models:/name/version, of the model's µm/px or coarser. Its thresholds count, and
            detections tell atypical figures where it does. None: single-stage, the model's scores are final.
        output: folder or URI for slides.csv, cases.csv, detections/, geojson/, run.json and the rest. Belongs to one
            configuration.
        report: write report.html into the output as well, to look at the slides: see jobs/report.py.
        storage_options: of the object storage as fsspec takes them, JSON or YAML, such as
            '{"endpoint_url": "http://minio:9000"}'. Credentials are better left to the environment or ~/.aws.
        log_level: how much mitoray tells of what it does.
        log_format: text for people, or json: one object per line on standard error, with slide ids; the processes of
            the cluster log so into Ray's own log files.
        mlflow: tracking server or database to record the run in, such as sqlite:///mlruns.db, whose registry holds the
            models:/ addresses; "none" records nothing. None takes MLFLOW_TRACKING_URI, or where that is not set,
            records what a model of a registry scores beside that.
    """

    slides: list[str] | None = None
    manifest: str | None = None
    model: str = "mitoray-s"
    classifier: str | None = None
    output: str | None = None
    report: bool = True
    storage_options: dict[str, Any] | None = None
    log_level: LogLevel = "warning"
    log_format: LogFormat = "text"
    mlflow: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    outside = (OutputBelongsToAnotherRun, OutputUnreachable, TrackingUnreachable)
    return run_job(lambda: run(argv), bad_input=(BadManifest, BadModel, BadOption, *outside))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("score_cohort", __doc__.partition("\n")[0])
    parser.add_argument("--slides", nargs="+", metavar="GLOB", help="slides by path, URI or glob; or else --manifest")
    parser.add_class_arguments(Options, skip={"slides"})
    parser.add_class_arguments(Method)
    parser.add_class_arguments(Resources)
    parser.add_class_arguments(Files)
    options, method, resources, files = parser.parsed(argv, Options, Method, Resources, Files)
    LogSettings(options.log_level, options.log_format).apply()
    is_demo = not (options.manifest or options.slides or options.output)
    if is_demo:
        print(f"Neither --manifest nor --slides is given: scoring the demo, {demo.N_SLIDES} phantom slides (--help).")
        rows = demo.rows(DEMO_FOLDER)
    else:
        rows = _rows(options)
    output = options.output or str(DEMO_FOLDER / "run")
    cohort = Cohort(rows, options.model, output, method, options.storage_options, options.classifier, files)
    scoring = Run.claim(cohort, registry=None if options.mlflow == NONE else options.mlflow)
    tracking = tracking_of(options.mlflow, options.model, options.classifier)
    for_people = options.log_format == "text"
    stop = StopRequest()
    with ray_for_job(log_to_driver=for_people), stop_on_sigterm(stop):
        if scoring.folder.local and len([node for node in ray.nodes() if node["Alive"]]) > 1:
            print(f"{output} is a folder of this node: every node must see it at that path.", file=sys.stderr)
        if is_demo:
            draw_demo(rows)
        with recorded(scoring, resources, tracking) as tracked:
            slides = score_cohort(scoring, resources, progress=for_people, stop=stop)
        if is_demo:
            print(as_text(demo.compare(slides, scoring.folder)))
        status = _told(slides, scoring.folder)
        if tracked:
            print(f"Recorded as {tracked}.")
        if options.report:
            _report(scoring, options)
    return status


def _report(scoring: Run, options: Options) -> None:
    """The page on which to look at the results. They are safe already, so that its failing is told and no more."""
    models = {"model": scoring.bundle, **({"classifier": scoring.classifier} if scoring.classifier else {})}
    uris = {row.slide_id: row.uri for row in scoring.cohort.rows}
    try:
        keep_cards(scoring.folder, models)
        size = write_report(ReportSource(scoring.folder, options.storage_options, uris))
        print(f"Report: {scoring.folder.shown}/{REPORT} ({size / 1e6:.1f} MB)")
    except Exception as error:
        logging.getLogger("mitoray").debug("The report failed", exc_info=error)
        told = f"{type(error).__name__}: {error}"
        print(f"The report could not be written: {told}. jobs/report.py tries again.", file=sys.stderr)


def _rows(options: Options) -> list[ManifestRow]:
    if not options.output:
        raise BadOption("Give --output, a folder or URI for the results.")
    if bool(options.manifest) == bool(options.slides):
        raise BadOption("Give either --manifest or --slides.")
    if options.manifest:
        return read_manifest(options.manifest, options.storage_options)
    return manifest_from_globs(options.slides or [], options.storage_options)


def _told(slides: pa.Table, folder: Folder) -> int:
    """Tell how it went, and every slide that failed by name; returns the exit status."""
    rows = slides.to_pylist()
    wanting = [row for row in rows if row["status"] != "scored"]
    counts = [row["n_detections"] for row in rows if row["n_detections"] is not None]
    area_mm2 = sum(row["tissue_mm2"] or 0.0 for row in rows)
    print(f"{len(rows) - len(wanting)} of {len(rows)} slides scored whole: ", end="")
    print(f"{sum(counts):,} mitotic figures in {area_mm2:,.2f} mm² of tissue.")
    print(f"Results: {folder.shown} (slides.csv, cases.csv, slides/, cases/, detections/, geojson/, run.json)")
    for row in wanting:
        print(f"{row['status']}: {row['slide_id']!r}: {row['error']}", file=sys.stderr)
    return PARTLY_FAILED if wanting else DONE


if __name__ == "__main__":
    sys.exit(main())
