"""What trains a classifier of candidates: its network, its two phases, and the bundle that they make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import torch

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Metric, Normalisation, load_bundle
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.bundle import Setting
from mitoray.models.pretrained import IMAGENET, initial_weights
from mitoray.slide import redact
from mitoray.training.augment import Augmentation
from mitoray.training.crop_extraction import Extraction
from mitoray.training.crop_feed import CropFeed
from mitoray.training.crop_sampling import CropSampling
from mitoray.training.fit import Fitted, Network, Training
from mitoray.training.fitting import Fitting
from mitoray.training.normalisation import tissue_statistics
from mitoray.training_crops import CropPlan, check_parts

_STATISTICS_CROPS: Final = 1024


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
class Start:
    """What a training begins with: the architecture's settings, its weights, and what they are normalised by.

    None where that is left to the seed, and to the crops.
    """

    settings: Mapping[str, Setting]
    weights: Mapping[str, torch.Tensor] | None = None
    normalisation: Normalisation | None = None


def begun(model: ClassifierModel, subtypes: bool, seed: int, storage_options: Mapping[str, Any] | None = None) -> Start:
    """What the training begins with. Raises BadModel where the initial weights are another network's."""
    settings = model.with_heads(subtypes=subtypes)
    if model.initial is None:
        return Start(settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # what the weights given leave open begins as seeded
        network = built(model.architecture, settings)
    normalisation = None
    if model.initial != IMAGENET and PurePosixPath(model.initial).suffix not in (".safetensors", ".pth"):
        bundle = load_bundle(model.initial, storage_options)
        normalisation = bundle.normalisation
        if bundle.architecture != model.architecture or bundle.mpp != model.model_mpp:
            raise BadModel(
                f"{redact(model.initial)} is a {bundle.architecture} at {bundle.mpp:g} µm/px, not a "
                f"{model.architecture} at {model.model_mpp:g}. Give its architecture and model_mpp, or another bundle."
            )
    return Start(settings, initial_weights(model.initial, network, storage_options), normalisation)


def assembled_classifier(
    plan: CropPlan,
    tables: Iterable[str],
    model: ClassifierModel,
    start: Start,
    extraction: Extraction,
    sampling: CropSampling,
    fitting: Fitting,
    augmentation: Augmentation,
) -> Training:
    """The first phase's training on these tables of crops. Raises BadLabels, BadOption."""
    feed = crop_feed(tables, plan, model, extraction, sampling, fitting)
    feed = replace(feed, left_out=feed.overlapping())
    check_parts(feed.facts, plan.validate, sampling)
    normalisation = start.normalisation or tissue_statistics([feed.training_images(_STATISTICS_CROPS)])
    network = Network(model.architecture, model.model_mpp, normalisation, start.settings, start.weights)
    return Training(network, feed, fitting, augmentation if model.augment else None, crop_px=model.patch_px)


def crop_feed(
    tables: Iterable[str],
    plan: CropPlan,
    model: ClassifierModel,
    extraction: Extraction,
    sampling: CropSampling,
    fitting: Fitting,
) -> CropFeed:
    """The first phase's feed. Reads nothing yet. Raises BadOption where a classifier cannot be fitted so."""
    if fitting.mine_at:
        raise BadOption("mine_at is for detectors: a classifier learns from the mistakes of the detector given.")
    return CropFeed(
        tuple(tables),
        plan.validate,
        frozenset(),
        model.model_mpp,
        model.patch_px,
        extraction.margin_px,
        sampling,
        fitting.batch_size,
        fitting.seed,
        storage_options=plan.material.storage_options,
    )


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
