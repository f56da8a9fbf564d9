"""Everything that is asked of one value, such as the mitotic count, in a joined cohort."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from mitoray.errors import BadOption, MitorayError, TooFewEvents, UndefinedHazardRatio
from mitoray.survival.censoring import FloatArray
from mitoray.survival.continuous import HazardCurve, hazard_curve, linear_model, log_count_model
from mitoray.survival.cox import CoxModel, cox
from mitoray.survival.cut_points import MIN_SHARE, PUBLISHED_CUT, CutBootstrap, CutSearch, bootstrap_cut, search_cut
from mitoray.survival.followed import COUNT, Followed, covariates, followed, label_of
from mitoray.survival.joining import JoinedCohort
from mitoray.survival.kaplan_meier import Curve, LogRank, log_rank, numbers_at_risk, survival_curves

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How values are looked at.

    censor_years: follow-up ends here; Fick et al. 2024 show 10 years. min_share: of patients on the smaller side of a
    cut. permutations, repeats: of the honest p and of the bootstrap. n_knots: of the spline.
    """

    censor_years: float = 10.0
    min_share: float = MIN_SHARE
    permutations: int = 1000
    repeats: int = 1000
    n_knots: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.censor_years > 0:
            raise BadOption(f"Follow-up must be censored after more than 0 years, not {self.censor_years}.")
        if not 0 < self.min_share < 0.5:
            raise BadOption(f"The share on the smaller side must be above 0 and below 0.5, not {self.min_share}.")
        if self.permutations < 0 or self.repeats < 0:
            raise BadOption("Permutations and bootstrap repeats must be 0 or more.")


@dataclass(frozen=True)
class GroupComparison:
    """Patients with the value below a cut against those with it at the cut or above.

    at_risk: by group, at each of at_risk_years. univariable: the model of the groups alone; adjusted: with age and
    stage, None where the clinical table has neither. Tests and models are None where undefined; `undefined` says why.
    """

    cut: float
    curves: list[Curve]
    at_risk_years: FloatArray
    at_risk: dict[str, list[int]]
    log_rank: LogRank | None
    univariable: CoxModel | None
    adjusted: CoxModel | None
    undefined: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, str]:
        """The names of the groups, low and high."""
        return group_names(self.cut)


@dataclass(frozen=True)
class ContinuousAnalysis:
    """The value uncut. Models are None where undefined; `undefined` says why."""

    alone: CoxModel | None
    adjusted: CoxModel | None
    curve: HazardCurve | None
    undefined: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchedCut:
    """The search for a cut, its bootstrap, and the comparison at the best cut, whose p and interval flatter."""

    search: CutSearch
    bootstrap: CutBootstrap
    comparison: GroupComparison


@dataclass(frozen=True)
class ValueAnalysis:
    """All of one value. published: at a cut set beforehand, None where none was; best: at the one that was searched.

    Parts are None where undefined; `undefined` says why, by the part's name.
    """

    patients: Followed
    published: GroupComparison | None
    best: SearchedCut | None
    continuous: ContinuousAnalysis
    undefined: dict[str, str] = field(default_factory=dict)

    @property
    def all_undefined(self) -> dict[str, str]:
        """What is undefined here and in the parts, and why."""
        parts = {
            "at the published cut": self.published,
            "at the best cut": self.best.comparison if self.best else None,
            "continuous": self.continuous,
        }
        inner = {f"{name}, {k}": v for name, part in parts.items() if part for k, v in part.undefined.items()}
        return self.undefined | inner


def analyse(
    cohort: JoinedCohort, value: str, settings: Settings | None = None, published_cut: float | None = None
) -> ValueAnalysis:
    """The value at a published cut, at its best cut, and uncut. Raises BadOption where nobody has the value."""
    settings = settings or Settings()
    patients = followed(cohort, value, settings.censor_years)
    undefined: dict[str, str] = {}
    published = None
    if published_cut is not None:
        published = _if_defined("at the published cut", undefined, lambda: compare_at(patients, published_cut))
    return ValueAnalysis(
        patients=patients,
        published=published,
        best=_if_defined("at the best cut", undefined, lambda: best_cut(patients, settings)),
        continuous=continuous(patients, settings),
        undefined=undefined,
    )


