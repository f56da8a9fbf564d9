"""Clinical tables: who was followed for how long, what happened, and who cannot be used, with the reason."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from mitoray.errors import BadClinicalTable
from mitoray.survival.clinical_files import read_text_table
from mitoray.survival.columns import DAYS_PER, Columns, tcga_cdr

PATIENTS: Final = pa.schema(
    [
        pa.field("patient", pa.string(), nullable=False),
        pa.field("time_days", pa.float64(), nullable=False),
        pa.field("event", pa.bool_(), nullable=False),
        pa.field("age_years", pa.float64()),
        pa.field("stage", pa.string()),
    ]
)
"""One row per patient who can be used. `stage`: I, II, III or IV, substages joined; null where unknown or stage X."""

EXCLUDED: Final = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""One row per row of the file that is left out, counted from 1 below the column names."""

STAGES: Final = ("I", "II", "III", "IV")

_MISSING: Final = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "unknown", "not reported", "not available", "not applicable", "--", "'--"}
)
_EVENT: Final = frozenset({"1", "true", "yes", "dead", "deceased", "event", "progression", "recurred"})
_NO_EVENT: Final = frozenset({"0", "false", "no", "alive", "living", "censored"})
_STAGE: Final = re.compile(r"(?:stage\s*)?(IV|III|II|I)(?:[ABC]\d?)?", re.IGNORECASE)


@dataclass(frozen=True)
class ClinicalCohort:
    """The patients of a clinical table.

    patients: PATIENTS, in the file's order. excluded: EXCLUDED. columns: what was read from where. source: the file's
    name.
    """

    patients: pa.Table
    excluded: pa.Table
    columns: Columns
    source: str

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return int(self.patients.num_rows + self.excluded.num_rows)

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were left out for which reason, most frequent first."""
        return dict(Counter(self.excluded["reason"].to_pylist()).most_common())


def read_clinical(uri: str, columns: Columns | None = None) -> ClinicalCohort:
    """Patients of a CSV or TSV file, at a path or URI; by default TCGA-CDR's overall survival.

    A row is left out, with its reason, if it has no patient, no time or no event, a time of 0 or less, a time or event
    that cannot be read, or a patient of another row. An event is 1 or 0, or a word such as Dead or Alive, also as
    "1:DECEASED". Raises BadClinicalTable where a column is missing or no row can be used.
    """
    columns = columns or tcga_cdr()
    table, name = read_text_table(uri)
    wanted = [columns.patient, columns.time, columns.event, columns.age, columns.stage]
    if missing := [column for column in wanted if column is not None and column not in table]:
        raise BadClinicalTable(
            f"{name} lacks the column {' and '.join(map(repr, missing))}; it has {', '.join(table)}. Say which columns "
            "hold patient, time and event, and age and stage where there are any."
        )
    uses = Counter(table[columns.patient])
    included: dict[str, list[object]] = {field: [] for field in PATIENTS.names}
    excluded: dict[str, list[object]] = {field: [] for field in EXCLUDED.names}
    for i, patient in enumerate(table[columns.patient]):
        outcome = _outcome(patient, uses[patient], table[columns.time][i], table[columns.event][i])
        if isinstance(outcome, str):
            for field, value in zip(EXCLUDED.names, (i + 1, patient, outcome), strict=True):
                excluded[field].append(value)
            continue
        time, event = outcome
        age = _number(table[columns.age][i]) if columns.age else None
        stage = stage_group(table[columns.stage][i]) if columns.stage else None
        row = (patient, time * DAYS_PER[columns.time_unit], event, age, stage)
        for field, value in zip(PATIENTS.names, row, strict=True):
            included[field].append(value)
    cohort = ClinicalCohort(pa.table(included, schema=PATIENTS), pa.table(excluded, schema=EXCLUDED), columns, name)
    if not cohort.patients.num_rows:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in cohort.reasons.items())
        raise BadClinicalTable(f"{name} has no patient who can be used ({reasons}). Check which columns are named.")
    return cohort


def stage_group(text: str) -> str | None:
    """I, II, III or IV of an AJCC stage such as "Stage IIIC"; None for X, discrepancies and what is not available."""
    found = _STAGE.fullmatch(text.strip())
    return found.group(1).upper() if found else None


def _outcome(patient: str, uses: int, time: str, event: str) -> tuple[float, bool] | str:
    """Time, in the file's unit, and event; or why the row cannot be used."""
    if _missing(patient):
        return "no patient"
    if uses > 1:
        return "patient stands in several rows"
    if _missing(time):
        return "missing time"
    value = _number(time)
    if value is None:
        return "time is not a number"
    if value <= 0:
        return "time ≤ 0"
    if _missing(event):
        return "missing event"
    happened = _event(event)
    return "event is neither 0 nor 1" if happened is None else (value, happened)


def _missing(text: str) -> bool:
    return text.strip("[] ").lower() in _MISSING


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _event(text: str) -> bool | None:
    word = text.partition(":")[0].strip().lower()
    number = _number(word)
    if word in _EVENT or number == 1:
        return True
    return False if word in _NO_EVENT or number == 0 else None
