"""What the best of many cuts is worth: p-values of maximally selected statistics."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from mitoray.errors import BadOption


def lausen_schumacher_1992(statistic: float, min_share: float) -> float:
    """P that the largest |z| over all cuts with at least `min_share` of patients on either side exceeds `statistic`.

    Asymptotic, for a continuous value: Lausen and Schumacher 1992, after Miller and Siegmund 1982. 1 for a statistic
    below 1, where the approximation has no meaning.
    """
    if not 0 < min_share < 0.5:
        raise BadOption(f"The smaller side of a cut must hold more than 0 and less than half of all, not {min_share}.")
    if statistic < 1:
        return 1.0
    density = float(norm.pdf(statistic))
    width = 2 * math.log((1 - min_share) / min_share)
    return min(1.0, density * (4 / statistic + (statistic - 1 / statistic) * width))


def lausen_schumacher_1994(statistic: float, n: int, below: Sequence[int]) -> float:
    """The same for the cuts that there are: an improved Bonferroni inequality, so never much too small.

    n: patients; below: how many of them lie below each cut, ascending. After Lausen, Sauerbrei and Schumacher 1994;
    sharper than that of 1992 where values are tied, as counts are.
    """
    m = np.asarray(below, dtype=float)
    first, second = m[:-1], m[1:]
    t = np.sqrt(1 - first * (n - second) / ((n - first) * second))
    added = math.exp(-(statistic**2) / 2) / math.pi * (t - (statistic**2 / 4 - 1) * t**3 / 6)
    return float(min(1.0, max(0.0, 2 * norm.sf(statistic) + added.sum())))
