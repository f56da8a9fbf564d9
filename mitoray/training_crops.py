"""What trains a classifier of candidates: its options, its crops, its two phases, and the bundle that they make."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import torch

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Metric, Normalisation, load_bundle
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.bundle import Setting
from mitoray.models.pretrained import initial_weights
from mitoray.slide import redact
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import Corpus, parted
from mitoray.training.crop_extraction import Extraction
from mitoray.training.crop_feed import FACTS, CropFeed, facts_of, validation_cases
from mitoray.training.crop_sampling import CropSampling, check_crops
from mitoray.training.crops import CROPS
from mitoray.training.fit import Fitted, Network, Training
from mitoray.training.fitting import Fitting
from mitoray.training.normalisation import tissue_statistics
from mitoray.training.slides import TrainingSlide
from mitoray.training_jobs import Material, Prepared, prepare

_STATISTICS_CROPS: Final = 1024


@dataclass(frozen=True)
class CropMaterial:
    """What to train from: labelled slides, ready-made crops, or both.

    Args:
        manifest: CSV or Parquet with slide_id, uri and, where known, case_id, domain, mpp (µm/px), split (train,
            validation or test).
        labels: annotation file of any dialect that mitoray reads.
        crops: Parquet tables with crop_id, image and, where known, kind, subtype, phase, slide_id, case_id, domain, mpp
            (µm/px); else figures at 0.25 µm/px, each crop a case of its own.
        licence: of the labels, slides and crops, for the bundle.
        storage_options: of the object storage as fsspec takes them, JSON or YAML. Credentials are better left to the
            environment or ~/.aws.
    """

    manifest: str | None = None
    labels: str | None = None
    crops: list[str] = field(default_factory=list)
    licence: str = "not stated"
    storage_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if bool(self.manifest) != bool(self.labels):
            raise BadOption("manifest and labels belong together: give both, or crops alone.")
        if not self.manifest and not self.crops:
            raise BadOption("There is nothing to train from: give manifest and labels, crops, or all three.")


@dataclass(frozen=True)
class ClassifierModel:
    """Which network.

    Args:
        architecture: mitoray-c (small and fast), or one of torchvision's: resnet18, resnet50, densenet201,
            efficientnet_b4.
        settings: of the architecture, such as {"width": 0.5} for mitoray-c.
        patch_px: side of the patch around a candidate, px at the model's µm/px.
        model_mpp: µm/px that the network sees, 0.1 to 2.
        initial: a bundle of the same architecture to begin with, such as one of another domain; none begins from
            scratch.
        augment: whether crops are changed at random, as the augmentation's own options say.
    """

    architecture: Literal["mitoray-c", "resnet18", "resnet50", "densenet201", "efficientnet_b4"] = "mitoray-c"
    settings: dict[str, bool | int | float | str] | None = None
    patch_px: int = 64
    model_mpp: float = 0.25
    initial: str | None = None
    augment: bool = True

    def __post_init__(self) -> None:
        if not 0.1 <= self.model_mpp <= 2:
            raise BadOption(f"model_mpp must lie between 0.1 and 2 µm/px, not {self.model_mpp}.")
        if given := {"patch_px", "subtypes"} & set(self.settings or {}):
            raise BadOption(f"settings: {sorted(given)[0]} follows from patch_px and subtype_task, give these.")
        with torch.device("meta"):
            built(self.architecture, self.with_heads(subtypes=True))

    def with_heads(self, *, subtypes: bool) -> dict[str, Setting]:
        """The architecture's settings."""
        return {**(self.settings or {}), "patch_px": self.patch_px, "subtypes": subtypes}


@dataclass(frozen=True, eq=False)
class CropPlan:
    """What is to be trained on, before any crop is cut.

    slides: to cut crops from; validate: cases that do not train, but validate. prepared: None without slides.
    """

    material: CropMaterial
    prepared: Prepared | None
    slides: tuple[TrainingSlide, ...]
    validate: frozenset[str]
    digests: Mapping[str, str]

    @property
    def failed(self) -> dict[str, str]:
        """Slides that could not be opened, and why."""
        return dict(self.prepared.corpus.failed) if self.prepared else {}

    @property
    def data(self) -> Literal["phantom", "real crops"]:
        """Whether drawn or real images are trained on."""
        drawn = self.prepared is not None and self.prepared.data == "phantom" and not self.material.crops
        return "phantom" if drawn else "real crops"

    def origin(self, notes: Sequence[str]) -> Origin:
        """What a bundle says of the material."""
        names = [PurePosixPath(redact(uri)).stem for uri in self.material.crops]
        if self.prepared:
            of_slides = self.prepared.origin(Material("", ""), ()).data
            names = [*of_slides, *names]
        return Origin(data=tuple(names), licence=self.material.licence, notes=tuple(notes))


