"""Which detections are true, and which of several detections of the same cell stays.

Everything here sees the points of one slide. Coordinates and radius share one unit, µm or px; a distance equal to the
radius is within it. Published radii: 25 px at 0.25 µm/px = 6.25 µm (CCMCT, CMC, TUPAC), 7.5 µm (MIDOG).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RADIUS_UM: Final = 6.25
"""25 px at 0.25 µm/px: Aubreville et al. 2020, Technical Validation."""

_PAIRS_AT_ONCE: Final = 4_000_000
"""Pairs of a detection and a label held in memory at a time; 24 bytes each."""


@dataclass(frozen=True)
class Matching:
    """What became of each detection and each label of one slide.

    detection_label: (n,) int64, the label a detection stands for, -1 for none (a false positive).
    label_detection: (m,) int64, the best detection that stands for a label, -1 for none (a false negative).
    true_scores: (t,) float64, at a threshold below which of the scores each found label counts as found.
    false_scores: (f,) float64, at a threshold below which of the scores each false positive counts.

    Both rules take the detections best score first, so raising a threshold never changes who is matched to whom: true
    positives at a threshold are the `true_scores` above it, false positives the `false_scores` above it.
    """

    detection_label: IntArray
    label_detection: IntArray
    true_scores: FloatArray
    false_scores: FloatArray

    def counts(self, threshold: float = -np.inf) -> tuple[int, int, int]:
        """Count true positives, false positives and false negatives of the detections with score > threshold."""
        tp = int((self.true_scores > threshold).sum())
        return tp, int((self.false_scores > threshold).sum()), len(self.label_detection) - tp


def match(detections: FloatArray, scores: FloatArray, labels: FloatArray, radius: float) -> Matching:
    """Match one to one: detections, best score first, each take the nearest label within the radius that is still free.

    detections: (n, 2) float64, scores: (n,) float64, labels: (m, 2) float64. Equal scores go by position (x, then y),
    equal distances too, so the order of the rows does not matter. Raises BadOption for input that is not finite.
    """
    detection_label, label_detection = _unmatched(detections), _unmatched(labels)
    for near, close in pairs_within(detections, scores, labels, radius):
        for detection, label in zip(near.tolist(), close.tolist(), strict=True):
            if detection_label[detection] < 0 and label_detection[label] < 0:
                detection_label[detection] = label
                label_detection[label] = detection
    return _matching(detection_label, label_detection, scores)


def match_linked(detections: FloatArray, scores: FloatArray, labels: FloatArray, radius: float) -> Matching:
    """Match many to one, as the published CMC and TUPAC evaluation does (Aubreville et al. 2020, Technical Validation).

    A label is found if any detection lies within the radius; a detection is false if no label does. Run `nms` before.
    Arguments and errors as in `match`.
    """
    detection_label, label_detection = _unmatched(detections), _unmatched(labels)
    for near, close in pairs_within(detections, scores, labels, radius):
        linked, first = np.unique(near, return_index=True)
        detection_label[linked] = close[first]
        found, first = np.unique(close, return_index=True)
        new = label_detection[found] < 0
        label_detection[found[new]] = near[first[new]]
    return _matching(detection_label, label_detection, scores)


def nms(points: FloatArray, scores: FloatArray, radius: float) -> IntArray:
    """Keep, best score first, every point with no kept point within the radius; returns their indices, best first.

    points: (n, 2) float64, scores: (n,) float64. Equal scores go by position (x, then y). Exact, in memory linear in n.
    Raises BadOption for input that is not finite.
    """
    points = _points(points)
    order = best_first(points, _scores(scores, points))
    # Cells so small that two points in one are always within the radius: each holds at most one kept point.
    cells = np.floor((points - points.min(axis=0, initial=np.inf)) / (0.7 * _radius(radius))).astype(np.int64) + 2
    n_rows = int(cells[:, 1].max(initial=0)) + 3
    around = [i * n_rows + j for i in range(-2, 3) for j in range(-2, 3) if (i, j) != (0, 0)]
    kept_in: dict[int, tuple[float, float]] = {}
    kept = []
    ranked = zip(
        order.tolist(), (cells[:, 0] * n_rows + cells[:, 1])[order].tolist(), points[order].tolist(), strict=True
    )
    for index, cell, (x, y) in ranked:
        if cell in kept_in:
            continue
        rivals = (kept_in[cell + step] for step in around if cell + step in kept_in)
        if all(math.hypot(x - a, y - b) > radius for a, b in rivals):
            kept_in[cell] = (x, y)
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def best_first(points: FloatArray, scores: FloatArray) -> IntArray:
    """Order points by falling score; equal scores by x, then y."""
    return np.lexsort((points[:, 1], points[:, 0], -scores))


def precision(tp: int, fp: int) -> float:
    """Share of detections that are true; NaN where there are none."""
    return tp / (tp + fp) if tp + fp else np.nan


def recall(tp: int, fn: int) -> float:
    """Share of labels that are found; NaN where there are none."""
    return tp / (tp + fn) if tp + fn else np.nan


def f1_score(tp: int, fp: int, fn: int) -> float:
    """2 TP / (2 TP + FP + FN), Aubreville et al. 2020, equation 1; NaN where there is neither label nor detection."""
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else np.nan


def pairs_within(
    detections: FloatArray, scores: FloatArray, labels: FloatArray, radius: float
) -> Iterator[tuple[IntArray, IntArray]]:
    """Indices of detections and labels within the radius: the best detection first, and its nearest label first."""
    detections, labels = _points(detections), _points(labels)
    order = best_first(detections, _scores(scores, detections))
    label_order = np.lexsort((labels[:, 1], labels[:, 0]))
    labels, radius = labels[label_order], _radius(radius)
    if len(labels) == 0:
        return
    tree = cKDTree(labels)
    n_near = tree.query_ball_point(detections[order], radius, return_length=True)
    order, n_near = order[n_near > 0], n_near[n_near > 0]
    batch = np.cumsum(n_near) // _PAIRS_AT_ONCE
    for ranks in np.split(order, np.flatnonzero(np.diff(batch)) + 1):
        pairs = cKDTree(detections[ranks]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs["j"], pairs["v"], pairs["i"]))]
        yield ranks[pairs["i"]], label_order[pairs["j"]]


def _matching(detection_label: IntArray, label_detection: IntArray, scores: FloatArray) -> Matching:
    scores, found = np.asarray(scores, dtype=np.float64), label_detection[label_detection >= 0]
    return Matching(detection_label, label_detection, scores[found], scores[detection_label < 0])


def _unmatched(points: FloatArray) -> IntArray:
    return np.full(len(points), -1, dtype=np.int64)


def _points(points: FloatArray) -> FloatArray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadOption(f"points must have the shape (n, 2), x and y, not {points.shape}")
    if not np.isfinite(points).all():
        raise BadOption("points must be finite; remove rows with NaN or infinite coordinates")
    return points


def _scores(scores: FloatArray, points: FloatArray) -> FloatArray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(points),):
        raise BadOption(f"{len(points)} points need as many scores, not an array of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise BadOption("scores must be finite; remove rows with NaN or infinite scores")
    return scores


def _radius(radius: float) -> float:
    if not (np.isfinite(radius) and radius > 0):
        raise BadOption(f"the radius must be a positive number, not {radius}")
    return radius
