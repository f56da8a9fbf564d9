"""Proportional hazards: ratios with intervals, concordance, and whether hazards are proportional at all."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from lifelines.statistics import proportional_hazard_test

from mitoray.errors import BadOption, TooFewEvents, UndefinedHazardRatio
from mitoray.survival.censoring import BoolArray, FloatArray
from mitoray.survival.kaplan_meier import check_followed

_LARGEST_COEFFICIENT: Final = 12.0
"""Of a covariate in units of its standard deviation: beyond it the likelihood only rises towards infinity."""


@dataclass(frozen=True)
class HazardRatio:
    """One covariate of a Cox model: the ratio of hazards per unit, its 95 % Wald interval and p.

    coefficient, standard_error: of the logarithm of the ratio. proportional_p: of the test on scaled Schoenfeld
    residuals against the rank of time (Grambsch and Therneau 1994); small values speak against a constant ratio. NaN
    with one event.
    """

    name: str
    ratio: float
    low: float
    high: float
    p: float
    coefficient: float
    standard_error: float
    proportional_p: float


@dataclass(frozen=True)
class CoxModel:
    """A fitted model. n: patients with all covariates; n_missing: those left out for want of one.

    c_index: Harrell's concordance on the same patients, which flatters slightly. likelihood_ratio_p: of all covariates
    together. covariance: (p, p) float64, of the coefficients.
    """

    n: int
    n_events: int
    n_missing: int
    ratios: tuple[HazardRatio, ...]
    c_index: float
    log_likelihood: float
    likelihood_ratio_p: float
    covariance: FloatArray

    def __getitem__(self, name: str) -> HazardRatio:
        return next(ratio for ratio in self.ratios if ratio.name == name)


def cox(time: FloatArray, event: BoolArray, covariates: Mapping[str, FloatArray]) -> CoxModel:
    """Cox's model of the hazard on these covariates; ties after Efron, by lifelines.

    time: (n,) float64, positive; event: (n,) bool; covariates: (n,) float64 each, NaN where missing: such patients are
    left out. Raises TooFewEvents without events, UndefinedHazardRatio for a covariate that is constant, that others
    already tell, or that separates those with from those without events.
    """
    if not covariates:
        raise BadOption("A Cox model needs a covariate.")
    table = pd.DataFrame({name: np.asarray(values, dtype=float) for name, values in covariates.items()})
    check_followed(time, event, table.to_numpy())
    complete = np.isfinite(table.to_numpy()).all(axis=1)
    table = table[complete].assign(**{_TIME: time[complete], _EVENT: event[complete]})
    _refuse(table, list(covariates))
    fitter: Any = CoxPHFitter()
    with warnings.catch_warnings(record=True) as warned:
        # lifelines warns of fits that are fine, too; only one of its warnings says that there is no fit.
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            fitter.fit(table, _TIME, _EVENT)
        except (ConvergenceError, np.linalg.LinAlgError) as error:
            raise _separates(list(covariates)) from error
    if any("failed to converge" in str(warning.message) for warning in warned):
        raise _separates(list(covariates))
    summary = fitter.summary
    spread = table[list(covariates)].std(ddof=0)
    scaled = (summary["coef"] * spread).abs()
    if wild := [name for name in covariates if not scaled[name] < _LARGEST_COEFFICIENT] or [
        name for name in covariates if not summary["se(coef)"][name] * spread[name] < 10 * _LARGEST_COEFFICIENT
    ]:
        raise _separates(wild)
    proportional: Any = proportional_hazard_test(fitter, table, time_transform="rank").summary["p"]
    return CoxModel(
        n=len(table),
        n_events=int(table[_EVENT].sum()),
        n_missing=int((~complete).sum()),
        ratios=tuple(_ratio(name, summary.loc[name], float(proportional[name])) for name in covariates),
        c_index=float(fitter.concordance_index_),
        log_likelihood=float(fitter.log_likelihood_),
        likelihood_ratio_p=float(fitter.log_likelihood_ratio_test().p_value),
        covariance=fitter.variance_matrix_.loc[list(covariates), list(covariates)].to_numpy(float),
    )


def ordinal(values: Sequence[str | None], order: Sequence[str]) -> FloatArray:
    """Ranks 1, 2, … of ordered categories, such as stages I to IV; NaN for None and what is not in `order`."""
    ranks = {name: float(rank) for rank, name in enumerate(order, start=1)}
    return np.array([ranks.get(value, np.nan) if value is not None else np.nan for value in values])


def indicators(values: Sequence[str | None], order: Sequence[str], prefix: str = "") -> dict[str, FloatArray]:
    """Categories as 0/1 covariates against the first of `order` that occurs; NaN for None and what is not in `order`.

    Names are like "stage III vs I" with the prefix "stage ". Raises UndefinedHazardRatio where only one occurs.
    """
    present = [name for name in order if name in values]
    if len(present) < 2:
        raise UndefinedHazardRatio(f"{prefix.strip() or 'The category'} is the same in all patients. Leave it out.")
    known = np.array([value in present for value in values])
    return {
        f"{prefix}{name} vs {present[0]}": np.where(known, [float(value == name) for value in values], np.nan)
        for name in present[1:]
    }


_TIME: Final = "time of follow-up"
_EVENT: Final = "event happened"


def _refuse(table: pd.DataFrame, names: list[str]) -> None:
    """What no model can be fitted to, told before lifelines would fail in its own words."""
    if taken := {_TIME, _EVENT} & set(names):
        raise BadOption(f"A covariate may not be named {taken.pop()!r}. Rename it.")
    if len(table) < 2 or not table[_EVENT].any():
        n = len(table)
        raise TooFewEvents(
            f"No hazard ratio without events: none of the {n} patients with all covariates had one. Follow longer, "
            "take an endpoint with events, or leave out covariates that are often missing."
        )
    if constant := [name for name in names if table[name].nunique() < 2]:
        raise UndefinedHazardRatio(
            f"{constant[0]} is the same in all patients, so it has no hazard ratio. Leave it out."
        )
    centred = (table[names] - table[names].mean()) / table[names].std(ddof=0)
    if np.linalg.matrix_rank(centred.to_numpy(float), tol=1e-8 * len(table)) < len(names):
        raise UndefinedHazardRatio(f"Of {', '.join(names)} one follows from the others. Leave one out.")


def _separates(names: Sequence[str]) -> UndefinedHazardRatio:
    return UndefinedHazardRatio(
        f"{' or '.join(names)} separates the patients with from those without events, so its hazard ratio is infinite "
        "or zero. Join categories, or leave it out, and show Kaplan–Meier curves instead."
    )


def _ratio(name: str, row: Any, proportional_p: float) -> HazardRatio:
    return HazardRatio(
        name=name,
        ratio=float(row["exp(coef)"]),
        low=float(row["exp(coef) lower 95%"]),
        high=float(row["exp(coef) upper 95%"]),
        p=float(row["p"]),
        coefficient=float(row["coef"]),
        standard_error=float(row["se(coef)"]),
        proportional_p=proportional_p,
    )
