"""SlideRunner databases: SQLite files of slides, annotations and every expert's vote."""

import logging
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import KINDS, SUBTYPES
from mitoray.labels.source import first_bytes
from mitoray.labels.table import label_table, slide_id_of, vote_list

log = logging.getLogger(__name__)

SPOT, AREA, POLYGON, SPECIAL_SPOT, CIRCLE, IMAGE = range(1, 7)
"""SlideRunner's annotation types. Areas (rectangles) and circles are stored as two opposite corners."""

MOST_VALUE_BYTES: Final = 1 << 24
"""Of one text or number in a database."""

_CORNERS: Final = {SPOT: 1, AREA: 2, POLYGON: 3, SPECIAL_SPOT: 1, CIRCLE: 2}
"""Fewest stored points of a type that has a place."""


def read(path: Path, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    """Labels of a SlideRunner database: everything with an agreed class, outlines only of classes that count.

    Left out, with their counts logged: deleted annotations, those without an agreed class, notes on whole images, and
    zones (`read_zones` gives them). Votes are in the order they were given. Raises BadLabels.
    """
    with open_database(path, source) as database:
        kinds = {uid: kind_of(name, classes) for uid, name in class_names(database, source).items()}
        votes = _votes(database, kinds, source)
        rows: list[dict[str, Any]] = []
        left_out: Counter[str] = Counter()
        for annotation in annotations(database, source):
            uid, form, agreed = annotation["uid"], annotation["type"], annotation["agreedClass"]
            if not agreed:
                left_out["without an agreed class"] += 1
                continue
            if agreed not in kinds:
                raise BadLabels(f"{source}: annotation {uid} has the class {agreed}, which the database does not list.")
            if form == POLYGON and kinds[agreed] not in KINDS:
                left_out["that are zones"] += 1
                continue
            xs, ys = zip(*annotation["points"], strict=True)
            rows.append(
                {
                    "slide_id": annotation["slide_id"],
                    "x_px": (min(xs) + max(xs)) / 2,
                    "y_px": (min(ys) + max(ys)) / 2,
                    "kind": kinds[agreed],
                    "subtype": annotation["description"] if annotation["description"] in SUBTYPES else None,
                    "votes": vote_list(votes.get(uid, ())),
                }
            )
    for reason, times in left_out.items():
        log.warning("%s: left out %d annotations %s.", source, times, reason)
    return label_table(rows, source)


@contextmanager
def open_database(path: Path, source: str) -> Iterator[sqlite3.Connection]:
    """The database, opened so that nothing can write to it or beside it. Raises BadLabels where it is damaged."""
    header = first_bytes(path)
    if not header.startswith(b"SQLite format 3\0"):
        raise BadLabels(f"{source} is no SQLite database. State its dialect.")
    page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    if path.stat().st_size < (65536 if page_bytes == 1 else page_bytes) * pages:  # SQLite's code for 65536
        raise BadLabels(f"{source} is cut short: it says it has {pages} pages. Fetch it again.")
    if pending := [mark for mark in ("-wal", "-journal") if path.with_name(path.name + mark).is_file()]:
        raise BadLabels(f"{source} has changes in {source}{pending[0]} that are not saved. Close SlideRunner first.")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
            _refuse_programs(database, source)
            database.row_factory = sqlite3.Row
            yield database
    except sqlite3.Error as error:
        raise BadLabels(f"{source} is damaged, or no SlideRunner database ({error}). Fetch it again.") from error


def _refuse_programs(database: sqlite3.Connection, source: str) -> None:
    """BadLabels for tables that are computed: a view or a generated column can be endless in a file of a few bytes."""
    database.execute("PRAGMA trusted_schema = OFF")
    for kind, name, text in database.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        virtual = str(text).upper().lstrip().startswith("CREATE VIRTUAL")
        columns = (
            database.execute("SELECT hidden FROM pragma_table_xinfo(?)", (name,)).fetchall() if kind == "table" else ()
        )
        if kind == "view" or virtual or any(hidden for (hidden,) in columns):
            raise BadLabels(f"{source}: {name} is computed, and no table that SlideRunner wrote. Fetch the file again.")


def class_names(database: sqlite3.Connection, source: str) -> dict[int, str]:
    """The database's class names by their number."""
    rows = database.execute("SELECT uid, name FROM Classes").fetchall()
    if unnamed := [uid for uid, name in rows if not name]:
        raise BadLabels(f"{source}: class {unnamed[0]} has no name. Name it in SlideRunner.")
    return dict(rows)


def annotations(database: sqlite3.Connection, source: str) -> Iterator[dict[str, Any]]:
    """Annotations that have a place and are not deleted.

    Each has `uid, slide_id, type, agreedClass, description, points`; points are a list of (x, y), px.
    """
    points = defaultdict(list)
    for uid, x, y in database.execute(
        "SELECT annoId, coordinateX, coordinateY FROM Annotations_coordinates ORDER BY annoId, orderIdx, uid"
    ):
        points[uid].append((x, y))
    columns = {row["name"] for row in database.execute("PRAGMA table_info(Annotations)")}
    newer = [name if name in columns else f"NULL AS {name}" for name in ("deleted", "description")]
    left_out: Counter[str] = Counter()
    slides = {uid: slide_id_of(str(name)) for uid, name in database.execute("SELECT uid, filename FROM Slides") if name}
    slide_of_id: dict[str, int] = {}
    for row in database.execute(
        f"SELECT uid, slide, type, agreedClass, {', '.join(newer)} FROM Annotations ORDER BY uid"  # nosec B608 # names of ours
    ):
        uid, form = row["uid"], row["type"]
        if row["deleted"]:
            left_out["marked as deleted"] += 1
            continue
        if form == IMAGE:
            left_out["of whole images"] += 1
            continue
        if row["slide"] not in slides:
            raise BadLabels(f"{source}: annotation {uid} belongs to slide {row['slide']}, which has no name.")
        slide_id = slides[row["slide"]]
        if slide_of_id.setdefault(slide_id, row["slide"]) != row["slide"]:
            raise BadLabels(f"{source}: two slides are called {slide_id!r}. Give each slide one name.")
        places = points[uid]
        if form not in _CORNERS or len(places) < _CORNERS[form]:
            raise BadLabels(f"{source}: annotation {uid} of type {form} has {len(places)} points. Remove it.")
        if not all(isinstance(value, int | float) for place in places for value in place):
            raise BadLabels(f"{source}: annotation {uid} has a point without coordinates. Remove it.")
        yield {**row, "slide_id": slide_id, "points": places}
    for reason, times in left_out.items():
        log.warning("%s: left out %d annotations %s.", source, times, reason)


def _votes(database: sqlite3.Connection, kinds: dict[int, str], source: str) -> dict[int, list[tuple[str, str]]]:
    votes = defaultdict(list)
    for uid, annotation, person, name, voted in database.execute(
        "SELECT l.uid, l.annoId, l.person, p.name, l.class FROM Annotations_label l "
        "LEFT JOIN Persons p ON p.uid = l.person ORDER BY l.uid"
    ):
        if not voted:
            continue
        if voted not in kinds:
            raise BadLabels(f"{source}: vote {uid} is for the class {voted}, which the database does not list.")
        votes[annotation].append((name or f"person {person}", kinds[voted]))
    return votes
