"""A review set as an expert gets it, blinded: for SlideRunner, for QuPath, and as crops with a table to fill in."""

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from mitoray.curation.review import CANDIDATE, Review
from mitoray.errors import OutputBelongsToAnotherRun
from mitoray.labels import geojson, sliderunner_writer
from mitoray.labels.schema import LABELS
from mitoray.labels.source import replacing

DATABASE: Final = "candidates.sqlite"
QUPATH: Final = "qupath"
CROPS: Final = "crops"
TABLE: Final = "decisions.csv"
CARD: Final = "review.json"
COLUMNS: Final = ("candidate_id", "decision", "review_set")
"""Of the table to fill in: `decision` is one of the choices."""
SET_TABLE: Final = "MitorayReviewSet"
"""Of the SlideRunner database: its one row says to which review set it belongs."""

_COLOURS: Final = ("#00aa00", "#ffff00", "#0000ff", "#ff7f00", "#7f00ff", "#00ffff")

Crops = Callable[[pa.Table], Iterator[tuple[str, bytes]]]
"""From the table of a review set to each candidate_id and its crop as a PNG file, in any order."""


def write_review(review: Review, folder: Path, crops: Crops, slide_files: Mapping[str, str] | None = None) -> bool:
    """Write `folder` for an expert: SlideRunner database, folder of QuPath files, crops and table; whether it was new.

    Nothing in it tells classes, scores or groups; candidates are listed as the set orders them. The folder appears
    whole, or not at all. One that holds this review set is left as it is, for an expert may have worked on it.
    slide_files: by slide_id the slide's file name, under which SlideRunner looks for it. Raises
    OutputBelongsToAnotherRun where the folder holds something else, and what reading crops raises.
    """
    if folder.exists():
        if _digest_of(folder) == review.digest:
            return False
        raise OutputBelongsToAnotherRun(f"{folder.name} holds something else than this review set. Choose another one.")
    with _appearing(folder) as part:
        write_sliderunner(review, part / DATABASE, slide_files or {})
        write_geojson(review, part / QUPATH)
        (part / CROPS).mkdir()
        for candidate_id, png in crops(review.table):
            (part / CROPS / f"{candidate_id}.png").write_bytes(png)
        write_table(review, part / TABLE)
        card = {"review_set": review.digest, "what": review.what, "candidates": len(review), "choices": review.choices}
        (part / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8")
    return True


def write_sliderunner(review: Review, path: Path, slide_files: Mapping[str, str]) -> None:
    """A SlideRunner database: one spot per candidate, of the class "candidate", which nobody has labelled.

    The classes to choose from are the set's. guid and description are the candidate_id; the table `SET_TABLE` holds the
    digest. slide_files: file names by slide_id; else the slide_id is the name.
    """
    rows = [
        {"slide_id": row["slide_id"], "x_px": row["x_px"], "y_px": row["y_px"], "kind": CANDIDATE}
        for row in review.table.to_pylist()
    ]
    table = pa.Table.from_pylist(rows, schema=LABELS)
    with replacing(path) as part:
        sliderunner_writer.write(table, part, "")
        with closing(sqlite3.connect(part)) as database, database:
            ids = [(candidate_id, candidate_id, n) for n, candidate_id in enumerate(review.ids, start=1)]
            database.executemany("UPDATE Annotations SET guid = ?, description = ? WHERE uid = ?", ids)
            slides = database.execute("SELECT uid, filename FROM Slides").fetchall()
            names = [(slide_files.get(slide_id, slide_id), uid) for uid, slide_id in slides]
            database.executemany("UPDATE Slides SET filename = ? WHERE uid = ?", names)
            database.execute("DELETE FROM Classes")
            classes = [(n, kind, _COLOURS[(n - 1) % len(_COLOURS)]) for n, kind in enumerate(review.choices, start=1)]
            agreed = len(classes) + 1
            database.executemany(
                "INSERT INTO Classes (uid, name, color) VALUES (?, ?, ?)", [*classes, (agreed, CANDIDATE, "#808080")]
            )
            database.execute("UPDATE Annotations SET agreedClass = ?", (agreed,))
            database.execute(f"CREATE TABLE {SET_TABLE} (digest TEXT)")
            database.execute(f"INSERT INTO {SET_TABLE} VALUES (?)", (review.digest,))  # nosec B608 # a constant


def write_geojson(review: Review, folder: Path) -> None:
    """A QuPath file per slide: points without a class, called by their candidate_id; the expert gives each a class."""
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in review.table.to_pylist():
        feature = {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["x_px"], row["y_px"]]},
            "properties": {
                "objectType": "annotation",
                "name": row["candidate_id"],
                "metadata": {"candidate_id": row["candidate_id"], "review_set": review.digest},
            },
        }
        by_slide.setdefault(row["slide_id"], []).append(feature)
    geojson.write_folder(by_slide, folder)


def write_table(review: Review, path: Path) -> None:
    """The table to fill in: `COLUMNS`, the decisions empty, in the order shown."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((candidate_id, "", review.digest) for candidate_id in review.ids)
    with replacing(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to fill; it takes that name once it is full."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _digest_of(folder: Path) -> str | None:
    try:
        digest = json.loads((folder / CARD).read_text(encoding="utf-8"))["review_set"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(digest)
