"""How well a network does on patches whose figures are known."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mitoray.errors import BadLabels
from mitoray.evaluation.curves import average_precision, sweep
from mitoray.evaluation.matching import RADIUS_UM, Matching, match
from mitoray.evaluation.thresholds import best_threshold
from mitoray.models import Detector
from mitoray.models.classifier import Classifier
from mitoray.training.patches import Patches

FLOOR = 0.02
"""Scores below this are not looked at."""


@dataclass(frozen=True)
class Validation:
    """Average precision, best F1 and its threshold, over all validation patches."""

    average_precision: float
    f1: float
    threshold: float

    def metrics(self) -> dict[str, float]:
        """By the names under which they are recorded."""
        return {"val_ap": self.average_precision, "val_f1": self.f1, "val_threshold": self.threshold}


def validated(detector: Detector, patches: Patches, at_once: int = 16) -> Validation:
    """Detections in patches, matched one to one with their figures; figures beyond a patch's edge are left out.

    Raises BadLabels if no patch holds a figure: then there is nothing to choose the best epoch by.
    """
    matchings = []
    radius_px = RADIUS_UM / detector.mpp
    last = patches.images.shape[-1] - 1
    for start in range(0, len(patches.images), at_once):
        images = patches.images[start : start + at_once]
        for points, centres in zip(
            detector.detect(images, FLOOR), patches.centres_px[start : start + at_once].numpy(), strict=True
        ):
            figures = centres[((centres >= 0) & (centres <= last)).all(axis=1)]
            matchings.append(match(points.xy_px.astype(float), points.scores.astype(float), figures, radius_px))
    return _judged(matchings, len(patches.images))


@dataclass(frozen=True)
class SubtypeValidation:
    """Atypical against normal: balanced accuracy at a probability of 0.5, and area under the ROC curve."""

    balanced_accuracy: float
    auc: float

    def metrics(self) -> dict[str, float]:
        """By the names under which they are recorded."""
        return {"val_subtype_balanced_accuracy": self.balanced_accuracy, "val_subtype_auc": self.auc}


def validated_classifier(
    classifier: Classifier, patches: Patches, at_once: int = 256
) -> tuple[Validation, SubtypeValidation | None]:
    """Mitotic figures against all others, and atypical against normal ones, in patches with targets.

    Nothing for subtypes where the classifier has none, or the patches not both. Raises BadLabels without any figure.
    """
    if patches.targets is None:
        raise BadLabels("The validation patches say not what they show: give targets, one row for each.")
    verdicts = [classifier.classify(some) for some in torch.split(patches.images, at_once)]
    scores = np.concatenate([np.empty(0), *(v.members.mean(axis=1, dtype=np.float64) for v in verdicts)])
    atypical = np.concatenate([np.empty(0), *(v.atypical for v in verdicts)])
    figure, subtype = patches.targets.numpy().T
    known = ~np.isnan(subtype) & ~np.isnan(atypical)
    of_subtypes = None
    if len(np.unique(subtype[known])) == 2:
        truth, probability = subtype[known], atypical[known]
        of_subtypes = SubtypeValidation(
            float(balanced_accuracy_score(truth, probability >= 0.5)), float(roc_auc_score(truth, probability))
        )
    return _judged([_as_matching(scores, figure)], len(patches.images)), of_subtypes


def _as_matching(scores: NDArray[np.float64], figure: NDArray[np.float32]) -> Matching:
    """Every patch as a detection, every figure as found by its own; `figure` is 1, 0, or NaN to leave it out."""
    true, false = np.flatnonzero(figure == 1), np.flatnonzero(figure == 0)
    of_detection = np.full(len(true) + len(false), -1, np.int64)
    of_detection[: len(true)] = np.arange(len(true))
    return Matching(of_detection, np.arange(len(true)), scores[true], scores[false])


def _judged(matchings: list[Matching], n_patches: int) -> Validation:
    counts = sweep(matchings)
    if not counts.n_labels:
        raise BadLabels(
            f"None of {n_patches} validation patches holds a mitotic figure. Validate on slides with figures, or on "
            "more patches."
        )
    best = best_threshold(counts)
    precision = average_precision(counts)
    return Validation(
        0.0 if np.isnan(precision) else precision, best.f1 if best else 0.0, best.threshold if best else 1.0
    )
