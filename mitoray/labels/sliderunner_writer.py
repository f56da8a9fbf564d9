"""Label tables as SlideRunner databases."""

import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.labels.schema import KINDS
from mitoray.labels.sliderunner import SPOT
from mitoray.labels.source import replacing

_COLOURS: Final = ("#00aa00", "#ffff00", "#0000ff", "#ff7f00", "#7f00ff", "#00ffff")

_SCHEMA: Final = """
CREATE TABLE Log (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, dateTime FLOAT, labelId INTEGER);
CREATE TABLE Slides (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, filename TEXT, width INTEGER, height INTEGER,
    directory TEXT, uuid TEXT, exactImageID TEXT, EXACTUSER INTEGER DEFAULT 0);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT, isExactUser INTEGER DEFAULT 0);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT, color TEXT);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, slide INTEGER, guid TEXT,
    lastModified REAL DEFAULT 0, deleted INTEGER DEFAULT 0, type INTEGER, agreedClass INTEGER, description TEXT);
CREATE TABLE Annotations_coordinates (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, coordinateX INTEGER,
    coordinateY INTEGER, coordinateZ INTEGER DEFAULT 0, slide INTEGER, annoId INTEGER, orderIdx INTEGER);
CREATE TABLE Annotations_label (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, person INTEGER DEFAULT 0, class INTEGER,
    exact_id INTEGER, annoId INTEGER);
PRAGMA user_version = 1;
"""
"""The columns of SlideRunner 2. At user_version 1 SlideRunner itself adds its triggers when it first opens the file."""


def write(table: pa.Table, path: Path, slide_suffix: str) -> None:
    """One spot per label, one person per rater; the subtype is the annotation's description."""
    rows = table.to_pylist()
    votes = [(record, vote) for record, row in enumerate(rows, start=1) for vote in row["votes"] or ()]
    slides = _numbered(row["slide_id"] for row in rows)
    persons = _numbered(vote["rater"] for _, vote in votes)
    kinds = _numbered([*KINDS, *(row["kind"] for row in rows), *(vote["kind"] for _, vote in votes)])
    with replacing(path) as part, closing(sqlite3.connect(part)) as database:
        database.execute("PRAGMA synchronous = OFF")  # a file that is not finished is never seen under its name
        database.executescript(_SCHEMA)
        with database:
            database.executemany(
                "INSERT INTO Slides (uid, filename, directory, uuid) VALUES (?, ?, '', '')",
                [(uid, f"{slide_id}{slide_suffix}") for slide_id, uid in slides.items()],
            )
            database.executemany(
                "INSERT INTO Persons (uid, name) VALUES (?, ?)", [(n, name) for name, n in persons.items()]
            )
            database.executemany(
                "INSERT INTO Classes (uid, name, color) VALUES (?, ?, ?)",
                [(n, kind, _COLOURS[(n - 1) % len(_COLOURS)]) for kind, n in kinds.items()],
            )
            database.executemany(
                "INSERT INTO Annotations (uid, slide, guid, type, agreedClass, description) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (n, slides[row["slide_id"]], str(uuid.uuid4()), SPOT, kinds[row["kind"]], row["subtype"] or "")
                    for n, row in enumerate(rows, start=1)
                ],
            )
            database.executemany(
                "INSERT INTO Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx) "
                "VALUES (?, ?, ?, ?, 1)",
                [(row["x_px"], row["y_px"], slides[row["slide_id"]], n) for n, row in enumerate(rows, start=1)],
            )
            database.executemany(
                "INSERT INTO Annotations_label (person, class, annoId) VALUES (?, ?, ?)",
                [(persons[vote["rater"]], kinds[vote["kind"]], record) for record, vote in votes],
            )


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: n for n, name in enumerate(dict.fromkeys(names), start=1)}
