"""What an expert decided on a review set, from whichever of its files the expert worked in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.curation.review import Review, short
from mitoray.curation.review_files import CARD, DATABASE, QUPATH, SET_TABLE, TABLE
from mitoray.errors import BadDecisions, BadLabels
from mitoray.labels import geojson, sliderunner
from mitoray.labels.kinds import kind_of
from mitoray.labels.source import first_bytes
from mitoray.labels.tabular import read_text_columns

DECISIONS: Final = pa.schema(
    [
        pa.field("rater", pa.string(), nullable=False),
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)

_NAMED: Final = 5
"""Ids that a message names."""

_Given = tuple[str, str | None, str | None]
"""Of a record: what messages call it, its candidate_id, and the class given, None where none was."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """One expert's. kinds: by candidate_id, in the order of the review set; missing: candidates without a decision."""

    rater: str
    kinds: Mapping[str, str]
    missing: tuple[str, ...] = ()

    @property
    def table(self) -> pa.Table:
        """As rows of the schema `DECISIONS`."""
        columns = [[self.rater] * len(self.kinds), list(self.kinds), list(self.kinds.values())]
        return pa.table(columns, schema=DECISIONS)


def read_decisions(path: Path, review: Review, rater: str | None = None, *, partly: bool = False) -> Decisions:
    """An expert's decisions on the candidates of a review set.

    path: the SlideRunner database, the folder (or one file) of QuPath GeoJSON, the table, or the folder that
    `write_review` made, of which the expert used one of the three. rater: the expert's name; a SlideRunner database
    says it, and where several persons labelled in it, takes the one of that name. Classes may be spelled as `kind_of`
    knows them. partly: whether candidates may be without a decision; they are named in `missing`.

    Raises BadDecisions, and gives nothing, for ids that are not of the set, two different decisions of the expert on
    one candidate, a class that is no choice, a file of another review set, and candidates without decision.
    """
    try:
        found = _form_of(path)
        name, given = _read(found, review, rater)
    except BadLabels as error:  # of the readers that labels are read with
        raise BadDecisions(str(error)) from error
    kinds = _decided(given, review, name, found.name)
    missing = tuple(candidate_id for candidate_id in review.ids if candidate_id not in kinds)
    if missing and not partly:
        raise BadDecisions(
            f"{found.name}: {name!r} decided on {len(kinds)} of {len(review)} candidates; {len(missing)} are left, "
            f"{_some(missing)}. Have them decided, or take what is there as partly decided."
        )
    return Decisions(name, {one: kinds[one] for one in review.ids if one in kinds}, missing)


def _form_of(path: Path) -> Path:
    """The file that the expert worked in, of a whole folder for an expert."""
    if not path.exists():
        raise BadDecisions(f"There are no decisions at {path.name}. Check the path.")
    if not (path.is_dir() and (path / CARD).exists()):
        return path
    used = [path / name for name, is_used in _USED.items() if (path / name).exists() and is_used(path / name)]
    if len(used) != 1:
        where = f"in {' and in '.join(form.name for form in used)}" if used else "nowhere"
        raise BadDecisions(f"{path.name} holds decisions {where}. Name the one file to take them from.")
    return used[0]


def _read(path: Path, review: Review, rater: str | None) -> tuple[str, list[_Given]]:
    """The expert's name, and what the file says of each candidate."""
    if path.is_file() and first_bytes(path).startswith(b"SQLite format 3\0"):
        return _from_sliderunner(path, review, rater)
    if not rater or not rater.strip():
        raise BadDecisions(f"{path.name} does not say whose decisions it holds. Give the expert's name.")
    return rater, list((_from_table if path.suffix.lower() == ".csv" else _from_geojson)(path, review))


def _from_table(path: Path, review: Review | None) -> Iterator[_Given]:
    table = read_text_columns(path, path.name)
    if missing := [name for name in ("candidate_id", "decision") if name not in table.column_names]:
        raise BadDecisions(
            f"{path.name} lacks the column {' and '.join(missing)}. Fill in the table as it was written."
        )
    sets = table["review_set"].to_pylist() if "review_set" in table.column_names else []
    _refuse_other_sets(sets, review, path.name)
    rows = zip(table["candidate_id"].to_pylist(), table["decision"].to_pylist(), strict=True)
    for record, (candidate_id, decision) in enumerate(rows, start=1):
        if candidate_id is not None or decision is not None:
            yield f"record {record}", candidate_id and candidate_id.strip(), decision and decision.strip()


def _from_geojson(path: Path, review: Review | None) -> Iterator[_Given]:
    for slide_id, record, feature, _ in geojson.features(path, path.name):
        facts = feature["properties"].get("metadata")
        facts = facts if isinstance(facts, dict) else {}
        _refuse_other_sets([facts.get("review_set")], review, path.name)
        candidate_id = facts.get("candidate_id") or feature["properties"].get("name")
        which = f"feature {record} of {short(slide_id)}"
        yield which, candidate_id and str(candidate_id), geojson.class_name(feature) or None


