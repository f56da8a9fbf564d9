"""A scored cohort beside its patients: who has which count, and what is left over on either side."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from mitoray.errors import BadManifest, BadOption
from mitoray.survival.barcodes import barcode_of
from mitoray.survival.clinical import PATIENTS, ClinicalCohort

Combination = Literal["max", "mean", "sum"]

_COMBINE: Final[dict[str, Callable[[list[float]], Any]]] = {"max": np.max, "mean": np.mean, "sum": np.sum}

UNUSED_SLIDES: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("case_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

UNUSED_PATIENTS: Final = pa.schema(
    [pa.field("patient", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class JoinedCohort:
    """Patients with a scored slide.

    patients: PATIENTS, then `n_slides`, then each value (float64, null where none of the patient's slides has it), in
    the clinical table's order. slides_without_patients, patients_without_slides: what could not be joined, and why.
    n_partial: slides that count although some of their tissue could not be scored.
    """

    patients: pa.Table
    slides_without_patients: pa.Table
    patients_without_slides: pa.Table
    clinical: ClinicalCohort
    n_partial: int

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """How many slides, and how many patients, were left out for which reason."""
        sides = {"slides": self.slides_without_patients, "patients": self.patients_without_slides}
        return {name: dict(Counter(side["reason"].to_pylist()).most_common()) for name, side in sides.items()}


def join(
    slides: pa.Table,
    clinical: ClinicalCohort,
    values: Sequence[str] = ("mitotic_count",),
    *,
    combine: Combination = "max",
) -> JoinedCohort:
    """One row per patient of the clinical table who has a slide that counts.

    slides: a run's slides (`slide_id`) or cases (`case_id`), with the columns named by `values`. A slide belongs to the
    patient whose name is its `case_id` or its `slide_id`, or the TCGA barcode that one of these starts with. Slides
    that failed, of another tissue than the primary tumour, or without any of the values are left out. combine: what
    several slides of a patient become. Raises BadManifest where a column is missing, or no slide has a patient.
    """
    if combine not in _COMBINE:
        raise BadOption(f"Slides cannot be combined by {combine!r}. Give one of {', '.join(_COMBINE)}.")
    rows = _rows(slides, values)
    included = set(clinical.patients["patient"].to_pylist())
    excluded = dict(zip(clinical.excluded["patient"].to_pylist(), clinical.excluded["reason"].to_pylist(), strict=True))
    taken: dict[str, list[dict[str, Any]]] = {}
    unused = []
    for row in rows:
        patient = next((name for name in _names(row) if name in included or name in excluded), None)
        reason = _why_not(row, values) or _why_nobody(row, patient, excluded)
        if reason is None:
            taken.setdefault(str(patient), []).append(row)
        else:
            unused.append({"slide_id": row["slide_id"] or "", "case_id": row["case_id"], "reason": reason})
    if not taken:
        reasons = Counter(row["reason"] for row in unused)
        raise BadManifest(
            f"No slide belongs to a patient of {clinical.source} ({_some(reasons)}). Slides are found by case_id, or "
            "by a slide_id that starts with the patient's TCGA barcode."
        )
    kept = clinical.patients.filter(pa.array([name in taken for name in clinical.patients["patient"].to_pylist()]))
    slides_of = [taken[name] for name in kept["patient"].to_pylist()]
    joined = kept.append_column("n_slides", pa.array([len(own) for own in slides_of], pa.int64()))
    for value in values:
        joined = joined.append_column(
            value, pa.array([_combined(own, value, combine) for own in slides_of], pa.float64())
        )
    seen = {name for row in rows for name in _names(row)}
    lonely = [
        {"patient": name, "reason": "no slide that counts" if name in seen else "no slide"}
        for name in clinical.patients["patient"].to_pylist()
        if name not in taken
    ]
    return JoinedCohort(
        patients=joined,
        slides_without_patients=pa.Table.from_pylist(unused, schema=UNUSED_SLIDES),
        patients_without_slides=pa.Table.from_pylist(lonely, schema=UNUSED_PATIENTS),
        clinical=clinical,
        n_partial=sum(row["status"] == "partial" for own in slides_of for row in own),
    )


def _rows(slides: pa.Table, values: Sequence[str]) -> list[dict[str, Any]]:
    if "slide_id" not in slides.column_names and "case_id" not in slides.column_names:
        raise BadManifest(f"The scored table lacks slide_id and case_id; it has {', '.join(slides.column_names)}.")
    if missing := [name for name in values if name not in slides.column_names]:
        raise BadManifest(
            f"The scored table lacks the column {' and '.join(missing)}; it has {', '.join(slides.column_names)}."
        )
    if taken := sorted(set(values) & {*PATIENTS.names, "n_slides"}):
        raise BadOption(f"{taken[0]} is a column of the clinical table. Give columns of counts or ratios.")
    try:
        numbers = {name: slides[name].cast(pa.float64()).to_pylist() for name in values}
        texts = {
            name: slides[name].cast(pa.string()).to_pylist() if name in slides.column_names else [None] * len(slides)
            for name in ("slide_id", "case_id", "status")
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadManifest(f"The scored table holds a value of the wrong type: {error}. Correct it.") from error
    columns = texts | {name: [v if v is None or np.isfinite(v) else None for v in v_] for name, v_ in numbers.items()}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _names(row: Mapping[str, Any]) -> list[str]:
    """Whom a slide may belong to, likeliest first."""
    given = [name.strip() for name in (row["case_id"], row["slide_id"]) if name]
    barcodes = [barcode.patient for barcode in map(barcode_of, given) if barcode]
    return [*given, *barcodes]


def _why_not(row: Mapping[str, Any], values: Iterable[str]) -> str | None:
    if row["status"] == "failed":
        return "the slide failed"
    barcode = barcode_of(row["slide_id"] or "")
    if barcode and barcode.other_tissue:
        return f"the slide is of {barcode.other_tissue}"
    return "the slide has no count" if all(row[value] is None for value in values) else None


def _why_nobody(row: Mapping[str, Any], patient: str | None, excluded: Mapping[str, str]) -> str | None:
    if patient is None:
        named = row["case_id"] or barcode_of(row["slide_id"] or "")
        return "its patient is not in the clinical table" if named else "no case_id, and no barcode in slide_id"
    return f"its patient is excluded: {excluded[patient]}" if patient in excluded else None


def _combined(own: Sequence[Mapping[str, Any]], value: str, combine: Combination) -> float | None:
    numbers = [row[value] for row in own if row[value] is not None]
    return float(_COMBINE[combine](numbers)) if numbers else None


def _some(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {n}" for reason, n in reasons.items()) or "there are no slides"
