"""The score above which a detection is called a mitotic figure."""

from dataclasses import dataclass

import numpy as np

from mitoray.evaluation.curves import Sweep
from mitoray.evaluation.matching import FloatArray, f1_score


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of the detections with score > threshold, and their F1. `f1` is NaN with neither label nor detection."""

    threshold: float
    tp: int
    fp: int
    fn: int
    f1: float


def best_threshold(counts: Sweep, grid: FloatArray | None = None) -> OperatingPoint | None:
    """Threshold with the highest F1 over all slides summed; of equals the highest. None without detections.

    Exact: every threshold that makes a difference is tried. With `grid` only those given are, as papers do (MIDOG++:
    `np.arange(0.5, 1, 0.01)`).
    """
    if len(counts.scores) == 0:
        return None
    thresholds = counts.thresholds if grid is None else -np.sort(-np.asarray(grid, dtype=np.float64))
    tp, fp = counts.above(thresholds)
    judged = tp + fp + counts.n_labels
    f1 = np.divide(2 * tp, judged, out=np.full(len(tp), -1.0), where=judged > 0)
    best = int(np.argmax(f1))
    n_true, n_false, n_missed = int(tp[best]), int(fp[best]), int(counts.n_labels - tp[best])
    return OperatingPoint(float(thresholds[best]), n_true, n_false, n_missed, f1_score(n_true, n_false, n_missed))
