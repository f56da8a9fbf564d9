"""Restricted cubic splines: smooth between the outer knots, straight beyond them."""

from typing import Final

import numpy as np

from mitoray.errors import BadOption
from mitoray.survival.censoring import FloatArray

KNOT_QUANTILES: Final[dict[int, tuple[float, ...]]] = {
    3: (0.10, 0.50, 0.90),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.50, 0.725, 0.95),
}
"""Where knots lie: Harrell, Regression Modeling Strategies (2nd ed. 2015), Table 2.3."""


def knots_of(values: FloatArray, n_knots: int = 4) -> FloatArray:
    """Knots at Harrell's quantiles of the values. Raises BadOption where values are so tied that knots coincide."""
    if n_knots not in KNOT_QUANTILES:
        raise BadOption(f"A spline takes 3, 4 or 5 knots, not {n_knots}.")
    knots = np.quantile(values, KNOT_QUANTILES[n_knots])
    if len(np.unique(knots)) < n_knots:
        remedy = "Take fewer knots, or" if n_knots > 3 else "Take"
        raise BadOption(
            f"A spline with {n_knots} knots needs more distinct values: too many patients share one. {remedy} the "
            "logarithm of the count instead."
        )
    return np.asarray(knots, dtype=np.float64)


def spline_basis(values: FloatArray, knots: FloatArray) -> FloatArray:
    """(n, k − 1) float64: the values themselves, then k − 2 terms that bend them, all in the values' unit.

    Harrell 2015, §2.4.5: the truncated power basis, divided by the square of the knots' range.
    """
    last, before_last = knots[-1], knots[-2]

    def cubed(knot: float) -> FloatArray:
        return np.asarray(np.maximum(values - knot, 0) ** 3, dtype=np.float64)

    gap, square = last - before_last, (last - knots[0]) ** 2
    bends = [
        (cubed(k) - cubed(before_last) * (last - k) / gap + cubed(last) * (before_last - k) / gap) / square
        for k in knots[:-2]
    ]
    return np.stack([values, *bends], axis=1)
