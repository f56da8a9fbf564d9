"""Train a classifier of candidates from labelled slides and crops, on Ray Train, and write its bundle.

    python jobs/train_classifier.py --manifest slides.csv --labels labels.parquet --detector mitoray-s --output run
    python jobs/train_classifier.py --config train.yaml --crops '[figures.parquet]' --mlflow http://mlflow:5000

The same command again goes on where a training stopped. Exit status: 0 trained, 2 bad arguments or input, 3 trained,
but some slides could not be read (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow.compute as pc
from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.ray_address import ray_address
from mitoray.storage import Folder
from mitoray.training.augment import Augmentation
from mitoray.training.crop_extraction import Extraction
from mitoray.training.crop_sampling import CropSampling, warn_of_giveaways
from mitoray.training.fit import Fitted, Placement, Scaling, Training, fit
from mitoray.training.fit_crops import extract_crops
from mitoray.training.fit_session import Watched, ray_here
from mitoray.training.fitting import Fitting
from mitoray.training_classifiers import (
    ClassifierModel,
    assembled_classifier,
    begun,
    classifier_bundle,
    crop_feed,
    subtype_phase,
)
from mitoray.training_crops import CropMaterial, CropPlan, planned
from mitoray.training_jobs import claimed
from mitoray.training_outputs import Destination, record_training, write_training

NOTES = (
    "The threshold was chosen on the validation crops, which flatters the F1 stated there.",
    "For research, not for diagnosis.",
)
DEFAULTS = {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "body_learning_rate": 2e-3}


@dataclass(frozen=True)
class Train:
    """Where the training goes, and what validates it.

    Args:
        output: folder or URI for crops/, checkpoints, bundle/, history.json and training.png. Belongs to one
            configuration.
        name: of the bundle.
        validation_share: share of the cases that validate, 0 to 1, where no split says which.
        subtype_epochs: epochs in which the subtype head alone learns on, all else frozen; 0 for none.
        candidate_threshold: score of the detector from which the bundle asks for candidates, 0 to 1; none leaves it to
            the scoring.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        register: name under which the bundle is registered in MLflow.
        alias: moved to the registered version, such as champion.
        log_level: how much mitoray tells of what it does.
    """

    output: str
    name: str = "classifier"
    validation_share: float = 0.2
    subtype_epochs: int = 10
    candidate_threshold: float | None = None
    mlflow: str | None = None
    register: str | None = None
    alias: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise BadOption(f"validation_share must lie between 0 and 1, not {self.validation_share}.")
        if self.subtype_epochs < 0:
            raise BadOption(f"subtype_epochs must be 0 or more, not {self.subtype_epochs}.")
        if self.candidate_threshold is not None and not 0 <= self.candidate_threshold <= 1:
            raise BadOption(f"candidate_threshold must lie between 0 and 1, not {self.candidate_threshold}.")
        _ = self.destination  # raises where that cannot be

    @property
    def destination(self) -> Destination:
        """Where the bundle is recorded."""
        return Destination(self.name, self.mlflow, self.register, self.alias)


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("train_classifier", __doc__.partition("\n")[0])
    groups = (Train, CropMaterial, Extraction, ClassifierModel, CropSampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    parser.set_defaults(DEFAULTS)
    job, material, extraction, model, sampling, fitting, augmentation, scaling = parser.parsed(argv, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    plan = planned(material, extraction, sampling, job.validation_share, fitting.seed)
    start = begun(model, sampling.subtype_task, fitting.seed, material.storage_options)
    crop_feed((), plan, model, extraction, sampling, fitting).steps_per_epoch(scaling.workers or 1)
    options = (extraction, model, sampling, fitting, augmentation)
    settings = {part.__class__.__name__.lower(): asdict(part) for part in options}
    settings["train"] = {"subtype_epochs": job.subtype_epochs}
    parts = {"slides": sorted(s.slide_id for s in plan.slides), "validate": sorted(plan.validate)}
    folder = claimed(job.output, material.storage_options, {**settings, "parts": parts, "data": plan.digests})
    with ray_here(scaling, ray_address()) as placement:
        tables, failed = extracted(folder, plan, extraction, model, placement, fitting.seed)
        training = assembled_classifier(plan, tables, model, start, extraction, sampling, fitting, augmentation)
        facts = training.feed.facts
        warn_of_giveaways(facts, sampling)
        print(f"Training {model.architecture} on {len(facts)} crops with those that validate: {counted(facts)}.")
        fitted = fit_here(training, folder, placement, scaling, "checkpoints")
        best, metrics, history = fitted, dict(fitted.metrics), [{**m, "phase": "all"} for m in fitted.history]
        if sampling.subtype_task and job.subtype_epochs:
            second = subtype_phase(training, fitted, job.subtype_epochs)
            of_subtypes = fit_here(second, folder, placement, scaling, "checkpoints-subtype")
            best, metrics = better(fitted, of_subtypes)
            history += [in_phase_two(m, fitting.epochs) for m in of_subtypes.history]
    bundle = classifier_bundle(
        training,
        best,
        metrics,
        name=job.name,
        origin=plan.origin((*NOTES, f"Crops trained or validated on: {counted(facts)}.")),
        data=plan.data,
        candidate_threshold=job.candidate_threshold,
    )
    write_training(folder, bundle, best.weights, history, fitted.history)
    for metric in bundle.metrics:
        print(f"{metric.value:8.4f}  {metric.name} ({metric.data})")
    print(f"Threshold {bundle.threshold:g}, the best on the validation crops. Bundle: {folder.shown}/bundle")
    if job.mlflow:
        recorded = record_training(
            "train_classifier",
            job.destination,
            settings,
            plan.digests,
            bundle,
            best.weights,
            steps(history),
            fitted.history,
        )
        print(recorded)
    failed = {**plan.failed, **failed}
    for slide_id, error in failed.items():
        print(f"left out: {slide_id!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


def extracted(
    folder: Folder, plan: CropPlan, extraction: Extraction, model: ClassifierModel, placement: Placement, seed: int
) -> tuple[list[str], dict[str, str]]:
    """The tables of crops, cut now where they were not before, and why some slides gave none."""
    if not plan.slides or plan.prepared is None:
        return list(plan.material.crops), {}
    with tqdm(total=len(plan.slides), desc="cutting crops", unit="slide", disable=None) as bar:
        tables, failed = extract_crops(
            folder,
            plan.slides,
            plan.prepared.corpus.labels,
            extraction,
            placement,
            mpp=model.model_mpp,
            side_px=model.patch_px + extraction.margin_px,
            seed=seed,
            storage_options=plan.material.storage_options,
            on_slide=bar.update,
        )
    return [*tables, *plan.material.crops], failed


def fit_here(training: Training, folder: Folder, placement: Placement, scaling: Scaling, name: str) -> Fitted:
    judged_by = "validation AP" if training.network.phase == "all" else "validation AUC of subtypes"
    with Watched(training.fitting.epochs, judged_by) as board:
        return fit(
            training,
            placement,
            name=name,
            storage=folder.root if not folder.local else folder.uri,
            filesystem=None if folder.local else folder.arrow_filesystem,
            max_failures=scaling.max_failures,
            on_epoch=board.on_epoch,
        )


def better(first: Fitted, second: Fitted) -> tuple[Fitted, dict[str, float]]:
    """The phase whose subtype head is better on the validation crops; the rest of the network is the same in both."""
    names = ("val_subtype_auc", "val_subtype_balanced_accuracy")
    if second.metrics.get(names[0], 0.0) <= first.metrics.get(names[0], 0.0):
        print("The second phase did not improve the subtype head, which stays as it was.")
        return first, dict(first.metrics)
    return second, {**first.metrics, **{name: second.metrics[name] for name in names}}


def in_phase_two(metrics: Mapping[str, float], epochs_before: int) -> dict[str, Any]:
    """An epoch of the second phase as the history keeps it; its val_ap is the subtype's area under the curve."""
    kept = {name: value for name, value in metrics.items() if name not in ("val_ap", "val_f1", "val_threshold")}
    return {**kept, "epoch": epochs_before + int(metrics["epoch"]), "phase": "subtype"}


def counted(facts: Any) -> str:
    """How many crops of each kind there are, for people."""
    kinds = pc.value_counts(facts["kind"]).to_pylist()
    subtypes = [row for row in pc.value_counts(facts["subtype"]).to_pylist() if row["values"]]
    return ", ".join(f"{row['counts']} {row['values']}" for row in [*kinds, *subtypes])


def steps(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Epochs as MLflow keeps them: those of the second phase under names of their own."""
    named = []
    for metrics in history:
        before = "subtype_phase/" if metrics["phase"] == "subtype" else ""
        named.append((int(metrics["epoch"]), {f"{before}{k}": v for k, v in metrics.items() if k != "phase"}))
    return named


if __name__ == "__main__":
    sys.exit(main())
