"""The second stage: candidates are classified while their region's pixels are still on the device."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Model, Verdicts, load_bundle
from mitoray.models.classifiers import BATCH
from mitoray.models.combination import Combination
from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.patches import patches_around, reach_px
from mitoray.scoring.plan import BORDER_MARGIN_UM
from mitoray.slide.window import SAME_RESOLUTION

DETECTOR_THRESHOLD: Final = 0.1
"""Where neither the method nor the classifier says from which detector score candidates are classified."""


@dataclass(frozen=True)
class Levels:
    """The scores that decide what goes on: from the detector's points, and of the candidates' final scores."""

    detector: float
    final: float

    @classmethod
    def of(cls, method: Method, detector: Model, classifier: Bundle | None) -> "Levels":
        """Those of a run: with a classifier its thresholds decide, and the detector's threshold lies low."""
        deciding = classifier or detector
        final = method.lowest_threshold(deciding.threshold, deciding.thresholds)
        if classifier is None:
            return cls(final, final)
        given = (method.detector_threshold, classifier.candidate_threshold, DETECTOR_THRESHOLD)
        return cls(next(level for level in given if level is not None), final)


class SecondStage:
    """A classifier or ensemble on a device, and how its scores become one with the detector's."""

    def __init__(self, bundle: Bundle, final_threshold: float, device: str = "cpu", threads: int | None = None) -> None:
        """final_threshold: lowest final score that is kept. Raises as `Bundle.classifier`."""
        self._classifier = bundle.classifier(device, threads)
        self._combination = bundle.combining
        self._threshold = final_threshold
        self.device = self._classifier.device

    @classmethod
    def of(cls, cohort: Cohort, digest: str | None, final_threshold: float, device: str) -> "SecondStage | None":
        """The cohort's, None for a single-stage run. Raises BadModel where the bundle has another digest by now."""
        if cohort.classifier is None:
            return None
        return cls(load_bundle(cohort.classifier, cohort.storage_options, digest), final_threshold, device)

    def judged(
        self,
        image: torch.Tensor,
        image_mpp: float,
        xy_px: NDArray[np.float64],
        slide_xy_px: NDArray[np.float64],
        detector_scores: NDArray[np.float32],
    ) -> list[dict[str, Any]]:
        """The candidates of a region, as SCORES holds them; those below the final threshold are left out.

        image: uint8 (h, w, 3), on the device. xy_px: (n, 2), px of the image; slide_xy_px: the same, level-0 px.
        """
        if not len(xy_px):
            return []
        verdicts = self._verdicts(image, image_mpp, xy_px)
        final = self._combination.scores(detector_scores, verdicts.members).astype(np.float32)
        of_classifiers = classifier_scores(self._combination, verdicts.members)
        kept = np.flatnonzero(final >= self._threshold)
        rows = candidate_rows(slide_xy_px[kept], detector_scores[kept])
        for row, i in zip(rows, kept, strict=True):
            row["classifier_score"], row["score"] = float(of_classifiers[i]), float(final[i])
            row["atypical_probability"] = None if np.isnan(verdicts.atypical[i]) else float(verdicts.atypical[i])
            row["member_scores"] = verdicts.members[i].tolist()
        return rows

    def _verdicts(self, image: torch.Tensor, image_mpp: float, xy_px: NDArray[np.float64]) -> Verdicts:
        mpp, patch_px = self._classifier.mpp, self._classifier.patch_px
        found = [
            self._classifier.classify(
                patches_around(image, xy_px[first : first + BATCH], image_mpp=image_mpp, mpp=mpp, patch_px=patch_px)
            )
            for first in range(0, len(xy_px), BATCH)
        ]
        return Verdicts(np.concatenate([v.members for v in found]), np.concatenate([v.atypical for v in found]))


def classifier_scores(combination: Combination, members: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weighted mean (n,) of the members' scores (n, m) alone, not calibrated; plain where all their weights are 0."""
    weights = np.array(combination.weights)
    mean: NDArray[np.float64] = np.average(members, axis=1, weights=weights if weights.any() else None)
    return mean


def candidate_rows(slide_xy_px: NDArray[np.float64], detector_scores: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Candidates (n, 2), level-0 px, as SCORES holds them when there is no second stage."""
    return [
        {
            "x_px": float(x),
            "y_px": float(y),
            "detector_score": float(score),
            "classifier_score": None,
            "score": float(score),
            "atypical_probability": None,
            "member_scores": None,
        }
        for (x, y), score in zip(slide_xy_px, detector_scores, strict=True)
    ]


def second_halo_um(bundle: Bundle) -> float:
    """Context around a core that patches of candidates up to the border margin outside it look at, µm."""
    classifier = bundle.classifier()
    return reach_px(classifier.patch_px) * classifier.mpp * (1 + SAME_RESOLUTION) + BORDER_MARGIN_UM


def check_stages(detector: Model, classifier: Bundle | None, method: Method) -> None:
    """Raises BadModel where the two cannot work together or lack what the method asks for, BadOption for the method."""
    if isinstance(detector, Bundle) and detector.is_classifier:
        detector.detector()  # refuses, and says what to do
    if classifier is None:
        if given := [name for name in ("detector_threshold", "subtypes") if getattr(method, name)]:
            raise BadOption(f"{given[0]} is of the second stage; give a classifier as well, or leave it out.")
        return
    reach_um = second_halo_um(classifier)
    if classifier.mpp < detector.mpp * (1 - SAME_RESOLUTION):
        raise BadModel(
            f"classifier {classifier.name} takes {classifier.mpp:g} µm/px, finer than the {detector.mpp:g} µm/px that "
            f"model {detector.name} reads: such pixels are not there. Give a classifier of {detector.mpp:g} µm/px or "
            f"coarser, or a model of {classifier.mpp:g} µm/px."
        )
    if method.subtypes and not classifier.has_subtypes:
        raise BadModel(
            f"classifier {classifier.name} has no subtype head, and subtypes are asked for: give one that was trained "
            "with subtypes, or leave subtypes out."
        )
    if reach_um >= method.region_um:
        raise BadOption(f"region_um {method.region_um:g} must be above the {reach_um:.0f} µm that the classifier sees.")
