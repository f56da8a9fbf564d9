"""What a report says first: how the cohort went, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

PHANTOM_PREFIX: Final = "phantom-"
"""With which the domains of drawn slides begin."""


@dataclass(frozen=True)
class Summary:
    """Totals over the rows of a SLIDES table. Areas in mm²; `median_count` of slides that have a mitotic count."""

    n_slides: int
    n_scored: int
    n_partial: int
    n_failed: int
    n_cases: int
    n_domains: int
    n_detections: int
    tissue_mm2: float
    unscored_mm2: float
    median_count: float | None
    all_phantoms: bool

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Summary":
        """The summary; an empty cohort has zeros."""
        statuses = [row["status"] for row in rows]
        counts = [row["mitotic_count"] for row in rows if row["mitotic_count"] is not None]
        domains = {row["domain"] for row in rows if row["domain"]}
        return cls(
            n_slides=len(rows),
            n_scored=statuses.count("scored"),
            n_partial=statuses.count("partial"),
            n_failed=statuses.count("failed"),
            n_cases=len({row["case_id"] for row in rows if row["case_id"]}),
            n_domains=len(domains),
            n_detections=sum(row["n_detections"] or 0 for row in rows),
            tissue_mm2=sum(row["tissue_mm2"] or 0.0 for row in rows),
            unscored_mm2=sum(row["unscored_mm2"] or 0.0 for row in rows),
            median_count=float(np.median(counts)) if counts else None,
            all_phantoms=bool(rows) and all((row["domain"] or "").startswith(PHANTOM_PREFIX) for row in rows),
        )


@dataclass(frozen=True)
class Failure:
    """A slide that was not scored whole. `kind` and `told`: its error's name, and what it says to do."""

    place: int
    slide_id: str
    status: str
    kind: str
    told: str


def failures(rows: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """The slides of a SLIDES table that failed, then those scored in part, each with its error; `place`: of the row."""
    wanting = [(place, row) for place, row in enumerate(rows) if row["status"] != "scored"]
    wanting.sort(key=lambda pair: pair[1]["status"] != "failed")
    return [
        Failure(place, row["slide_id"], row["status"], *_parted(row["error"] or "no error was noted"))
        for place, row in wanting
    ]


def _parted(error: str) -> tuple[str, str]:
    """An error's name and its message; without a name where it has none."""
    name, colon, message = error.partition(": ")
    return (name, message) if colon and name.isidentifier() else ("", error)
