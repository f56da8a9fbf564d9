"""Which columns of a clinical table hold what."""

from dataclasses import dataclass
from typing import Final, Literal

from mitoray.errors import BadOption

Endpoint = Literal["OS", "DSS", "DFI", "PFI"]
TimeUnit = Literal["days", "months", "years"]

DAYS_PER_YEAR: Final = 365.25

DAYS_PER: Final[dict[str, float]] = {"days": 1.0, "months": DAYS_PER_YEAR / 12, "years": DAYS_PER_YEAR}

ENDPOINT_NAMES: Final[dict[str, str]] = {
    "OS": "overall survival",
    "DSS": "disease-specific survival",
    "DFI": "disease-free interval",
    "PFI": "progression-free interval",
}
"""Of TCGA-CDR: Liu et al. 2018, Table 1."""


@dataclass(frozen=True)
class Columns:
    """The names of a clinical table's columns; age (in years) and stage are None where there is none.

    endpoint: what the event is, for figures and tables, such as "overall survival".
    """

    patient: str
    time: str
    event: str
    time_unit: TimeUnit = "days"
    age: str | None = None
    stage: str | None = None
    endpoint: str = "survival"

    def __post_init__(self) -> None:
        if self.time_unit not in DAYS_PER:
            raise BadOption(f"The time unit {self.time_unit!r} is unknown. Give one of {', '.join(DAYS_PER)}.")


@dataclass(frozen=True)
class ClinicalTable:
    """How the clinical table is laid out; as TCGA-CDR where no column is named.

    Args:
        endpoint: of TCGA-CDR: OS (overall survival), DSS (disease-specific), DFI (disease-free) or PFI
            (progression-free).
        patient: column with the patient, where the table is not TCGA-CDR; needs --time and --event too.
        time: column with the time of follow-up, in --time-unit.
        event: column with 1 for the event and 0 for none, or words such as Dead and Alive.
        time_unit: days, months or years, of --time.
        age: column with the age in years, to adjust for; none adjusts for none.
        stage: column with the stage (I to IV, with or without substage), to adjust for; none adjusts for none.
        endpoint_name: what the event is, for figures, where the table is not TCGA-CDR.
    """

    endpoint: Endpoint = "OS"
    patient: str | None = None
    time: str | None = None
    event: str | None = None
    time_unit: TimeUnit = "days"
    age: str | None = None
    stage: str | None = None
    endpoint_name: str = "survival"

    def __post_init__(self) -> None:
        if len({self.patient is None, self.time is None, self.event is None}) > 1:
            raise BadOption("--patient, --time and --event go together: give all three, or none for TCGA-CDR.")

    @property
    def columns(self) -> Columns:
        """Which column holds what."""
        if self.patient is None or self.time is None or self.event is None:
            return tcga_cdr(self.endpoint)
        return Columns(self.patient, self.time, self.event, self.time_unit, self.age, self.stage, self.endpoint_name)


def tcga_cdr(endpoint: Endpoint = "OS") -> Columns:
    """The columns of the TCGA clinical data resource (Liu et al. 2018, Table S1) for one of its endpoints.

    Raises BadOption for an endpoint that the table does not have.
    """
    if endpoint not in ENDPOINT_NAMES:
        raise BadOption(f"TCGA-CDR has no endpoint {endpoint!r}. Give one of {', '.join(ENDPOINT_NAMES)}.")
    return Columns(
        patient="bcr_patient_barcode",
        time=f"{endpoint}.time",
        event=endpoint,
        time_unit="days",
        age="age_at_initial_pathologic_diagnosis",
        stage="ajcc_pathologic_tumor_stage",
        endpoint=ENDPOINT_NAMES[endpoint],
    )
