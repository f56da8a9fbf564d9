"""How far a figure would move with other slides of the same kind."""

from collections.abc import Callable

import numpy as np

from mitoray.errors import BadOption
from mitoray.evaluation.matching import IntArray


def slide_interval(
    statistic: Callable[[IntArray], float], n_slides: int, *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval over slides, the independent unit: cells of one slide are not.

    statistic: takes (n_slides,) int64, how often each slide was drawn. Draws in which it is NaN are left out; all NaN
    gives (NaN, NaN). Raises BadOption for no repeats or a level outside 0 to 1.
    """
    if repeats < 1 or not 0 < level < 1:
        raise BadOption(f"a bootstrap needs one repeat or more and a level between 0 and 1, not {repeats} and {level}")
    if n_slides == 0:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides))) for _ in range(repeats)]
    values = np.array(draws)[~np.isnan(draws)]
    if len(values) == 0:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
