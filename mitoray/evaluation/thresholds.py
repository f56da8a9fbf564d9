"""The score above which a detection is called a mitotic figure."""

from dataclasses import dataclass

import numpy as np

from mitoray.evaluation.curves import Sweep
from mitoray.evaluation.matching import FloatArray


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
    tried = counts if grid is None else counts.at(-np.sort(-np.asarray(grid, dtype=np.float64)))
    if len(counts.thresholds) == 0 or len(tried.thresholds) == 0:
        return None
    best = int(np.argmax(tried.f1))
    tp, fp = int(tried.tp[best]), int(tried.fp[best])
    return OperatingPoint(float(tried.thresholds[best]), tp, fp, counts.n_labels - tp, float(tried.f1[best]))
