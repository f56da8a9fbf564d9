"""How well a network does on patches whose figures are known."""

from dataclasses import dataclass

import numpy as np

from mitoray.errors import BadLabels
from mitoray.evaluation.curves import average_precision, sweep
from mitoray.evaluation.matching import RADIUS_UM, match
from mitoray.evaluation.thresholds import best_threshold
from mitoray.models import Detector
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
    counts = sweep(matchings)
    if not counts.n_labels:
        raise BadLabels(
            f"None of {len(patches.images)} validation patches holds a mitotic figure. Validate on slides with "
            "figures, or on more patches."
        )
    best = best_threshold(counts)
    precision = average_precision(counts)
    return Validation(
        0.0 if np.isnan(precision) else precision, best.f1 if best else 0.0, best.threshold if best else 1.0
    )
