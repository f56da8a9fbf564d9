"""Two experts decide blinded, a third on what they disagree about, and the majority holds.

Bertram et al. 2019, Manually expert labelled dataset; Aubreville et al. 2020, Methods: "in case of disagreement, the
third expert rendered the final vote".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from mitoray.curation.decisions import Decisions
from mitoray.curation.review import Review, short
from mitoray.errors import BadDecisions, ExpertsDisagree

SETTLED: Final = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("votes", pa.list_(pa.struct([("rater", pa.string()), ("kind", pa.string())]))),
    ]
)
"""What the majority says of each candidate. `votes`: in the order of the raters, as a label table holds them."""


@dataclass(frozen=True, eq=False)
class Settled:
    """table: schema `SETTLED`; undecided: ids on which an expert did not decide, where decisions were taken partly."""

    table: pa.Table
    undecided: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, str]:
        """By candidate_id."""
        return dict(zip(self.table["candidate_id"].to_pylist(), self.table["kind"].to_pylist(), strict=True))


def disagreed(review: Review, first: Decisions, second: Decisions) -> list[str]:
    """Ids of the candidates on which two experts decided differently, in the set's order. Raises BadDecisions."""
    _refuse_same([first, second])
    return [one for one in review.ids if one in first.kinds and one in second.kinds and _differ(one, first, second)]


def for_third(review: Review, first: Decisions, second: Decisions, *, seed: int) -> Review:
    """The review set for the third expert: what the two disagree on, in an order of its own. Raises BadDecisions."""
    return review.only(disagreed(review, first, second), seed, f"{review.what}, third expert")


def settle(review: Review, experts: Sequence[Decisions], proposer: tuple[str, str] | None = None) -> Settled:
    """The majority of the experts' decisions on each candidate: of the first two, and of others where they disagree.

    experts: the two, and any that were asked after them. proposer: rater and kind of a model that proposed the
    candidates; it has no say, and its vote stands after the experts'. Raises BadDecisions for fewer than two experts or
    two of one name, and ExpertsDisagree where no kind has more votes than every other.
    """
    if len(experts) < 2:
        raise BadDecisions("One expert alone settles nothing. Give the decisions of two.")
    _refuse_same(experts)
    rows: list[dict[str, Any]] = []
    undecided, open_ones = [], []
    for row in review.table.select(["candidate_id", "slide_id", "x_px", "y_px"]).to_pylist():
        one = row["candidate_id"]
        given = [(expert.rater, expert.kinds[one]) for expert in experts if one in expert.kinds]
        if not all(one in expert.kinds for expert in experts[:2]):
            undecided.append(one)
            continue
        kind = majority([kind for _, kind in given])
        if kind is None:
            open_ones.append(one)
            continue
        votes = [{"rater": rater, "kind": of} for rater, of in [*given, *([proposer] if proposer else [])]]
        rows.append({**row, "kind": kind, "votes": votes})
    if open_ones:
        names = " and ".join(short(expert.rater) for expert in experts)
        raise ExpertsDisagree(
            f"{names} are divided on {len(open_ones)} candidates, such as {open_ones[0]}. Have another expert decide "
            "on these, and give that expert's decisions too."
        )
    return Settled(pa.Table.from_pylist(rows, schema=SETTLED), tuple(undecided))


def majority(kinds: Sequence[str]) -> str | None:
    """The kind that more voted for than for any other; None where there is none."""
    ranked = Counter(kinds).most_common(2)
    return ranked[0][0] if len(ranked) == 1 or (ranked and ranked[0][1] > ranked[1][1]) else None


def _differ(one: str, first: Decisions, second: Decisions) -> bool:
    return first.kinds[one] != second.kinds[one]


def _refuse_same(experts: Sequence[Decisions]) -> None:
    names = [expert.rater for expert in experts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadDecisions(f"Two experts are called {short(twice[0])}. Give each expert's own decisions, and own name.")
