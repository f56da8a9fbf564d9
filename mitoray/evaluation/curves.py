"""True and false positives at every threshold at once, and the curves drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadOption
from mitoray.evaluation.matching import FloatArray, IntArray, Matching


@dataclass(frozen=True)
class Sweep:
    """Counts at every threshold that makes a difference, from the highest to the lowest.

    scores: (k,) float64, the distinct scores, falling. tp, fp: (k,) int64, of the detections with at least that score.
    n_labels: mitotic figures in all.
    """

    scores: FloatArray
    tp: IntArray
    fp: IntArray
    n_labels: int

    @property
    def thresholds(self) -> FloatArray:
        """(k,) midway between each score and the next lower one, so that `score > threshold` is unmoved by rounding."""
        return _below(self.scores)

    @property
    def precision(self) -> FloatArray:
        """(k,) share of the detections that are true; NaN where there is none."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> FloatArray:
        """(k,) share of the labels that are found (sensitivity); NaN where there is none."""
        return _ratio(self.tp, np.full(len(self.tp), self.n_labels))

    def above(self, thresholds: FloatArray) -> tuple[IntArray, IntArray]:
        """True and false positives of the detections with score > threshold, for any thresholds in any order."""
        n_above = np.searchsorted(-self.scores, -np.asarray(thresholds, dtype=np.float64), side="left")
        return np.append(0, self.tp)[n_above], np.append(0, self.fp)[n_above]


class ScoredOutcomes:
    """True and false positives of several slides by falling score, to be swept whole or resampled by slide."""

    def __init__(self, matchings: Sequence[Matching]) -> None:
        scores = [s for m in matchings for s in (m.true_scores, m.false_scores)]
        sizes = [len(s) for s in scores]
        joined = np.concatenate([np.empty(0), *scores])
        order = np.argsort(-joined, kind="stable")
        joined = joined[order]
        self._source = np.repeat(np.arange(len(scores)), sizes)[order]  # 2 × slide, and one more for a false positive
        self._labels = np.array([len(m.label_detection) for m in matchings], dtype=np.int64)
        self._last = np.flatnonzero(np.diff(joined, append=-np.inf))  # of each run of equal scores
        self._scores = joined[self._last]

    def sweep(self, times: IntArray | None = None) -> Sweep:
        """Count over all slides, or with slide i taken `times[i]` times."""
        times = np.ones_like(self._labels) if times is None else times
        weight = times[self._source // 2]
        false = self._source % 2
        tp, fp = (np.cumsum(weight * kind)[self._last] for kind in (1 - false, false))
        return Sweep(self._scores, tp, fp, int(times @ self._labels))


def sweep(matchings: Sequence[Matching]) -> Sweep:
    """Counts over all slides at every threshold that makes a difference."""
    return ScoredOutcomes(matchings).sweep()


def average_precision(counts: Sweep) -> float:
    """Area under the precision-recall steps, without interpolation: Σ (Rₖ − Rₖ₋₁) Pₖ. NaN without labels.

    The same as scikit-learn's `average_precision_score` where every label is detected; labels never detected count as
    recall never reached. Papers that interpolate (COCO: 101 points) give slightly more.
    """
    if counts.n_labels == 0:
        return np.nan
    gained = np.diff(counts.tp, prepend=0)
    return float(np.nansum(gained * counts.precision) / counts.n_labels)


def froc(counts: Sweep, area_mm2: float) -> tuple[FloatArray, FloatArray]:
    """False positives per mm² and sensitivity, (k,) each, from the highest threshold to the lowest."""
    if not area_mm2 > 0:
        raise BadOption(f"area_mm2 must be a positive number of mm², not {area_mm2}")
    return counts.fp / area_mm2, counts.recall


def sensitivity_at(counts: Sweep, area_mm2: float, fp_per_mm2: float) -> float:
    """Highest sensitivity with at most so many false positives per mm². NaN without labels."""
    rate, sensitivity = froc(counts, area_mm2)
    reached = int(np.searchsorted(rate, fp_per_mm2, side="right"))
    return float(sensitivity[reached - 1]) if reached else (0.0 if counts.n_labels else np.nan)


def _below(scores: FloatArray) -> FloatArray:
    """For falling distinct scores a threshold under each and not under the next."""
    if len(scores) == 0:
        return scores
    floor = min(0.0, float(np.nextafter(scores[-1], -np.inf)))
    lower = np.append(scores[1:], floor)
    middle = lower + (scores - lower) / 2
    return np.where(middle < scores, middle, lower)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> FloatArray:
    ratio: FloatArray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio
