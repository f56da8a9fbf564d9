"""How well atypical figures are told from normal ones, with intervals over slides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mitoray.errors import BadLabels
from mitoray.evaluation.bootstrap import slide_interval
from mitoray.evaluation.matching import FloatArray, IntArray

BALANCED_ACCURACY: Final = "balanced accuracy at 0.5"
ROC_AUC: Final = "ROC AUC"

_Statistic = Callable[..., float]


@dataclass(frozen=True)
class Measured:
    """One figure of quality, its 95 % interval over slides, and the same within each group, such as a scanner.

    Groups in which a class is missing are left out.
    """

    value: float
    low: float
    high: float
    by_group: Mapping[str, float]


def subtype_quality(
    probability: FloatArray,
    is_atypical: NDArray[np.bool_],
    slides: Sequence[str],
    groups: Sequence[str],
    repeats: int = 1000,
) -> dict[str, Measured]:
    """Balanced accuracy (atypical from a probability of 0.5) and ROC AUC, as the AMi-Br benchmark states them.

    probability, is_atypical: (n,), of mitotic figures; slides, groups: n names. The interval draws slides with
    repetition. Raises BadLabels where all figures are of one subtype.
    """
    if is_atypical.all() or not is_atypical.any():
        raise BadLabels(f"All {len(is_atypical)} figures are of one subtype: nothing is to be told apart.")
    names, slide = np.unique(list(slides), return_inverse=True)
    group = np.array(list(groups))
    of_both = [name for name in np.unique(group) if len(np.unique(is_atypical[group == name])) == 2]

    def measured(statistic: _Statistic) -> Measured:
        def drawn(times: IntArray) -> float:
            weights = times[slide].astype(float)
            if min(weights[is_atypical].sum(), weights[~is_atypical].sum()) == 0:
                return np.nan
            return float(statistic(is_atypical, probability, weights))

        low, high = slide_interval(drawn, len(names), repeats=repeats)
        within = {
            str(name): float(statistic(is_atypical[group == name], probability[group == name])) for name in of_both
        }
        return Measured(float(statistic(is_atypical, probability)), low, high, within)

    return {BALANCED_ACCURACY: measured(_balanced), ROC_AUC: measured(_area)}


def _balanced(truth: NDArray[np.bool_], probability: FloatArray, weights: FloatArray | None = None) -> float:
    return float(balanced_accuracy_score(truth, probability >= 0.5, sample_weight=weights))


def _area(truth: NDArray[np.bool_], probability: FloatArray, weights: FloatArray | None = None) -> float:
    return float(roc_auc_score(truth, probability, sample_weight=weights))
