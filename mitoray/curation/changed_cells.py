"""Cells that an expert gave another class on the map: a blinded review set for others, then changes of the labels.

Aubreville et al. 2020, Methods: the second expert saw all changes, without the map; a third decided on disagreements.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mitoray.curation.cells import CELLS
from mitoray.curation.decisions import Decisions
from mitoray.curation.map_files import Changes
from mitoray.curation.review import Review, review_set
from mitoray.errors import BadDecisions
from mitoray.labels.schema import SUBTYPES

CHANGED: Final = pa.schema(
    [
        pa.field("cell_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64()),
        pa.field("y_px", pa.float64()),
        pa.field("before", pa.string(), nullable=False),
        pa.field("now", pa.string(), nullable=False),
    ]
)


def changed_table(cells: pa.Table, names: Mapping[str, str], changes: Changes) -> pa.Table:
    """What the expert changed, schema `CHANGED`. names: classes before, by cell_id."""
    ids = pa.array(list(changes.classes), pa.string())
    chosen = cells.filter(pc.is_in(cells["cell_id"], value_set=ids)).select(CELLS.names)
    rows = [
        {**row, "before": names[row["cell_id"]], "now": changes.classes[row["cell_id"]]} for row in chosen.to_pylist()
    ]
    return pa.Table.from_pylist([{name: row[name] for name in CHANGED.names} for row in rows], schema=CHANGED)


def changes_review(changed: pa.Table, classes: Sequence[str], seed: int) -> Review:
    """The review set of the changed cells, under their ids. Raises BadDecisions for cells without a place."""
    nowhere = changed.filter(pc.or_(pc.is_null(changed["x_px"]), pc.is_null(changed["y_px"])))
    if len(nowhere):
        raise BadDecisions(
            f"{len(nowhere)} of {len(changed)} changed cells, such as {nowhere['cell_id'][0].as_py()}, have no place "
            "on a slide (x_px, y_px). Embed labels of slides, or crops that say their places, to review changes."
        )
    places = changed.select(["slide_id", "x_px", "y_px"]).append_column("candidate_id", changed["cell_id"])
    return review_set(places, seed=seed, choices=classes, what="cells that were given another class on the map")


def first_decisions(changes: Changes) -> Decisions:
    """The first expert's changes as decisions."""
    return Decisions(changes.rater, dict(changes.classes))


def label_changes(labels: pa.Table, settled: pa.Table) -> tuple[dict[int, dict[str, Any]], int]:
    """What changes in which row of the labels, for `mitoray.curation.versions.with_changed`; how many have no row.

    settled: schema `mitoray.curation.votes.SETTLED`, with classes as kinds. The votes go after those that a label has.
    """
    rows = labels.to_pylist()
    number = {(row["slide_id"], row["x_px"], row["y_px"]): n for n, row in enumerate(rows)}
    changed: dict[int, dict[str, Any]] = {}
    absent = 0
    for row in settled.to_pylist():
        n = number.get((row["slide_id"], row["x_px"], row["y_px"]))
        if n is None:
            absent += 1
            continue
        is_subtype = row["kind"] in SUBTYPES
        now = {"kind": "mitotic_figure", "subtype": row["kind"]} if is_subtype else {"kind": row["kind"]}
        changed[n] = {**now, "votes": [*(rows[n]["votes"] or []), *row["votes"]]}
    return changed, absent