def planned(
    material: CropMaterial, extraction: Extraction, sampling: CropSampling, share: float, seed: int
) -> CropPlan:
    """Open the material and choose what validates it: cases of the split "validation", or else a share of the cases.

    Raises BadLabels, BadManifest where there would be nothing to train or to validate on, BadModel.
    """
    options = material.storage_options
    ready_made = facts_of(material.crops, options)
    validate = validation_cases(ready_made, share)
    expected, digests = [ready_made], {"crops": _digest(ready_made)} if material.crops else {}
    prepared: Prepared | None = None
    slides: tuple[TrainingSlide, ...] = ()
    if material.manifest and material.labels:
        prepared = prepare(Material(material.manifest, material.labels, material.licence, options))
        digests |= prepared.digests
        corpus, splits = prepared.corpus, prepared.splits
        slides = corpus.of(s.slide_id for s in corpus.slides if splits.get(s.slide_id) != "test")
        validate |= _validating(corpus, splits, slides, share, seed)
        expected.append(_expected(slides, corpus.labels, extraction))
    if extraction.detector:
        if not slides:
            raise BadOption("detector finds false positives on slides: give manifest and labels too.")
        digests["detector"] = load_bundle(extraction.detector, options).digest
    check_parts(pa.concat_tables(expected), validate, sampling)
    return CropPlan(material, prepared, slides, validate, digests)


def check_parts(facts: pa.Table, validate: frozenset[str], sampling: CropSampling) -> None:
    """Raises BadLabels where crops, without images, leave nothing to train or to validate on."""
    validates = np.array([case in validate for case in facts["case_id"].to_pylist()], bool)
    check_crops(facts.filter(pa.array(~validates)), sampling, "train on")
    in_all_domains = replace(sampling, ambiguous="masked", domain_weights=None)
    check_crops(facts.filter(pa.array(validates)), in_all_domains, "validate on")


def assembled_classifier(
    plan: CropPlan,
    tables: Iterable[str],
    model: ClassifierModel,
    extraction: Extraction,
    sampling: CropSampling,
    fitting: Fitting,
    augmentation: Augmentation,
) -> Training:
    """The first phase's training on these tables of crops. Raises BadLabels, BadModel, BadOption."""
    if fitting.mine_at:
        raise BadOption("mine_at is for detectors: a classifier learns from the mistakes of the detector given.")
    options = plan.material.storage_options
    feed = CropFeed(
        tuple(tables),
        plan.validate,
        frozenset(),
        model.model_mpp,
        model.patch_px,
        extraction.margin_px,
        sampling,
        fitting.batch_size,
        fitting.seed,
        storage_options=options,
    )
    feed = replace(feed, left_out=feed.overlapping())
    check_parts(feed.facts, plan.validate, sampling)
    settings = model.with_heads(subtypes=sampling.subtype_task)
    initial, normalisation = None, None
    if model.initial:
        initial, normalisation = _begun(model, settings, fitting.seed, options)
    normalisation = normalisation or tissue_statistics([feed.training_images(_STATISTICS_CROPS)])
    network = Network(model.architecture, model.model_mpp, normalisation, settings, initial)
    return Training(network, feed, fitting, augmentation if model.augment else None, crop_px=model.patch_px)


def subtype_phase(training: Training, fitted: Fitted, epochs: int) -> Training:
    """The second phase: the subtype head of the best network alone, all else frozen (Fick et al. 2024, §2.4)."""
    fitting = replace(training.fitting, epochs=epochs, head_epochs=epochs)
    feed = training.feed
    if not isinstance(feed, CropFeed):
        raise BadOption("only a training on crops has a subtype phase")
    network = replace(training.network, initial=fitted.weights, phase="subtype")
    return replace(training, network=network, feed=replace(feed, phase="subtype"), fitting=fitting)


