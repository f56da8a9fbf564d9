"""Everything that is asked of one value, such as the mitotic count, in a joined cohort."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np

from mitoray.errors import BadOption, MitorayError, TooFewEvents, UndefinedHazardRatio
from mitoray.survival.censoring import BoolArray, FloatArray, censored_after
from mitoray.survival.clinical import STAGES
from mitoray.survival.columns import DAYS_PER_YEAR
from mitoray.survival.continuous import HazardCurve, hazard_curve, log_count_model
from mitoray.survival.cox import CoxModel, cox, ordinal
from mitoray.survival.cut_points import MIN_SHARE, CutBootstrap, CutSearch, bootstrap_cut, search_cut
from mitoray.survival.joining import JoinedCohort
from mitoray.survival.kaplan_meier import Curve, LogRank, log_rank, numbers_at_risk, survival_curves

T = TypeVar("T")

AGE: Final = "age, per 10 years"
STAGE: Final = "stage, per step (I to IV)"


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
class Followed:
    """Patients with a value. All (n,): value, time_years, event, age_years (NaN where unknown), stage (1–4, NaN)."""

    name: str
    value: FloatArray
    time_years: FloatArray
    event: BoolArray
    age_years: FloatArray
    stage: FloatArray


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

    log_count: CoxModel | None
    adjusted: CoxModel | None
    curve: HazardCurve | None
    undefined: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchedCut:
    """The search for a cut, its bootstrap, and the comparison at the best cut, whose p and interval flatter."""

    search: CutSearch
    bootstrap: CutBootstrap
    comparison: GroupComparison


def followed(cohort: JoinedCohort, value: str, censor_years: float = 10.0) -> Followed:
    """The patients who have the value, followed for `censor_years` at most. Raises BadOption where nobody has it."""
    if value not in cohort.patients.column_names:
        raise BadOption(f"The cohort has no {value!r}. Name it when joining slides and patients.")
    numbers = cohort.patients[value].to_numpy().astype(np.float64)
    present = np.isfinite(numbers)
    if not present.any():
        raise BadOption(f"No patient has a {value}. Check the scored table.")
    time, event = (cohort.patients[name].to_numpy()[present] for name in ("time_days", "event"))
    time_years, event = censored_after(time / DAYS_PER_YEAR, event.astype(np.bool_), censor_years)
    age = cohort.patients["age_years"].to_numpy().astype(np.float64)
    stage = ordinal(cohort.patients["stage"].to_pylist(), STAGES)
    return Followed(value, numbers[present], time_years, event, age[present], stage[present])


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
    own = {f"{patients.name} {high_name}": high.astype(np.float64)}
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
    """The value as log2(value + 1), alone and adjusted for age and stage, and as a spline of it."""
    undefined: dict[str, str] = {}
    time, event = patients.time_years, patients.event
    others = covariates(patients)
    return ContinuousAnalysis(
        log_count=_if_defined("log_count", undefined, lambda: log_count_model(patients.value, time, event)),
        adjusted=_if_defined("adjusted", undefined, lambda: log_count_model(patients.value, time, event, others))
        if others
        else None,
        curve=_if_defined(
            "curve", undefined, lambda: hazard_curve(patients.value, time, event, n_knots=settings.n_knots)
        ),
        undefined=undefined,
    )


def covariates(patients: Followed) -> dict[str, FloatArray]:
    """Age per decade and stage as a step, of those that the clinical table tells of more than one patient."""
    known = {AGE: patients.age_years / 10, STAGE: patients.stage}
    return {name: column for name, column in known.items() if len(np.unique(column[np.isfinite(column)])) > 1}


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
