"""Pathologists against each other: the yardstick that a detector's F1 is to be held to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from mitoray.errors import BadOption
from mitoray.evaluation.matching import f1_score, precision, recall


@dataclass(frozen=True)
class RaterScores:
    """One rater's calls against the majority's. `kappa` is Cohen's, NaN where only one class occurs."""

    rater: str
    n: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    kappa: float


def raters_against_majority(votes: NDArray[np.bool_], raters: list[str]) -> list[RaterScores]:
    """Judge each rater by what more than half of all raters, the rater included, call a mitotic figure.

    votes: (candidates, raters) bool. The rater's own vote counts in the majority, which flatters all raters alike; an
    even split is no mitotic figure. Raises BadOption unless there is a column per rater and a candidate.
    """
    votes = np.asarray(votes, dtype=bool)
    if votes.ndim != 2 or votes.shape[1] != len(raters) or len(votes) == 0:
        raise BadOption(f"votes must have the shape (candidates, {len(raters)} raters), not {votes.shape}")
    majority = votes.sum(axis=1) * 2 > len(raters)
    return [_scores(rater, votes[:, i], majority) for i, rater in enumerate(raters)]


def _scores(rater: str, called: NDArray[np.bool_], truth: NDArray[np.bool_]) -> RaterScores:
    tp, fp, fn = int((called & truth).sum()), int((called & ~truth).sum()), int((~called & truth).sum())
    both = len({*called.tolist(), *truth.tolist()}) == 2
    kappa = float(cohen_kappa_score(called, truth)) if both else np.nan
    return RaterScores(rater, len(called), tp, fp, fn, precision(tp, fp), recall(tp, fn), f1_score(tp, fp, fn), kappa)