def classifier_bundle(
    training: Training,
    fitted: Fitted,
    metrics: Mapping[str, float],
    *,
    name: str,
    origin: Origin,
    data: Literal["phantom", "real crops"],
    candidate_threshold: float | None,
) -> Bundle:
    """The trained network with the threshold of the best F1 on the validation crops, which flatters that F1."""
    network = training.network
    said = {
        "F1 on the validation crops, at the threshold that is best there": "val_f1",
        "AP on the validation crops": "val_ap",
        "balanced accuracy of atypical against normal on the validation crops": "val_subtype_balanced_accuracy",
        "ROC AUC of atypical against normal on the validation crops": "val_subtype_auc",
    }
    return Bundle(
        name=name,
        architecture=network.architecture,
        settings=dict(network.settings),
        mpp=network.mpp,
        threshold=round(min(1.0, max(0.0, metrics["val_threshold"])), 6),
        thresholds={},
        normalisation=network.normalisation,
        training=origin,
        metrics=tuple(Metric(name=k, value=round(metrics[v], 4), data=data) for k, v in said.items() if v in metrics),
        candidate_threshold=candidate_threshold,
        weights=fitted.weights,
    )


def _validating(
    corpus: Corpus, splits: Mapping[str, str | None], slides: Sequence[TrainingSlide], share: float, seed: int
) -> frozenset[str]:
    """The cases of the slides that validate. Slides without any figure go by their cases' names."""
    if not sum(corpus.figures().values()):
        chosen = frozenset(s.case_id for s in slides if splits.get(s.slide_id) == "validation")
        names = pa.table({"case_id": [s.case_id for s in slides]})
        return chosen or validation_cases(names, share)
    _, validating = parted(corpus, "cases", splits, share, seed)
    return frozenset(slide.case_id for slide in validating)


def _expected(slides: Sequence[TrainingSlide], labels: pa.Table, extraction: Extraction) -> pa.Table:
    """What crops of the slides will be known, so that a lack is told before any is cut; mined ones are hoped for."""
    cases = {slide.slide_id: (slide.case_id, slide.domain) for slide in slides}
    known = [r for r in labels.to_pylist() if r["slide_id"] in cases and r["kind"] in ("mitotic_figure", "imposter")]
    rows = [(row["slide_id"], row["kind"], row["subtype"]) for row in known]
    if extraction.detector or extraction.random_negatives:
        rows += [(slide_id, "random", None) for slide_id in cases]
    named = [
        {
            "crop_id": f"{slide_id}/{i}",
            "slide_id": slide_id,
            "case_id": cases[slide_id][0],
            "domain": cases[slide_id][1],
            "kind": kind,
            "subtype": subtype,
            "mpp": 0.25,
        }
        for i, (slide_id, kind, subtype) in enumerate(rows)
    ]
    return pa.Table.from_pylist(named, schema=pa.schema([CROPS.field(name) for name in FACTS]))


def _begun(
    model: ClassifierModel, settings: Mapping[str, Setting], seed: int, options: Mapping[str, Any] | None
) -> tuple[dict[str, torch.Tensor], Normalisation | None]:
    """The initial weights, and what their network's input was normalised by, if a bundle says so."""
    uri = str(model.initial)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = built(model.architecture, settings)
    if uri == "imagenet" or PurePosixPath(uri).suffix in (".safetensors", ".pth"):
        return initial_weights(uri, network, options), None
    bundle = load_bundle(uri, options)
    if bundle.architecture != model.architecture or bundle.mpp != model.model_mpp:
        raise BadModel(
            f"{redact(uri)} is a {bundle.architecture} at {bundle.mpp:g} µm/px, not a {model.architecture} at "
            f"{model.model_mpp:g}. Give its architecture and model_mpp, or another initial bundle."
        )
    return initial_weights(uri, network, options), bundle.normalisation


def _digest(facts: pa.Table) -> str:
    """SHA-256 of what is known of crops, in any order."""
    rows = sorted(map(repr, zip(*(facts[name].to_pylist() for name in FACTS), strict=True)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
