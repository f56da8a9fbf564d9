"""Invented cohorts with a stated effect: for tests, for the notebook, and to try out an analysis before any data.

Nobody here exists: the tissue source site of every barcode is 00, which TCGA never gave out.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.errors import BadOption
from mitoray.survival.censoring import BoolArray, FloatArray
from mitoray.survival.columns import DAYS_PER_YEAR

MEAN_COUNT: Final = 26.67
"""Mean mitotic count in 2 mm² of TCGA-BRCA: Fick et al. 2024, §3."""

MEAN_ATYPICAL_RATIO: Final = 0.10
"""Mean atypical:normal ratio per slide of TCGA-BRCA: Fick et al. 2024, §3."""

_STAGES: Final = ("Stage I", "Stage IIA", "Stage IIB", "Stage IIIA", "Stage IV", "Stage X")
_STAGE_SHARES: Final = (0.17, 0.33, 0.24, 0.22, 0.02, 0.02)
_STAGE_HAZARD: Final = (0.6, 0.8, 1.1, 1.8, 5.0, 1.0)


@dataclass(frozen=True)
class Effect:
    """What makes patients of a simulated cohort die sooner.

    hazard_ratio: of a mitotic count of `cut` or more against less; 1 is no effect. hazard_per_year: of a patient of
    average age and stage below the cut. mean_follow_up_years: of the censoring, exponential, up to `longest_years`.
    with_age_and_stage: whether these matter too, as they do in patients.
    """

    hazard_ratio: float = 2.0
    cut: float = 11.0
    hazard_per_year: float = 0.025
    mean_follow_up_years: float = 4.0
    longest_years: float = 20.0
    with_age_and_stage: bool = True

    def __post_init__(self) -> None:
        if min(self.hazard_ratio, self.hazard_per_year, self.mean_follow_up_years, self.longest_years) <= 0:
            raise BadOption("Hazards, their ratio and years of follow-up must be more than 0.")


@dataclass(frozen=True)
class SimulatedPatients:
    """Arrays of n patients: count (2 mm²), atypical_ratio, age_years, stage (index), time_years, event."""

    count: FloatArray
    atypical_ratio: FloatArray
    age_years: FloatArray
    stage: list[str]
    time_years: FloatArray
    event: BoolArray


def simulate_patients(n: int, effect: Effect, rng: np.random.Generator) -> SimulatedPatients:
    """Counts negative binomial with TCGA-BRCA's mean and a long tail, times exponential, censoring independent."""
    if n < 2:
        raise BadOption(f"A cohort needs two patients or more, not {n}.")
    shape = 0.9
    count = rng.poisson(rng.gamma(shape, MEAN_COUNT / shape, n)).astype(np.float64)
    atypical = rng.binomial(count.astype(np.int64), MEAN_ATYPICAL_RATIO / (1 + MEAN_ATYPICAL_RATIO))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(count > atypical, atypical / (count - atypical), np.nan)
    age = np.clip(rng.normal(58, 13, n), 26, 90).round()
    stage = rng.choice(len(_STAGES), n, p=_STAGE_SHARES)
    hazard = effect.hazard_per_year * np.where(count >= effect.cut, effect.hazard_ratio, 1.0)
    if effect.with_age_and_stage:
        hazard = hazard * np.exp(0.03 * (age - 58)) * np.array(_STAGE_HAZARD)[stage]
    death = rng.exponential(1 / hazard)
    end = np.minimum(rng.exponential(effect.mean_follow_up_years, n), effect.longest_years)
    time = np.maximum(np.minimum(death, end), 1 / DAYS_PER_YEAR)
    return SimulatedPatients(count, ratio, age, [_STAGES[i] for i in stage], time, death <= end)


def write_simulated_cohort(folder: Path, n: int = 1000, effect: Effect | None = None, seed: int = 0) -> None:
    """Write what a scored cohort and its clinical table look like: `slides.csv` and `clinical.csv` (as TCGA-CDR).

    One patient in ten has a second slide with fewer mitoses, one in fifty no slide, one in fifty a follow-up of 0 days,
    and two slides failed; each file says "simulated" in a column of its own.
    """
    rng = np.random.default_rng(seed)
    patients = simulate_patients(n, effect or Effect(), rng)
    names = [f"TCGA-00-{i:04d}" for i in range(n)]
    rows = []
    for i, name in enumerate(names):
        if i % 50 != 49:
            rows.append((f"{name}-01Z-00-DX1", "scored", patients.count[i], patients.atypical_ratio[i]))
        if i % 10 == 5:
            rows.append((f"{name}-01Z-00-DX2", "scored", np.floor(patients.count[i] * rng.random()), np.nan))
    rows += [(f"TCGA-00-{n + i:04d}-01Z-00-DX1", "failed", np.nan, np.nan) for i in range(2)]
    ids, status, count, ratio = (list(column) for column in zip(*rows, strict=True))
    slides = pa.table(
        {
            "slide_id": pa.array(ids),
            "case_id": pa.nulls(len(ids), pa.string()),
            "domain": pa.array(["simulated"] * len(ids)),
            "status": pa.array(status),
            "mitotic_count": pa.array(np.array(count), from_pandas=True).cast(pa.int64()),
            "atypical_ratio": pa.array(np.array(ratio), from_pandas=True),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "slides.csv").open("wb") as file:
        pacsv.write_csv(slides, file)
    days = np.ceil(patients.time_years * DAYS_PER_YEAR).astype(np.int64)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    age, stage = "age_at_initial_pathologic_diagnosis", "ajcc_pathologic_tumor_stage"
    writer.writerow(["bcr_patient_barcode", "type", age, stage, "OS", "OS.time"])
    for i, name in enumerate(names):
        time, event = (0, 0) if i % 50 == 7 else (int(days[i]), int(patients.event[i]))
        writer.writerow([name, "simulated", int(patients.age_years[i]), patients.stage[i], event, time])
    (folder / "clinical.csv").write_text(text.getvalue(), encoding="utf-8")