def analyse_all(
    cohort: JoinedCohort,
    values: Sequence[str],
    settings: Settings | None = None,
    published_cut: float | None = PUBLISHED_CUT,
) -> list[ValueAnalysis]:
    """`analyse` each of these values. The published cut is one of counts in 2 mm², and says nothing of other values."""
    return [analyse(cohort, value, settings, published_cut if value == COUNT else None) for value in values]


def group_names(cut: float) -> tuple[str, str]:
    """How those below a cut, and those at it or above, are called."""
    return f"< {cut:.4g}", f"≥ {cut:.4g}"


def compare_at(patients: Followed, cut: float) -> GroupComparison:
    """Two groups by a cut that was set beforehand. Raises BadOption where one of them is empty."""
    high = patients.value >= cut
    if high.all() or not high.any():
        raise BadOption(
            f"A cut of {cut:g} leaves all {len(high)} patients on one side: {patients.name} goes from "
            f"{patients.value.min():g} to {patients.value.max():g}."
        )
    low_name, high_name = group_names(cut)
    groups = np.where(high, high_name, low_name)
    years = _ticks(float(patients.time_years.max()))
    undefined: dict[str, str] = {}
    own = {f"{label_of(patients.name)} {high_name}": high.astype(np.float64)}
    others = covariates(patients)
    return GroupComparison(
        cut=cut,
        curves=survival_curves(patients.time_years, patients.event, groups, (low_name, high_name)),
        at_risk_years=years,
        at_risk=numbers_at_risk(patients.time_years, groups, years),
        log_rank=_if_defined("log_rank", undefined, lambda: log_rank(patients.time_years, patients.event, groups)),
        univariable=_if_defined("univariable", undefined, lambda: cox(patients.time_years, patients.event, own)),
        adjusted=_if_defined("adjusted", undefined, lambda: cox(patients.time_years, patients.event, own | others))
        if others
        else None,
        undefined=undefined,
    )


def best_cut(patients: Followed, settings: Settings) -> SearchedCut:
    """The cut that separates most. Raises BadOption where none is admissible, TooFewEvents without events."""
    search = search_cut(
        patients.value,
        patients.time_years,
        patients.event,
        min_share=settings.min_share,
        permutations=settings.permutations,
        seed=settings.seed,
    )
    bootstrap = bootstrap_cut(
        patients.value,
        patients.time_years,
        patients.event,
        min_share=settings.min_share,
        repeats=settings.repeats,
        seed=settings.seed,
    )
    return SearchedCut(search, bootstrap, compare_at(patients, search.cut))


def continuous(patients: Followed, settings: Settings) -> ContinuousAnalysis:
    """The value alone, adjusted, and as a spline: counts as log2(count + 1), other values as they are."""
    undefined: dict[str, str] = {}
    time, event = patients.time_years, patients.event
    others = covariates(patients)
    counts = bool((patients.value == np.round(patients.value)).all())
    model = log_count_model if counts else linear_model
    return ContinuousAnalysis(
        alone=_if_defined("alone", undefined, lambda: model(patients.value, time, event)),
        adjusted=_if_defined("adjusted", undefined, lambda: model(patients.value, time, event, others))
        if others
        else None,
        curve=_if_defined(
            "curve",
            undefined,
            lambda: hazard_curve(
                patients.value, time, event, scale="log" if counts else "linear", n_knots=settings.n_knots
            ),
        ),
        undefined=undefined,
    )


def _ticks(longest_years: float) -> FloatArray:
    step = next((s for s in (1, 2, 5) if longest_years / s <= 6), 10)
    return np.arange(0, longest_years + 1e-9, step, dtype=np.float64)


def _if_defined(name: str, undefined: dict[str, str], estimate: Callable[[], T]) -> T | None:
    try:
        return estimate()
    except (BadOption, TooFewEvents, UndefinedHazardRatio) as error:
        undefined[name] = _told(error)
        return None


def _told(error: MitorayError) -> str:
    return f"{type(error).__name__}: {error}"


def as_json(part: Any) -> Any:
    """Results as JSON: dataclasses by field, arrays as lists, null where not finite."""
    if hasattr(part, "__dataclass_fields__"):
        return {name: as_json(getattr(part, name)) for name in part.__dataclass_fields__}
    if isinstance(part, dict):
        return {str(key): as_json(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [as_json(value) for value in part]
    if isinstance(part, np.ndarray):
        return as_json(part.tolist())
    if isinstance(part, float):
        return part if np.isfinite(part) else None
    return part
