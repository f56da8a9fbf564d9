"""The patients of a joined cohort as arrays, followed for a stated time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from mitoray.errors import BadOption
from mitoray.survival.censoring import BoolArray, FloatArray, censored_after
from mitoray.survival.clinical import STAGES
from mitoray.survival.columns import DAYS_PER_YEAR
from mitoray.survival.cox import ordinal
from mitoray.survival.joining import JoinedCohort

AGE: Final = "age, per 10 years"
STAGE: Final = "stage, per step (I to IV)"

_LABELS: Final = {
    "mitotic_count": "mitotic count in 2 mm²",
    "mitotic_count_10hpf": "mitotic count in 10 HPF (2.37 mm²)",
    "atypical_ratio": "atypical:normal ratio per slide",
    "hotspot_atypical_ratio": "atypical:normal ratio in the hotspot",
}


COUNT: Final = "mitotic_count"


def ratios_of(scored: pa.Table) -> list[str]:
    """Those columns of a scored table that hold a ratio of atypical to normal figures, of one row at least."""
    named = [name for name in scored.column_names if "atypical" in name and "ratio" in name]
    return [name for name in named if scored[name].null_count < scored.num_rows]


def values_of(scored: pa.Table) -> list[str]:
    """What to look at in a scored table: its mitotic count, and the ratios where subtypes were told."""
    return [COUNT, *ratios_of(scored)]


def label_of(value: str) -> str:
    """A column's name for people, with its unit where known."""
    return _LABELS.get(value, value.replace("_", " "))


@dataclass(frozen=True)
class Followed:
    """Patients with a value. All (n,): value, time_years, event, age_years (NaN where unknown), stage (1–4, NaN)."""

    name: str
    value: FloatArray
    time_years: FloatArray
    event: BoolArray
    age_years: FloatArray
    stage: FloatArray


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


def covariates(patients: Followed) -> dict[str, FloatArray]:
    """Age per decade and stage as a step, of those that the clinical table tells of more than one patient."""
    known = {AGE: patients.age_years / 10, STAGE: patients.stage}
    return {name: column for name, column in known.items() if len(np.unique(column[np.isfinite(column)])) > 1}
