"""Train on one domain, on all but one, or on all; test on each; and show the matrix of F1 and AP, as MIDOG++ does.

    python jobs/domain_matrix.py --protocol single --folds 5 --manifest slides.csv --labels MIDOG++.json --output matrix
    python jobs/domain_matrix.py --protocol every --config matrix.yaml --at-once 8 --mlflow http://mlflow:5000

The same command again runs only what is not done yet. Exit status: 0 every model was trained and judged, 2 bad
arguments or input (nothing was started), 3 some failed (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.evaluation.matrix import Metric, as_csv, as_text, domain_matrix, summary
from mitoray.evaluation.published import beside_published, published_like
from mitoray.evaluation.trials import TRIAL_SCORES, Protocol
from mitoray.ray_address import ray_address
from mitoray.report.matrix_figure import matrix_figure
from mitoray.report.text import as_text as table_text
from mitoray.tracking import TrackedRun
from mitoray.training.augment import Augmentation
from mitoray.training.experiments import Experiment, results, run_experiments
from mitoray.training.feed import Sampling
from mitoray.training.fit import Scaling
from mitoray.training.fit_session import ray_here
from mitoray.training.fitting import Fitting
from mitoray.training.protocols import LabelledSlide, Trial, hold_out_test, plan_trials
from mitoray.training_jobs import (
    Material,
    Model,
    Prepared,
    RecordedBelow,
    assembled,
    claimed,
    prepare,
    seeded,
    trial_rows,
)

PROTOCOLS: tuple[Protocol, ...] = ("single", "leave-one-out", "all")
RECORDED = {"f1": "f1_pooled", "f1_image_mean": "f1_image_mean", "ap": "ap"}
METRICS: tuple[Metric, ...] = ("f1_pooled", "f1_image_mean", "ap")


@dataclass(frozen=True)
class Matrix:
    """Which models to train, and where the results go.

    Args:
        output: folder, on every node, for scores.csv, matrices as CSV and PNG, and every model's bundle. Belongs to one
            configuration.
        protocol: single (a model per domain), leave-one-out (a model per domain that is left out), all (one model), or
            every one of them.
        folds: parts of the training cases, each of which validates once.
        domains: only the rows of these domains; none takes all.
        test_share: share of each domain's cases held out as test where the manifest has no split, 0 to 1.
        at_once: trainings at a time.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    output: Path
    protocol: Literal["single", "leave-one-out", "all", "every"] = "single"
    folds: int = 5
    domains: list[str] | None = None
    test_share: float = 0.2
    at_once: int = 1
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise BadOption(f"at_once must be at least 1, not {self.at_once}.")

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols to run."""
        return PROTOCOLS if self.protocol == "every" else (self.protocol,)


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("domain_matrix", __doc__.partition("\n")[0])
    groups = (Matrix, Material, Model, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    job, material, *parts, scaling = parser.parsed(argv, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    prepared = prepare(material)
    slides = prepared.corpus.labelled(prepared.splits)
    if not any(slide.split for slide in slides):
        slides = hold_out_test(slides, job.test_share)
    trials = [
        trial
        for protocol in job.protocols
        for trial in plan_trials(slides, protocol, job.folds, only=job.domains if protocol != "all" else None)
    ]
    made = [experiment(trial, slides, material, prepared, parts, scaling) for trial in trials]
    settings = {part.__class__.__name__.lower(): asdict(part) for part in parts}
    identity = {**settings, "matrix": {"folds": job.folds, "test_share": job.test_share}, "data": prepared.digests}
    identity["parts"] = {slide.slide_id: slide.split for slide in slides}
    claimed(str(job.output), None, identity)
    print(f"{len(made)} models of {len(slides)} slides in {len({s.domain for s in slides})} domains ({prepared.data}).")
    with ExitStack() as ends:
        tracked = None
        if job.mlflow:
            tracked = ends.enter_context(
                TrackedRun.kept(
                    "domain_matrix", job.output / "mlflow.json", tracking_uri=job.mlflow, data=prepared.digests
                )
            )
            tracked.log_parameters({**settings, "protocol": job.protocol, "folds": job.folds})
        placement = ends.enter_context(ray_here(scaling, ray_address(), job.at_once))
        bar = ends.enter_context(tqdm(total=len(made), desc="models", unit="model", disable=None))
        failed = run_experiments(
            made,
            job.output,
            placement,
            at_once=job.at_once,
            max_failures=scaling.max_failures,
            storage_options=material.storage_options,
            record=RecordedBelow(tracked.ref, RECORDED, "test_domain") if tracked else None,
            done=lambda _: bar.update(),
        )
        figures = told(job, [trial.name for trial in trials], prepared)
        if tracked:
            tracked.log_metrics({"failed_models": len(failed)})
            for name, figure in figures.items():
                tracked.log_figure(figure, f"{name}.png")
            if figures:
                tracked.log_folder(job.output / "tables", "tables")
            print(f"Recorded as {tracked.ref}.")
    for name, error in {**prepared.corpus.failed, **failed}.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed or prepared.corpus.failed else DONE


def experiment(
    trial: Trial,
    slides: Sequence[LabelledSlide],
    material: Material,
    prepared: Prepared,
    parts: Sequence[Any],
    scaling: Scaling,
) -> Experiment:
    """One model of the plan, with a seed of its own."""
    corpus = prepared.corpus
    train, validate = corpus.of(trial.train), corpus.of(trial.validation)
    model, sampling, fitting, augmentation = parts
    training = assembled(material, prepared, train, validate, model, sampling, fitting, augmentation, scaling)
    test = corpus.of(slide.slide_id for slide in slides if slide.split == "test")
    which: dict[str, Any] = {"protocol": trial.protocol, "domain": trial.domain, "fold": trial.fold}
    return Experiment(
        trial.name,
        seeded(training, training.fitting.seed + trial.fold),
        corpus.labels,
        validate,
        test,
        partial(trial_rows, **which),
        prepared.origin(material, (f"Trained for a domain matrix: {trial.name}.",)),
        prepared.data,
        which,
    )


def told(job: Matrix, names: Sequence[str], prepared: Prepared) -> dict[str, Any]:
    """Write scores, matrices and figures of all models that are done, show the matrices, and give the figures."""
    rows = results(job.output, names)
    if not rows:
        return {}
    scores = pa.Table.from_pylist(rows, schema=TRIAL_SCORES)
    tables = job.output / "tables"
    tables.mkdir(exist_ok=True)
    pyarrow.csv.write_csv(scores, tables / "scores.csv")
    figures = {}
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        for metric in METRICS:
            matrix = domain_matrix(scores, metric, protocol)
            (tables / f"{protocol}-{metric}.csv").write_text(as_csv(matrix))
            if metric == "f1_image_mean":
                continue
            figure = matrix_figure(matrix, published_like(matrix), data=prepared.data)
            figure.savefig(job.output / f"{protocol}-{metric}.png", dpi=150)
            figures[f"{protocol}-{metric}"] = figure
            print(f"\n{protocol}, {metric} ({prepared.data})\n{as_text(matrix)}")
            if protocol != "all":
                means = summary(matrix)
                print(f"in-domain {means.in_domain:.3f}, out-of-domain {means.out_of_domain:.3f}, gap {means.gap:.3f}")
            if beside := beside_published(matrix):
                print(table_text([asdict(cell) for cell in beside]))
    print(f"\nTables and figures: {job.output}")
    return figures


if __name__ == "__main__":
    sys.exit(main())
