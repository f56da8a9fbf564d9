"""Survival curves of groups, the numbers at risk below them, and the log-rank test between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from numpy.typing import NDArray

from mitoray.errors import BadOption, TooFewEvents
from mitoray.survival.censoring import BoolArray, FloatArray


@dataclass(frozen=True)
class Curve:
    """A group's Kaplan–Meier estimate. Times are in the unit that was given.

    time, survival, low, high: (s,) float64, a step function that starts at time 0 with survival 1; low and high are its
    95 % interval (exponential Greenwood). median: where survival first reaches 0.5, infinite where it never does.
    censored_at: (c,) float64, the distinct times at which follow-up ended without event.
    """

    group: str
    n: int
    n_events: int
    time: FloatArray
    survival: FloatArray
    low: FloatArray
    high: FloatArray
    median: float
    censored_at: FloatArray

    def at(self, times: FloatArray) -> FloatArray:
        """Survival at these times; beyond the last one, what it was there."""
        return self.survival[np.searchsorted(self.time, times, side="right") - 1]


@dataclass(frozen=True)
class LogRank:
    """The log-rank test: chi² `statistic` on `degrees` of freedom, and its p."""

    statistic: float
    degrees: int
    p: float


def survival_curves(
    time: FloatArray, event: BoolArray, group: Sequence[str] | NDArray[np.str_], order: Sequence[str] | None = None
) -> list[Curve]:
    """One curve per group, in `order`, or that of their names. Defined without events too: survival stays 1.

    time: (n,) float64, positive; event: (n,) bool; group: (n,) names. After Kaplan and Meier 1958, by lifelines. Raises
    BadOption for arrays of different lengths, no patients, or a group of `order` that nobody is in.
    """
    labels = np.asarray(group, dtype=str)
    check_followed(time, event, labels)
    names = list(order) if order is not None else sorted(set(labels.tolist()))
    if empty := [name for name in names if name not in labels]:
        raise BadOption(f"Nobody is in the group {empty[0]!r}. Leave it out.")
    return [_curve(name, time[labels == name], event[labels == name]) for name in names]


def numbers_at_risk(
    time: FloatArray, group: Sequence[str] | NDArray[np.str_], times: FloatArray
) -> dict[str, list[int]]:
    """For each group, how many are still followed just before each of `times`, as printed below survival curves."""
    labels = np.asarray(group, dtype=str)
    return {
        name: [int((time[labels == name] >= t).sum()) for t in times.tolist()] for name in sorted(set(labels.tolist()))
    }


def log_rank(time: FloatArray, event: BoolArray, group: Sequence[str] | NDArray[np.str_]) -> LogRank:
    """Whether two or more groups differ in survival (Mantel 1966; hypergeometric variance for ties), by lifelines.

    Raises BadOption for fewer than two groups, TooFewEvents where nothing happened while two groups were followed.
    """
    labels = np.asarray(group, dtype=str)
    check_followed(time, event, labels)
    n_groups = len(set(labels.tolist()))
    if n_groups < 2:
        raise BadOption("A log-rank test compares two groups or more; all patients are in one.")
    last_follow_ups = sorted(float(time[labels == name].max()) for name in set(labels.tolist()))
    if not event.any() or time[event].min() > last_follow_ups[-2]:
        raise TooFewEvents(
            "The groups cannot be compared: no event happened while patients of two groups were followed. Follow "
            "longer, or take an endpoint with events."
        )
    result: Any = multivariate_logrank_test(time, labels, event)
    return LogRank(float(result.test_statistic), n_groups - 1, float(result.p_value))


def check_followed(time: FloatArray, event: BoolArray, *others: NDArray[Any]) -> None:
    """Raise BadOption unless all have the same length, above 0, and times are positive and finite."""
    if len({len(time), len(event), *map(len, others)}) != 1 or not len(time):
        raise BadOption("Times, events and groups must be of the same patients, one or more.")
    if not (np.isfinite(time).all() and (time > 0).all()):
        raise BadOption("Times of follow-up must be positive numbers. Exclude patients without follow-up first.")


def _curve(name: str, time: FloatArray, event: BoolArray) -> Curve:
    fitted: Any = KaplanMeierFitter().fit(time, event)
    interval = fitted.confidence_interval_survival_function_.to_numpy(float)
    return Curve(
        group=name,
        n=len(time),
        n_events=int(event.sum()),
        time=fitted.survival_function_.index.to_numpy(float),
        survival=fitted.survival_function_.iloc[:, 0].to_numpy(float),
        low=interval[:, 0],
        high=interval[:, 1],
        median=float(fitted.median_survival_time_),
        censored_at=np.unique(time[~event]),
    )
