"""Scores made probabilities, and how far from probabilities they are."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mitoray.errors import BadLabels, BadOption
from mitoray.evaluation.matching import FloatArray
from mitoray.models.combination import Isotonic, Temperature

Method = Literal["none", "temperature", "isotonic"]

KNOTS: Final = 64
_LEAST: Final = 1e-6
"""Log-odds are taken of scores this near to 0 and 1 at most, as `Temperature` does."""
_SUREST: Final = 1e-3
"""No share of a finite number of candidates makes sure of the next: isotonic probabilities keep this from 0 and 1."""
_TILT: Final = 0.1
"""Share by which the isotonic curve still falls below its first level, and rises to 1 above its last."""
_SAME: Final = 1e-6
"""Levels of the isotonic curve this near are one: they differ by rounding, or by less than stored scores can show."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Candidates by bins of their probability. mean_probability, share_true: NaN where `count` is 0; all (bins,)."""

    mean_probability: FloatArray
    share_true: FloatArray
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3): Σ count / n · |share_true − mean_probability|."""
        filled = self.count > 0
        gaps = np.abs(self.share_true - self.mean_probability)[filled]
        return float(self.count[filled] @ gaps / self.count.sum())


def reliability(probabilities: FloatArray, truths: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Share of true candidates against mean probability, in bins of equal width (15 in Guo et al. 2017).

    probabilities: (n,) in [0, 1], truths: (n,) bool. A bin holds its upper edge, the first its lower one too. Raises
    BadOption for no candidates, shapes that differ, or probabilities outside 0 to 1.
    """
    probabilities, truths = _checked(probabilities, truths)
    if bins < 1:
        raise BadOption(f"{bins} bins are too few. Ask for 1 or more.")
    place = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    empty = np.full(bins, np.nan)
    mean = np.divide(np.bincount(place, probabilities, bins), count, out=empty.copy(), where=count > 0)
    share = np.divide(np.bincount(place, truths, bins), count, out=empty.copy(), where=count > 0)
    return Reliability(mean, share, count)


def expected_calibration_error(probabilities: FloatArray, truths: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance of probability and share of true candidates over bins of equal width, weighted by their counts.

    Guo et al. 2017, equation 3. Arguments and errors as in `reliability`.
    """
    return reliability(probabilities, truths, bins).error


def calibrated(method: Method, scores: FloatArray, truths: NDArray[np.bool_]) -> Temperature | Isotonic | None:
    """The calibration that fits candidates best; None for "none". Both kinds keep the order of scores.

    scores: (n,) in [0, 1], truths: (n,) bool, whether each stands for a labelled figure. So a probability is that of a
    candidate, among such candidates as these: figures that are no candidate at all do not enter.
    Raises BadLabels where all are true or all are false, or where lower scores are true more often; BadOption as
    `reliability`.
    """
    if method == "none":
        return None
    scores, truths = _checked(scores, truths)
    if truths.all() or not truths.any():
        raise BadLabels(
            f"All {len(truths)} candidates to calibrate on are {'true' if truths.all() else 'false'}. Search on slides "
            "with true and false ones, or ask for no calibration."
        )
    return _temperature(scores, truths) if method == "temperature" else _isotonic(scores, truths)


def _temperature(scores: FloatArray, truths: NDArray[np.bool_]) -> Temperature:
    """Logistic regression of truth on the scores' log-odds (Guo et al. 2017; with a bias, Platt 1999)."""
    clipped = np.clip(scores, _LEAST, 1 - _LEAST)
    log_odds = np.log(clipped / (1 - clipped))
    # A regularisation too weak to be seen: without any, separable candidates would ask for a temperature of 0.
    fitted = LogisticRegression(C=1e4, max_iter=1000, tol=1e-8).fit(log_odds[:, None], truths)
    slope, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise _upside_down()
    return Temperature(temperature=1 / slope, bias=bias)


def _isotonic(scores: FloatArray, truths: NDArray[np.bool_]) -> Isotonic:
    """Isotonic regression, each flat drawn together to one knot at its mean score (centred: Oron and Flournoy 2017).

    So candidates that differ in score still do in probability, and a threshold on the one is a threshold on the other.
    """
    levels = IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, truths)
    distinct, place = np.unique(levels, return_inverse=True)
    flat = np.cumsum(np.diff(distinct, prepend=distinct[0]) > _SAME)[place]
    if flat.max() == 0:
        raise _upside_down()
    # Neighbouring flats are taken together where they are more than the knots between the first and the last.
    group = flat * (KNOTS - 2) // (flat.max() + 1) if flat.max() >= KNOTS - 2 else flat
    size = np.bincount(group)
    x, y = np.bincount(group, scores) / size, _SUREST + (1 - 2 * _SUREST) * np.bincount(group, truths) / size
    first, last = y[0] * (1 - _TILT), 1 - (1 - y[-1]) * (1 - _TILT)
    if x[0] > 0:
        x, y = np.append(0.0, x), np.append(first, y)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, last)
    return Isotonic(scores=tuple(x.tolist()), probabilities=tuple(y.tolist()))


def _checked(scores: FloatArray, truths: NDArray[np.bool_]) -> tuple[FloatArray, NDArray[np.bool_]]:
    scores, truths = np.asarray(scores, dtype=np.float64), np.asarray(truths, dtype=bool)
    if scores.shape != truths.shape or scores.ndim != 1 or len(scores) == 0:
        raise BadOption(f"{truths.size} candidates need as many scores, and at least one; got {scores.size}.")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise BadOption("Probabilities must lie between 0 and 1. Correct the scores.")
    return scores, truths


def _upside_down() -> BadLabels:
    return BadLabels(
        "Candidates with lower scores are true more often than those with higher ones, so that no rising curve makes "
        "the scores probabilities. Check that scores and labels belong together, or ask for no calibration."
    )
