"""Log-rank statistics of every cut of a value at once, for many permutations or bootstrap draws of the patients.

Patients fall into the cells of a table, by the events between which their follow-up ended and the cuts between which
their value lies. Summed from the far corner, it tells for every event and every cut how many at risk were above it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.survival.censoring import BoolArray, FloatArray

IntArray = NDArray[np.int64]

_CELLS_AT_ONCE: Final = 50_000
"""Cells of a draw's table held at a time: more no longer fit the processor's cache, and take several times as long."""


@dataclass(frozen=True)
class RiskSets:
    """Who was at risk at which event.

    segment: (n,) int64, how many of the distinct event times a patient's follow-up reached; event: (n,) bool;
    n_times: distinct event times.
    """

    segment: IntArray
    event: BoolArray
    n_times: int

    @classmethod
    def of(cls, time: FloatArray, event: BoolArray) -> "RiskSets":
        """The risk sets of (n,) times of follow-up and (n,) events."""
        times = np.unique(time[event])
        return cls(np.searchsorted(times, time, side="right"), event, len(times))


def cut_statistics(risk: RiskSets, bins: IntArray, weights: IntArray, n_cuts: int) -> tuple[FloatArray, IntArray]:
    """Signed log-rank z of each cut, positive where those above die more, and how many are above it.

    bins: (b, n) int64, 0 to n_cuts: how many cuts a patient's value reaches, in each of b draws; weights: (b, n) or
    (1, n) int64, how often each patient was drawn. Both results are (b, n_cuts); z is 0 where the variance is. Squared,
    z is the log-rank statistic with the hypergeometric variance, and so the score statistic of Cox's model for the cut
    (exactly so without tied events).
    """
    b = len(bins)
    at_once = max(1, _CELLS_AT_ONCE // ((risk.n_times + 1) * (n_cuts + 1)))
    z, above = np.zeros((b, n_cuts)), np.zeros((b, n_cuts), np.int64)
    weights = np.broadcast_to(weights, bins.shape)
    for first in range(0, b, at_once):
        some = slice(first, first + at_once)
        z[some], above[some] = _some_statistics(risk, bins[some], weights[some], n_cuts)
    return z, above


def _some_statistics(risk: RiskSets, bins: IntArray, weights: IntArray, n_cuts: int) -> tuple[FloatArray, IntArray]:
    b = len(bins)
    # Bin 0 is below all cuts; segment 0 ended before the first event and is at risk at none.
    left = _table(risk.segment, bins, weights, (risk.n_times + 1, n_cuts + 1))
    at_risk = _summed_from_above(_summed_from_above(left, 2), 1)[:, 1:, :]
    all_at_risk, high_at_risk = at_risk[:, :, 0], at_risk[:, :, 1:]
    died = risk.event
    deaths = _table(risk.segment[died] - 1, bins[:, died], weights[:, died], (risk.n_times, n_cuts + 1))
    high_deaths = _summed_from_above(deaths.sum(axis=1), 1)[:, 1:]
    n_deaths = deaths.sum(axis=2)
    n = np.maximum(all_at_risk, 1)
    per_patient = n_deaths / n
    expected = np.matmul(per_patient[:, None, :], high_at_risk)[:, 0]
    spread = per_patient * (all_at_risk - n_deaths) / np.maximum(all_at_risk - 1, 1)
    squares = np.matmul((spread / n)[:, None, :], high_at_risk * high_at_risk)[:, 0]
    variance = np.matmul(spread[:, None, :], high_at_risk)[:, 0] - squares
    safe = variance > 1e-9
    z = np.where(safe, (high_deaths - expected) / np.sqrt(np.where(safe, variance, 1)), 0.0)
    above = _summed_from_above(left.sum(axis=1), 1)[:, 1:]
    return z, np.rint(above).astype(np.int64).reshape(b, n_cuts)


def _table(rows: IntArray, columns: IntArray, weights: IntArray, shape: tuple[int, int]) -> FloatArray:
    """(b, *shape) float64: the weights of the patients in each cell, for each of the b rows of `columns`."""
    b, size = len(columns), shape[0] * shape[1]
    cells = np.arange(b)[:, None] * size + rows * shape[1] + columns
    sums = np.bincount(cells.ravel(), weights.ravel().astype(np.float64), b * size)
    return np.asarray(sums.reshape(b, *shape), dtype=np.float64)


def _summed_from_above(table: FloatArray, axis: int) -> FloatArray:
    return np.flip(np.cumsum(np.flip(table, axis), axis), axis)