def _from_sliderunner(path: Path, review: Review, rater: str | None) -> tuple[str, list[_Given]]:
    """The person's name, and what that person gave; of annotations that are no candidates, all."""
    with sliderunner.open_database(path, path.name) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (SET_TABLE,)).fetchone():
            _refuse_other_sets([digest for (digest,) in database.execute(_DIGESTS)], review, path.name)
        classes = sliderunner.class_names(database, path.name)
        rows = database.execute(_LABELLED).fetchall()
    known, strangers, by_person = frozenset(review.ids), list[_Given](), dict[str, list[_Given]]()
    for uid, guid, chosen, person, number in rows:
        if chosen is not None and chosen not in classes:
            raise BadDecisions(f"{path.name}: annotation {uid} has a class that the database does not list.")
        one = (f"annotation {uid}", guid and str(guid), classes.get(chosen))
        if one[1] not in known:
            strangers.append(one)
        elif chosen is not None:
            by_person.setdefault(str(person or f"person {number}"), []).append(one)
    if strangers:  # told first: in the file of another set, nobody's labels count
        return rater or "", strangers
    person, name = _person(path, list(by_person), rater)
    return name, by_person[person]


def _has_labels(path: Path) -> bool:
    with sliderunner.open_database(path, path.name) as database:
        return database.execute("SELECT 1 FROM Annotations_label WHERE class > 0").fetchone() is not None


def _person(path: Path, persons: list[str], rater: str | None) -> tuple[str, str]:
    """Whose labels are taken, and the expert's name: the person of that name, or the only one, by whatever name."""
    if rater in persons:
        return str(rater), str(rater)
    if len(persons) == 1:
        return persons[0], rater or persons[0]
    if not persons:
        raise BadDecisions(f"{path.name}: no person has labelled a candidate. Have the candidates decided.")
    who = f"{short(rater)} is not among those" if rater else "Several persons"
    listed = ", ".join(map(short, persons))
    raise BadDecisions(f"{path.name}: {who} who labelled: {listed}. Name the one to take.")


def _decided(given: Iterable[_Given], review: Review, rater: str, source: str) -> dict[str, str]:
    """The kind of each decided candidate. Raises BadDecisions."""
    known, kinds = frozenset(review.ids), dict[str, str]()
    choices = {choice.lower(): choice for choice in review.choices}
    strangers = [(record, candidate_id) for record, candidate_id, _ in given if candidate_id not in known]
    if strangers:
        record, candidate_id = strangers[0]
        raise BadDecisions(
            f"{source}: {len(strangers)} records are of no candidate of this review set; {record} is called "
            f"{short(candidate_id)}. Give the file of this set, without what was added to it."
        )
    for record, candidate_id, name in given:
        if name is None or candidate_id is None:
            continue
        kind = choices.get(name.lower()) or kind_of(name)
        if kind not in review.choices:
            raise BadDecisions(
                f"{source}: {record}, {candidate_id}, is decided as {short(name)}, which is no choice. Choose from "
                f"{', '.join(review.choices)}."
            )
        if kinds.setdefault(candidate_id, kind) != kind:
            raise BadDecisions(
                f"{source}: {rater!r} decided on {candidate_id} twice, as {kinds[candidate_id]} and as {kind}. Keep "
                "one of them."
            )
    return kinds


def _refuse_other_sets(digests: Iterable[object], review: Review | None, source: str) -> None:
    if review and (others := {str(digest) for digest in digests if digest} - {review.digest}):
        raise BadDecisions(
            f"{source} belongs to the review set {short(sorted(others)[0][:12])}, not to {review.digest[:12]!r}. Give "
            "the file that was written for this one."
        )


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[:_NAMED]) + (", …" if len(listed) > _NAMED else "")


_DIGESTS: Final = f"SELECT digest FROM {SET_TABLE}"  # nosec B608 # a table's name is a constant
_LABELLED: Final = """
SELECT a.uid, a.guid, l.class, p.name, l.person FROM Annotations a
LEFT JOIN Annotations_label l ON l.annoId = a.uid AND l.class > 0
LEFT JOIN Persons p ON p.uid = l.person
WHERE coalesce(a.deleted, 0) = 0 ORDER BY a.uid, l.uid
"""
_USED: Final[Mapping[str, Callable[[Path], bool]]] = {
    DATABASE: _has_labels,
    QUPATH: lambda path: any(kind for _, _, kind in _from_geojson(path, None)),
    TABLE: lambda path: any(kind for _, _, kind in _from_table(path, None)),
}
"""Whether each of the forms of a review set holds any decision."""
