"""Train a detector of mitotic figures from labelled slides, on Ray Train, and write its bundle.

    python jobs/train_detector.py --manifest slides.csv --labels labels.parquet --output run
    python jobs/train_detector.py --config train.yaml --workers 4 --mlflow http://mlflow:5000 --register mitoray

The same command again goes on where a training stopped. Exit status: 0 trained, 2 bad arguments or input (nothing was
started), 3 trained, but some slides could not be read (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.evaluation.tables import as_text, domain_table
from mitoray.ray_address import ray_address
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import parted
from mitoray.training.feed import Sampling
from mitoray.training.fit import Scaling, fit
from mitoray.training.fit_judge import as_bundle, detect_slides
from mitoray.training.fit_session import Watched, ray_here
from mitoray.training.fitting import Fitting
from mitoray.training.source_runs import epoch_bundles
from mitoray.training_jobs import Material, Model, assembled, claimed, parts_of, prepare
from mitoray.training_outputs import Destination, record_training, write_bundle, write_training

NOTES = ("The threshold was chosen on the validation slides. For research, not for diagnosis.",)


@dataclass(frozen=True)
class Train:
    """Where the training goes, and what validates it.

    Args:
        output: folder or URI for checkpoints, bundle/, history.json and training.png. Belongs to one configuration.
        name: of the bundle.
        validation: cases (those of the split "validation", or else a share of each domain's cases) or halves (train on
            the upper half of each slide, validate on the lower one; Bertram 2019).
        validation_share: share of each domain's cases, 0 to 1.
        keep_epochs: so many of the best epochs become bundles too, in epochs/, for jobs/adapt_domain.py to select from.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        register: name under which the bundle is registered in MLflow.
        alias: moved to the registered version, such as champion.
        log_level: how much mitoray tells of what it does.
    """

    output: str
    name: str = "detector"
    validation: Literal["cases", "halves"] = "cases"
    validation_share: float = 0.2
    keep_epochs: int = 0
    mlflow: str | None = None
    register: str | None = None
    alias: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise BadOption(f"validation_share must lie between 0 and 1, not {self.validation_share}.")
        if self.keep_epochs < 0:
            raise BadOption(f"keep_epochs must be 0 or more, not {self.keep_epochs}.")
        _ = self.destination  # raises where that cannot be

    @property
    def destination(self) -> Destination:
        """Where the bundle is recorded."""
        return Destination(self.name, self.mlflow, self.register, self.alias)


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("train_detector", __doc__.partition("\n")[0])
    groups = (Train, Material, Model, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    job, material, model, sampling, fitting, augmentation, scaling = parser.parsed(argv, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    prepared = prepare(material)
    train, validate = parted(prepared.corpus, job.validation, prepared.splits, job.validation_share, fitting.seed)
    training = assembled(material, prepared, train, validate, model, sampling, fitting, augmentation, scaling)
    settings = {part.__class__.__name__.lower(): asdict(part) for part in (model, sampling, fitting, augmentation)}
    parts = parts_of(train=train, validate=validate)
    identity = {**settings, "parts": parts, "data": prepared.digests}
    if job.keep_epochs:  # absent else, as in the folders of trainings that never kept any
        identity["train"] = {"keep_epochs": job.keep_epochs}
    folder = claimed(job.output, material.storage_options, identity)
    print(f"Training {model.architecture} on {len(train)} slides, validating on {len(validate)}.")
    with ray_here(scaling, ray_address()) as placement, Watched(fitting.epochs) as board:
        fitted = fit(
            training,
            placement,
            name="checkpoints",
            storage=folder.root if not folder.local else folder.uri,
            filesystem=None if folder.local else folder.arrow_filesystem,
            max_failures=scaling.max_failures,
            on_epoch=board.on_epoch,
            keep_epochs=job.keep_epochs,
        )
        judged = detect_slides(training.network, fitted.weights, validate, placement, material.storage_options)
    cohort = judged.matched(prepared.corpus.labels)
    bundle = as_bundle(
        training.network, fitted, cohort, name=job.name, origin=prepared.origin(material, NOTES), data=prepared.data
    )
    write_training(folder, bundle, fitted.weights, fitted.history, fitted.history)
    for epoch, candidate in epoch_bundles(bundle, fitted.kept).items():
        write_bundle(folder, f"epochs/{epoch}", candidate, candidate.weights)
    print(as_text(domain_table(cohort, bundle.threshold, repeats=0)))
    print(f"Validation slides, threshold {bundle.threshold:g}, the best on them ({prepared.data}).")
    print(f"Bundle: {folder.shown}/bundle")
    if job.mlflow:
        epochs = [(int(metrics["epoch"]), metrics) for metrics in fitted.history]
        recorded = record_training(
            "train_detector",
            job.destination,
            settings,
            prepared.digests,
            bundle,
            fitted.weights,
            epochs,
            fitted.history,
        )
        print(recorded)
    failed = {**prepared.corpus.failed, **judged.failed}
    for slide_id, error in failed.items():
        print(f"left out: {slide_id!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed or skipped(fitted.history) else DONE


def skipped(history: Sequence[Mapping[str, float]]) -> int:
    """Patches that could not be read in any epoch."""
    n = int(sum(metrics.get("skipped_patches", 0) for metrics in history))
    if n:
        print(f"{n} patches could not be read in training; the log names their slides.", file=sys.stderr)
    return n


if __name__ == "__main__":
    sys.exit(main())
