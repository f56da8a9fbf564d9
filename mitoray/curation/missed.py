"""Candidates that the labels may have missed: detections far from every label, scored, grouped, and what they added.

Object-detection augmented, expert labelled (ODAEL) data: Bertram et al. 2019; Aubreville et al. 2020, Methods.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadLabels, BadOption
from mitoray.evaluation.matching import RADIUS_UM
from mitoray.labels.schema import KINDS
from mitoray.labels.splits import stratified_folds
from mitoray.labels.statistics import COUNTS
from mitoray.training.slides import TrainingSlide, centres_px

GROUPS: Final = 10
"""Score groups (Aubreville et al. 2020, Methods)."""

CANDIDATES: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("detector_score", pa.float64()),
        pa.field("classifier_score", pa.float64()),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
    ]
)
"""Columns of a table of candidates. `x_px, y_px`: level-0 px; `score`: the classifier's, or else the detector's, 0 to
1; `group`: by score, from 0 for the lowest.
"""


def case_parts(
    slides: Sequence[TrainingSlide], figures: Mapping[str, int], parts: int, seed: int = 0
) -> list[set[str]]:
    """Slide ids in so many parts, cases whole, domains and mitotic activity spread evenly where there are cases enough.

    figures: mitotic figures by slide_id. Raises BadOption for fewer than two parts, BadLabels for too few cases.
    """
    by_case: dict[str, dict[str, Any]] = {}
    for slide in slides:
        row = by_case.setdefault(
            slide.case_id, {"case_id": slide.case_id, "domain": slide.domain or "", "mitotic_figure": 0}
        )
        row["mitotic_figure"] += figures.get(slide.slide_id, 0)
    rows = [by_case[case] for case in sorted(by_case)]
    if len(rows) < parts:
        raise BadLabels(f"{len(rows)} cases make no {parts} parts. Add labelled cases, or ask for fewer parts.")
    per_domain = [sum(row["domain"] == domain for row in rows) for domain in {row["domain"] for row in rows}]
    if min(per_domain) < parts:  # domains too small to be in every part are spread with the others
        rows = [{**row, "domain": ""} for row in rows]
    part_of = stratified_folds(pa.Table.from_pylist(rows, schema=COUNTS), parts, seed)
    numbers = dict(zip((row["case_id"] for row in rows), part_of.tolist(), strict=True))
    return [{slide.slide_id for slide in slides if numbers[slide.case_id] == part} for part in range(parts)]


def new_detections(
    detections: pa.Table, labels: pa.Table, slides: Iterable[TrainingSlide], radius_um: float = RADIUS_UM
) -> pa.Table:
    """The detections that lie farther than `radius_um` from every label of their slide, of whatever kind.

    detections, labels: with `slide_id, x_px, y_px`, level-0 px. Default radius: 25 px at 0.25 µm/px, the one in which a
    detection is a label's (Aubreville et al. 2020). Detections on other slides are left out.
    """
    ids, known_ids = (np.array(table["slide_id"].to_pylist(), object) for table in (detections, labels))
    found_px, known_px = centres_px(detections), centres_px(labels)
    new = np.zeros(len(detections), np.bool_)
    for slide in slides:
        own, known = ids == slide.slide_id, known_px[known_ids == slide.slide_id]
        far = np.ones(int(own.sum()), np.bool_)
        if len(known) and len(far):
            far = cKDTree(known).query(found_px[own])[0] * slide.mpp > radius_um
        new[own] = far
    return detections.filter(pa.array(new))


def score_groups(scores: NDArray[np.float64], groups: int = GROUPS) -> NDArray[np.int64]:
    """The group of each score (n,), int64 from 0: equal parts of 0 to 1; 1 is in the last. Raises BadOption."""
    if groups < 1 or not ((scores >= 0) & (scores <= 1)).all():
        raise BadOption("Scores are grouped from 0 to 1, in one group or more. Give probabilities.")
    return np.minimum((scores * groups).astype(np.int64), groups - 1)


def grouped(rows: Sequence[Mapping[str, Any]], groups: int = GROUPS) -> pa.Table:
    """Candidates (schema `CANDIDATES`), by slide and place, from rows of all its columns but `score` and `group`."""
    ordered = sorted(rows, key=lambda row: (row["slide_id"], row["y_px"], row["x_px"]))
    scores = [row["detector_score"] if row["classifier_score"] is None else row["classifier_score"] for row in ordered]
    numbers = score_groups(np.array(scores, np.float64), groups).tolist()
    made = [{**row, "score": s, "group": n} for row, s, n in zip(ordered, scores, numbers, strict=True)]
    return pa.Table.from_pylist(made, schema=CANDIDATES)


def added_table(before: pa.Table, after: pa.Table) -> list[dict[str, Any]]:
    """Figures and imposters of each slide before and after, and added in percent, as Table 1 of Aubreville et al. 2020.

    before, after: schema `LABELS`. The last row is the total. Percent is None where there was none before.
    """
    slides = sorted({*before["slide_id"].to_pylist(), *after["slide_id"].to_pylist()})
    counts = [_counts(before), _counts(after)]
    rows = [_added(slide, *({kind: of.get((slide, kind), 0) for kind in KINDS} for of in counts)) for slide in slides]
    totals = ({kind: sum(n for (_, of), n in count.items() if of == kind) for kind in KINDS} for count in counts)
    return [*rows, _added("total", *totals)]


def _added(slide_id: str, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"slide_id": slide_id}
    for kind, name in zip(KINDS, ("figures", "imposters"), strict=True):
        new = after[kind] - before[kind]
        percent = round(100 * new / before[kind], 2) if before[kind] else None
        row |= {f"{name}_before": before[kind], f"{name}_after": after[kind], f"{name}_added_percent": percent}
    return row


def _counts(labels: pa.Table) -> dict[tuple[str, str], int]:
    counted = labels.group_by(["slide_id", "kind"]).aggregate([([], "count_all")])
    columns = (counted[name].to_pylist() for name in ("slide_id", "kind", "count_all"))
    return {(slide, kind): n for slide, kind, n in zip(*columns, strict=True)}


def of_slides(table: pa.Table, slide_ids: Iterable[str]) -> pa.Table:
    """The rows of these slides."""
    return table.filter(pc.is_in(table["slide_id"], value_set=pa.array(list(slide_ids), pa.string())))
