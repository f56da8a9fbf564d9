"""What the jobs that train have in common: their options, and how these become a training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from mitoray.errors import BadOption, OutputBelongsToAnotherRun
from mitoray.labels import read_labels
from mitoray.labels.cases import read_cases
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.pretrained import initial_weights
from mitoray.scoring.manifest import manifest_digest, read_manifest
from mitoray.scoring.storage import Folder
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import Corpus, normalisation_of, open_corpus
from mitoray.training.feed import Sampling
from mitoray.training.fit import Network, Scaling, Training
from mitoray.training.fit_judge import Data
from mitoray.training.fit_stream import SlideFeed
from mitoray.training.fitting import Fitting
from mitoray.training.slides import TrainingSlide

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
    labels = read_labels(material.labels)
    cases = read_cases(material.manifest)
    splits = dict(zip(cases["slide_id"].to_pylist(), cases["split"].to_pylist(), strict=True))
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
    settings = model.settings or {}
    normalisation = normalisation_of(train, labels, sampling, model.model_mpp, options)
    initial = None
    if model.initial:
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


def _digest(labels: pa.Table) -> str:
    """SHA-256 of the labels' places and kinds, in any order."""
    names = ("slide_id", "x_px", "y_px", "kind", "subtype")
    rows = sorted(map(repr, zip(*(labels[name].to_pylist() for name in names), strict=True)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


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
