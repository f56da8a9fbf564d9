"""What the jobs that train have in common: their options, and how these become a training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from mitoray.errors import BadLabels, BadOption, OutputBelongsToAnotherRun, RefusedUri
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.tables import domain_table
from mitoray.evaluation.thresholds import best_threshold
from mitoray.evaluation.trials import score_trial
from mitoray.labels import read_labels
from mitoray.labels.cases import read_cases
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.boxes import BOX_MPP, BOX_PX
from mitoray.models.pretrained import initial_weights
from mitoray.scoring.manifest import manifest_digest, read_manifest
from mitoray.storage import Folder
from mitoray.tracking import RunRef, TrackedRun
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import Corpus, normalisation_of, open_corpus
from mitoray.training.feed import Sampling
from mitoray.training.fit import Network, Scaling, Training
from mitoray.training.fit_judge import Data
from mitoray.training.fit_stream import SlideFeed
from mitoray.training.fitting import Fitting
from mitoray.training.slides import TrainingSlide
from mitoray.uris import local_copy, options_for, redact

SETTINGS_FILE: Final = "settings.json"


@dataclass(frozen=True)
class Material:
    """What to train from.

    Args:
        manifest: CSV or Parquet with slide_id, uri and, where known, case_id, domain, mpp (µm/px), split (train,
            validation or test).
        labels: annotation file of any dialect that mitoray reads. Labels of the kind "uncertain" are painted over.
        licence: of the labels and slides, for the bundle.
        storage_options: of the object storage as fsspec takes them, JSON or YAML. Credentials are better left to the
            environment or ~/.aws.
    """

    manifest: str
    labels: str
    licence: str = "not stated"
    storage_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Model:
    """Which network.

    Args:
        architecture: retinanet (Aubreville 2023), fcos, or mitoray-s (a small heat-map network).
        settings: of the architecture, such as {"width": 1.5} for mitoray-s or {"level": 4} for retinanet.
        model_mpp: µm/px that the network sees, 0.1 to 2.
        initial: weights to begin with: "imagenet", a file of torchvision's ResNet-18, or a bundle; none begins from
            scratch.
        augment: whether patches are changed at random, as the augmentation's own options say.
    """

    architecture: Literal["retinanet", "fcos", "mitoray-s"] = "retinanet"
    settings: dict[str, bool | int | float | str] | None = None
    model_mpp: float = 0.25
    initial: str | None = None
    augment: bool = True

    def __post_init__(self) -> None:
        if not 0.1 <= self.model_mpp <= 2:
            raise BadOption(f"model_mpp must lie between 0.1 and 2 µm/px, not {self.model_mpp}.")
        built(self.architecture, self.settings or {})

    @property
    def scaled_settings(self) -> dict[str, bool | int | float | str]:
        """The settings, with boxes as large in µm at any resolution as labelled ones: 12.5 µm."""
        settings = dict(self.settings or {})
        if self.architecture != "mitoray-s":
            settings.setdefault("box_px", round(BOX_PX * BOX_MPP / self.model_mpp))
        return settings


@dataclass(frozen=True, eq=False)
class Prepared:
    """The opened material. splits: by slide_id, where the manifest has them; digests: of the data, for the record."""

    corpus: Corpus
    splits: Mapping[str, str | None]
    digests: Mapping[str, str]
    data: Data

    def origin(self, material: Material, notes: Sequence[str] = ()) -> Origin:
        """What a bundle says of the material."""
        datasets = sorted({str(name) for name in pc.unique(self.corpus.labels["dataset"]).to_pylist()})
        return Origin(data=tuple(datasets), licence=material.licence, notes=tuple(notes))


def prepare(material: Material) -> Prepared:
    """Read the manifest and the labels, and open the slides. Raises BadManifest, BadLabels."""
    rows = read_manifest(material.manifest, material.storage_options)
    labels = read_labels(fetched(material.labels, material.storage_options))
    cases = read_cases(fetched(material.manifest, material.storage_options))
    splits = dict(zip(cases["slide_id"].to_pylist(), cases["split"].to_pylist(), strict=True))
    _check_splits(cases)
    with tqdm(total=len(rows), desc="opening", unit="slide", disable=None) as bar:
        corpus = open_corpus(rows, labels, material.storage_options, bar.update)
    digests = {"manifest": manifest_digest(rows), "labels": _digest(labels)}
    is_phantom = pc.unique(corpus.labels["dataset"]).to_pylist() == ["phantom"]
    return Prepared(corpus, splits, digests, "phantom" if is_phantom else "real slides")


def assembled(
    material: Material,
    prepared: Prepared,
    train: tuple[TrainingSlide, ...],
    validate: tuple[TrainingSlide, ...],
    model: Model,
    sampling: Sampling,
    fitting: Fitting,
    augmentation: Augmentation,
    scaling: Scaling,
) -> Training:
    """The training on these slides. Raises BadLabels where no figure may be sampled, BadModel, BadOption."""
    labels, options = prepared.corpus.labels, material.storage_options
    settings = model.scaled_settings
    sampling.check_mining(fitting.mine_at)
    normalisation = normalisation_of(train, labels, sampling, model.model_mpp, options)
    initial = None
    if model.initial:
        with torch.random.fork_rng():
            torch.manual_seed(fitting.seed)  # what the weights given leave open, such as the head, begins as seeded
            initial = initial_weights(model.initial, built(model.architecture, settings), options)
    network = Network(model.architecture, model.model_mpp, normalisation, settings, initial)
    feed = SlideFeed(
        train,
        validate,
        labels,
        model.model_mpp,
        sampling,
        fitting.batch_size,
        fitting.seed,
        scaling.readers,
        options,
    )
    feed.steps_per_epoch(scaling.workers or 1)
    return Training(network, feed, fitting, augmentation if model.augment else None)


def seeded(training: Training, seed: int) -> Training:
    """The same training with another seed."""
    feed = training.feed
    if isinstance(feed, SlideFeed):
        feed = replace(feed, seed=seed)
    return replace(training, fitting=replace(training.fitting, seed=seed), feed=feed)


def _check_splits(cases: pa.Table) -> None:
    """Raises BadLabels for a split of another name, and for a case in two of them."""
    if unknown := sorted(set(pc.unique(cases["split"]).to_pylist()) - {"train", "validation", "test", None}):
        raise BadLabels(f"The split {unknown[0]!r} is unknown. Call the parts train, validation and test.")
    part_of: dict[str, str] = {}
    for row in cases.to_pylist():
        part = row["split"] or "train"
        if part_of.setdefault(row["case_id"], part) != part:
            raise BadLabels(
                f"Case {row['case_id']!r} has slides in {part_of[row['case_id']]} and in {part}. Keep it whole."
            )


def fetched(uri: str, storage_options: Mapping[str, Any] | None) -> str:
    """A path that holds the file; one in object storage is copied, while the process lives."""
    if not options_for(uri, storage_options):
        return uri
    try:
        return str(local_copy(uri, storage_options))
    except RefusedUri:
        raise
    except Exception as error:  # storage backends raise what they like; their messages may hold credentials
        raise BadLabels(
            f"{redact(uri)} could not be fetched ({type(error).__name__}). Check its URI and access."
        ) from None


def _digest(labels: pa.Table) -> str:
    """SHA-256 of the labels' places and kinds, in any order."""
    names = ("slide_id", "x_px", "y_px", "kind", "subtype")
    rows = sorted(map(repr, zip(*(labels[name].to_pylist() for name in names), strict=True)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def parts_of(**parts: Sequence[TrainingSlide]) -> dict[str, list[str]]:
    """What of which slide is in each part of a training, as the settings keep it: going on with others would leak."""
    return {name: sorted(f"{s.slide_id} {s.area or 'whole'}" for s in slides) for name, slides in parts.items()}


def claimed(output: str, storage_options: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Folder:
    """The output folder, taken for these settings. Raises OutputBelongsToAnotherRun where it holds other ones."""
    folder = Folder.at(output, storage_options)
    mine = json.loads(json.dumps(settings))
    try:
        theirs = folder.read_json(SETTINGS_FILE)
    except FileNotFoundError:
        folder.write_json(SETTINGS_FILE, mine)
        return folder
    if theirs != mine:
        names = [f"{part}.{k}" for part in mine for k in mine[part] if mine[part][k] != theirs.get(part, {}).get(k)]
        raise OutputBelongsToAnotherRun(
            f"{folder.shown} holds a training with other settings ({', '.join(names[:5]) or 'of another version'}). "
            "Give back the old ones to go on with it, or choose another --output."
        )
    return folder


def trial_rows(validation: MatchedCohort, test: MatchedCohort, **which: Any) -> list[dict[str, Any]]:
    """Rows of `TRIAL_SCORES`; stands here, and not in a job, so that workers can import it."""
    rows: list[dict[str, Any]] = score_trial(validation, test, **which).to_pylist()
    return rows


@dataclass(frozen=True)
class RecordedBelow:
    """Records each model of an experiment as a run below `parent`: its epochs, and the numbers of its rows.

    domain: name of the column that tells rows apart, such as test_domain; None for one row. numbers: columns to record,
    by the metric's name, such as f1 for f1/<domain>.
    """

    parent: RunRef
    numbers: Mapping[str, str]
    domain: str | None = None

    @property
    def key(self) -> str:
        """The parent's id."""
        return self.parent.run_id

    def __call__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        history: Sequence[Mapping[str, float]],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """One model."""
        with TrackedRun.start(name, parent=self.parent) as run:
            run.log_parameters(parameters)
            for metrics in history:
                run.log_metrics(metrics, step=int(metrics["epoch"]))
            for row in rows:
                below = f"/{row[self.domain]}" if self.domain else ""
                run.log_metrics({f"{short}{below}": row[column] for short, column in self.numbers.items()})


def area_rows(validation: MatchedCohort, test: MatchedCohort, **which: Any) -> list[dict[str, Any]]:
    """F1 over all test slides at the threshold that is best on the validation slides."""
    best = best_threshold(sweep(validation.matchings))
    whole = domain_table(test, np.inf if best is None else best.threshold, repeats=0)[-1]
    return [{**which, "f1": whole.f1_pooled, "ap": whole.average_precision, "n_figures": whole.n_labels}]
