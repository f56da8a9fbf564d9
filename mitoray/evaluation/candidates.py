"""How well a classifier tells mitotic figures from imposters, or atypical from normal ones, on given candidates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from mitoray.errors import BadOption
from mitoray.evaluation.matching import FloatArray, f1_score, precision, recall


@dataclass(frozen=True)
class CandidateScores:
    """The confusion matrix at a threshold and what follows from it. NaN where the classes given do not define it."""

    n: int
    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int
    precision: float
    recall: float
    f1: float
    balanced_accuracy: float
    roc_auc: float


def candidate_scores(is_positive: NDArray[np.bool_], scores: FloatArray, threshold: float = 0.5) -> CandidateScores:
    """Judge scores of candidates, as Table 2 of Aubreville et al. 2020.

    is_positive: (n,) bool, the experts' word; scores: (n,) float, positive above the threshold. Balanced accuracy and
    ROC AUC are NaN unless both classes occur. Raises BadOption for no candidates, or scores that are not finite.
    """
    is_positive, scores = np.asarray(is_positive, dtype=bool), np.asarray(scores, dtype=np.float64)
    if len(scores) == 0 or is_positive.shape != scores.shape or not np.isfinite(scores).all():
        raise BadOption(
            f"{is_positive.size} candidates need as many finite scores, and at least one; got {scores.size} scores, "
            f"{int((~np.isfinite(scores)).sum())} of them not finite"
        )
    called = scores > threshold
    tn, fp, fn, tp = confusion_matrix(is_positive, called, labels=[False, True]).ravel().tolist()
    both = 0 < is_positive.sum() < len(is_positive)
    return CandidateScores(
        n=len(scores),
        threshold=threshold,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        precision=precision(tp, fp),
        recall=recall(tp, fn),
        f1=f1_score(tp, fp, fn),
        balanced_accuracy=float(balanced_accuracy_score(is_positive, called)) if both else np.nan,
        roc_auc=float(roc_auc_score(is_positive, scores)) if both else np.nan,
    )
