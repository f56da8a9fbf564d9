"""A review set: the candidates that experts decide on, in a random order, under ids that say nothing of them."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitoray.errors import BadDecisions
from mitoray.labels.schema import KINDS
from mitoray.labels.source import replacing

REVIEW: Final = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("group", pa.int64()),
        pa.field("shown", pa.int64(), nullable=False),
    ]
)
"""Columns of a review set, one row per candidate. `x_px, y_px`: level-0 px; `group`: such as the score group, null if
there is none, never shown to experts; `shown`: place in the order in which experts see it, from 0.
"""

CANDIDATE: Final = "candidate"
"""The class that a candidate has until somebody decides, and the kind of the vote of a model that proposed it."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Fit for a file name, a cell of a spreadsheet, a page and a query alike."""
_METADATA: Final = b"mitoray.review"
_REFUSED_NAMES: Final = ("", CANDIDATE)


@dataclass(frozen=True, eq=False)
class Review:
    """A review set. table: schema `REVIEW`, in the order shown; choices: the kinds that an expert may decide for.

    what: what is reviewed, in a few words for people.
    """

    table: pa.Table
    choices: tuple[str, ...] = KINDS
    what: str = ""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> list[str]:
        """The candidates' ids, in the order shown."""
        ids: list[str] = self.table["candidate_id"].to_pylist()
        return ids

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the candidates, their places and the choices, in whatever order they are shown."""
        columns = (self.table[name].to_pylist() for name in ("candidate_id", "slide_id", "x_px", "y_px"))
        rows = sorted(map(repr, zip(*columns, strict=True)))
        return hashlib.sha256("\n".join([repr(self.choices), *rows]).encode("utf-8", "surrogatepass")).hexdigest()

    def reordered(self, seed: int) -> "Review":
        """The same candidates in another random order, such as for another expert."""
        order = np.random.default_rng(seed).permutation(len(self))
        return Review(_numbered(self.table.take(pa.array(order))), self.choices, self.what)

    def only(self, candidate_ids: Sequence[str], seed: int, what: str | None = None) -> "Review":
        """Some of the candidates, under the same ids, in an order of their own: a review set of its own."""
        chosen = self.table.filter(pc.is_in(self.table["candidate_id"], value_set=pa.array(candidate_ids, pa.string())))
        return Review(chosen, self.choices, self.what if what is None else what).reordered(seed)


def review_set(places: pa.Table, *, seed: int, choices: Sequence[str] = KINDS, what: str = "") -> Review:
    """A review set of places: a table with `slide_id, x_px, y_px` and, if there are any, `group` and `candidate_id`.

    Ids are made of the seed and the place, so they tell nothing and the same call gives the same ones; ids of one's
    own hold letters, digits, dots, dashes and underscores, at most 100. The order is random, by the seed. Raises
    BadDecisions for ids of another form or that occur twice, for places that do, and for choices that cannot be.
    """
    table = places.select(["slide_id", "x_px", "y_px"])
    group = places["group"] if "group" in places.column_names else pa.nulls(len(places), pa.int64())
    if "candidate_id" in places.column_names:
        ids = places["candidate_id"].to_pylist()
    else:
        rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
        ids = [hashlib.sha256(repr((seed, *row)).encode("utf-8", "surrogatepass")).hexdigest()[:20] for row in rows]
    columns = [ids, *table.columns, group, np.arange(len(places))]
    review = Review(checked(pa.table(columns, names=REVIEW.names)).cast(REVIEW), checked_choices(choices), what)
    return review.reordered(seed)


def checked(table: pa.Table) -> pa.Table:
    """The table of a review set. Raises BadDecisions for ids that cannot be, or that occur twice, if only by case."""
    ids = table["candidate_id"].to_pylist()
    if strange := [one for one in ids if one is None or not _ID.fullmatch(one)]:
        raise BadDecisions(
            f"{len(strange)} candidates have an id like {short(strange[0])}. Ids hold letters, digits, dots, dashes "
            "and underscores, begin with a letter or digit, and have at most 100 characters."
        )
    if len({one.lower() for one in ids}) < len(ids):
        twice = next(one for one in ids if sum(other.lower() == one.lower() for other in ids) > 1)
        raise BadDecisions(f"Two candidates have the id {twice!r}. Give each place once, under an id of its own.")
    return table


def checked_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The kinds that may be decided for. Raises BadDecisions for fewer than two, or a name that cannot be."""
    if len(set(choices)) < 2 or len(set(choices)) < len(choices) or set(choices) & set(_REFUSED_NAMES):
        raise BadDecisions(f"Experts need two choices or more, each once and none {CANDIDATE!r}, not {list(choices)}.")
    return tuple(choices)


def write_review_set(review: Review, path: Path) -> None:
    """Keep a review set as Parquet, with its choices: for whoever imports the decisions, not for experts."""
    facts = {"what": review.what, "choices": review.choices, "digest": review.digest}
    table = review.table.replace_schema_metadata({_METADATA: json.dumps(facts)})
    with replacing(path) as part:
        pq.write_table(table, part)


def read_review_set(path: Path) -> Review:
    """The review set of such a file. Raises BadDecisions where it is none, or was changed."""
    try:
        table = pq.read_table(path)
        facts: dict[str, Any] = json.loads((table.schema.metadata or {})[_METADATA])
        review = Review(
            checked(table.replace_schema_metadata(None).select(REVIEW.names).cast(REVIEW)),
            checked_choices(facts["choices"]),
            str(facts["what"]),
        )
    except FileNotFoundError:
        raise BadDecisions(f"There is no review set {path.name}. Propose candidates first.") from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BadDecisions(
            f"{path.name} is no review set ({type(error).__name__}). Propose candidates again."
        ) from error
    if facts.get("digest") != review.digest:
        raise BadDecisions(f"{path.name} was changed after it was written. Propose candidates again.")
    return review


def short(text: object) -> str:
    """Text of others, as messages may show it."""
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}…'"


def _numbered(table: pa.Table) -> pa.Table:
    column = REVIEW.get_field_index("shown")
    return table.set_column(column, REVIEW.field(column), pa.array(range(len(table)), pa.int64()))
