"""The cut of a value that separates survival most, and what that is worth once the search is accounted for."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import norm

from mitoray.errors import BadOption, TooFewEvents
from mitoray.survival.censoring import BoolArray, FloatArray
from mitoray.survival.kaplan_meier import check_followed
from mitoray.survival.log_rank_cuts import IntArray, RiskSets, cut_statistics
from mitoray.survival.maximal_selection import lausen_schumacher_1992, lausen_schumacher_1994

MIN_SHARE: Final = 0.1
"""Of patients on the smaller side, as Altman et al. 1994 and maxstat have it."""

PUBLISHED_CUT: Final = 11.0
"""Mitotic figures in 2 mm² that separate overall survival in TCGA-BRCA: Fick et al. 2024, §4."""


@dataclass(frozen=True)
class CutSearch:
    """All admissible cuts of a value. A patient is high where the value is `cut` or more.

    cuts: (k,) float64, ascending, observed values. n_high: (k,) int64. z: (k,) float64, signed log-rank statistic,
    positive where the high die more. naive_p: (k,) float64, of each cut as if it had been the only one.
    maxima: (r,) float64, the largest |z| of each permutation of the values; empty where none were asked for.
    """

    n: int
    n_events: int
    min_share: float
    cuts: FloatArray
    n_high: IntArray
    z: FloatArray
    naive_p: FloatArray
    maxima: FloatArray

    @property
    def best(self) -> int:
        """Index of the cut with the largest |z|, so the smallest naive p; of equals the lowest cut."""
        return int(np.argmax(np.abs(self.z)))

    @property
    def cut(self) -> float:
        """The best cut."""
        return float(self.cuts[self.best])

    @property
    def statistic(self) -> float:
        """Its |z|."""
        return float(abs(self.z[self.best]))

    @property
    def best_naive_p(self) -> float:
        """What is often reported, and rejects far too often."""
        return float(self.naive_p[self.best])

    @property
    def p_1992(self) -> float:
        """Corrected for the search, for a continuous value: Lausen and Schumacher 1992."""
        return lausen_schumacher_1992(self.statistic, self.min_share)

    @property
    def p_1994(self) -> float:
        """Corrected for the search over the cuts that there are: Lausen, Sauerbrei and Schumacher 1994."""
        return lausen_schumacher_1994(self.statistic, self.n, (self.n - self.n_high).tolist())

    @property
    def permutation_p(self) -> float:
        """Corrected by permutation: how often values dealt out at random separate as well. NaN without permutations."""
        return float(self.honest_p[self.best])

    @property
    def honest_p(self) -> FloatArray:
        """(k,) float64: of each cut, corrected for the search (Westfall and Young 1993). NaN without permutations."""
        if not len(self.maxima):
            return np.full(len(self.cuts), np.nan)
        as_large = len(self.maxima) - np.searchsorted(np.sort(self.maxima), np.abs(self.z) - 1e-9, side="left")
        return np.asarray((1 + as_large) / (1 + len(self.maxima)), dtype=np.float64)


@dataclass(frozen=True)
class CutBootstrap:
    """Where the best cut falls in other samples of such patients.

    cuts: (r,) float64, the best cut of each draw; low and high: the 95 % percentile interval; n_undefined: draws
    without any admissible cut or event, left out.
    """

    cuts: FloatArray
    low: float
    high: float
    n_undefined: int


def search_cut(
    value: FloatArray,
    time: FloatArray,
    event: BoolArray,
    *,
    min_share: float = MIN_SHARE,
    permutations: int = 1000,
    seed: int = 0,
) -> CutSearch:
    """Every cut of `value` that leaves at least `min_share` of the patients on either side.

    value: (n,) float64; time: (n,) float64, positive; event: (n,) bool. The statistic is the log-rank test's, which is
    the score test of Cox's model with the cut as its only covariate: the best cut is the one with the smallest such p.
    Raises BadOption where no cut is admissible or a value is not finite, TooFewEvents without events.
    """
    _check(value, time, event, min_share, permutations)
    candidates, bins = _candidates(value)
    risk, once = RiskSets.of(time, event), np.ones((1, len(value)), np.int64)
    z, n_high = cut_statistics(risk, bins[None, :], once, len(candidates))
    admissible = _admissible(n_high[0], len(value), min_share)
    if not admissible.any():
        raise BadOption(
            f"No cut leaves {min_share:.0%} of the {len(value)} patients on either side. Lower the share, or use the "
            "value as it is: a continuous model needs no cut."
        )
    # Fewer bins make smaller tables: only admissible cuts are looked at from here on.
    cuts = candidates[admissible]
    bins = np.searchsorted(cuts, value, side="right")
    rng = np.random.default_rng(seed)
    maxima = np.empty(permutations)
    for first in range(0, permutations, _DRAWS_AT_ONCE):
        n_draws = min(_DRAWS_AT_ONCE, permutations - first)
        dealt = rng.permuted(np.broadcast_to(bins, (n_draws, len(bins))), axis=1)
        permuted, _ = cut_statistics(risk, dealt, once, len(cuts))
        maxima[first : first + n_draws] = np.abs(permuted).max(axis=1)
    chosen = z[0, admissible]
    return CutSearch(
        n=len(value),
        n_events=int(event.sum()),
        min_share=min_share,
        cuts=cuts,
        n_high=n_high[0, admissible],
        z=chosen,
        naive_p=2 * norm.sf(np.abs(chosen)),
        maxima=maxima,
    )


def bootstrap_cut(
    value: FloatArray,
    time: FloatArray,
    event: BoolArray,
    *,
    min_share: float = MIN_SHARE,
    repeats: int = 1000,
    seed: int = 0,
) -> CutBootstrap:
    """The best cut of `repeats` samples of the patients, drawn with replacement. Otherwise as `search_cut`."""
    _check(value, time, event, min_share, repeats)
    candidates, bins = _candidates(value)
    risk, n = RiskSets.of(time, event), len(value)
    rng = np.random.default_rng(seed)
    found: list[FloatArray] = []
    for first in range(0, repeats, _DRAWS_AT_ONCE):
        n_draws = min(_DRAWS_AT_ONCE, repeats - first)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=n_draws)
        z, n_high = cut_statistics(risk, np.broadcast_to(bins, (n_draws, n)), weights, len(candidates))
        size = np.where(_admissible(n_high, n, min_share), np.abs(z), -1.0)
        best = size.argmax(axis=1)
        # Cuts between which nobody was drawn are one and the same: its name is the value of somebody who was.
        best = (n_high >= np.take_along_axis(n_high, best[:, None], axis=1)).sum(axis=1) - 1
        found.append(candidates[best[size.max(axis=1) > 0]])
    cuts = np.concatenate(found) if found else np.empty(0)
    low, high = np.quantile(cuts, [0.025, 0.975], method="inverted_cdf") if len(cuts) else (np.nan, np.nan)
    return CutBootstrap(cuts, float(low), float(high), repeats - len(cuts))


_DRAWS_AT_ONCE: Final = 500


def _candidates(value: FloatArray) -> tuple[FloatArray, IntArray]:
    """All cuts that leave somebody on either side, and how many of them each value reaches."""
    cuts = np.unique(value)[1:]
    return cuts, np.searchsorted(cuts, value, side="right")


def _admissible(n_high: IntArray, n: int, min_share: float) -> BoolArray:
    fewest = max(1, int(np.ceil(min_share * n - 1e-9)))
    return np.asarray((n_high >= fewest) & (n - n_high >= fewest), dtype=np.bool_)


def _check(value: FloatArray, time: FloatArray, event: BoolArray, min_share: float, draws: int) -> None:
    check_followed(time, event, value)
    if not np.isfinite(value).all():
        raise BadOption("A value to cut is missing or not finite. Leave such patients out first.")
    if not 0 < min_share < 0.5:
        raise BadOption(f"The smaller side of a cut must hold more than 0 and less than half of all, not {min_share}.")
    if draws < 0:
        raise BadOption(f"Permutations and bootstrap draws must be 0 or more, not {draws}.")
    if not event.any():
        raise TooFewEvents("No cut without events: nobody had one. Follow longer, or take an endpoint with events.")
