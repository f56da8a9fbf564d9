import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mitoray.errors import BadLabels
from mitoray.labels import read_labels, read_zones, write_labels

DATA = Path(__file__).parents[2] / "../shared/data"
needs_tupac = pytest.mark.skipif(
    not (DATA / "tupac").is_dir(), reason="needs the TUPAC16 label databases of shared/data"
)

TABLES = """
CREATE TABLE Slides (uid INTEGER PRIMARY KEY, filename TEXT);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY, slide INTEGER, deleted INTEGER DEFAULT 0, type INTEGER,
    agreedClass INTEGER, description TEXT);
CREATE TABLE Annotations_coordinates (uid INTEGER PRIMARY KEY, coordinateX INTEGER, coordinateY INTEGER, slide INTEGER,
    annoId INTEGER, orderIdx INTEGER);
CREATE TABLE Annotations_label (uid INTEGER PRIMARY KEY, person INTEGER, class INTEGER, annoId INTEGER);
INSERT INTO Slides VALUES (1, 'a.svs'), (2, 'b.svs');
INSERT INTO Classes VALUES (1, 'Mitose'), (2, 'Hard negative'), (3, 'Tumorzone');
INSERT INTO Persons VALUES (1, 'Anna'), (2, 'Ben');
"""


def database(path, annotations, votes=()):
    """annotations: (uid, slide, deleted, type, class, points)."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(TABLES)
        for uid, slide, deleted, form, agreed, points in annotations:
            db.execute("INSERT INTO Annotations VALUES (?, ?, ?, ?, ?, '')", (uid, slide, deleted, form, agreed))
            for order, (x, y) in enumerate(points, start=1):
                db.execute(
                    "INSERT INTO Annotations_coordinates VALUES (NULL, ?, ?, ?, ?, ?)", (x, y, slide, uid, order)
                )
        db.executemany("INSERT INTO Annotations_label (person, class, annoId) VALUES (?, ?, ?)", votes)
    return path


SPOT, AREA, POLYGON, CIRCLE, IMAGE = 1, 2, 3, 5, 6
SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def test_spots_rectangles_and_circles_count_as_their_centres(tmp_path):
    path = database(
        tmp_path / "labels",
        [
            (1, 1, 0, SPOT, 1, [(5, 6)]),
            (2, 1, 0, AREA, 2, [(30, 60), (10, 20)]),
            (3, 2, 0, CIRCLE, 1, [(75, 75), (126, 125)]),
        ],
        votes=[(2, 1, 1), (1, 2, 1)],
    )
    assert read_labels(path).select(["slide_id", "x_px", "y_px", "kind", "votes"]).to_pylist() == [
        {
            "slide_id": "a",
            "x_px": 5.0,
            "y_px": 6.0,
            "kind": "mitotic_figure",
            "votes": [{"rater": "Ben", "kind": "mitotic_figure"}, {"rater": "Anna", "kind": "imposter"}],
        },
        {"slide_id": "a", "x_px": 20.0, "y_px": 40.0, "kind": "imposter", "votes": None},
        {"slide_id": "b", "x_px": 100.5, "y_px": 100.0, "kind": "mitotic_figure", "votes": None},
    ]


def test_what_is_left_out_is_counted(tmp_path, caplog):
    path = database(
        tmp_path / "labels",
        [
            (1, 1, 0, SPOT, 1, [(5, 6)]),
            (2, 1, 1, SPOT, 1, [(9, 9)]),
            (3, 1, 0, SPOT, 0, [(9, 9)]),
            (4, 1, 0, POLYGON, 3, SQUARE),
            (5, 1, 0, IMAGE, 1, [(None, None)]),
        ],
    )
    assert read_labels(path)["x_px"].to_pylist() == [5.0]
    for reason in ("marked as deleted", "without an agreed class", "that are zones", "of whole images"):
        assert f"left out 1 annotations {reason}" in caplog.text


def test_an_outlined_mitotic_figure_is_a_label_and_no_zone(tmp_path):
    path = database(tmp_path / "labels", [(1, 1, 0, POLYGON, 1, SQUARE), (2, 1, 0, POLYGON, 3, SQUARE)])
    assert read_labels(path).select(["x_px", "y_px"]).to_pylist() == [{"x_px": 5.0, "y_px": 5.0}]
    assert read_zones(path)["kind"].to_pylist() == ["Tumorzone"]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ((8, 1, 0, SPOT, 9, [(5, 6)]), "annotation 8 has the class 9"),
        ((8, 3, 0, SPOT, 1, [(5, 6)]), "annotation 8 belongs to slide 3"),
        ((8, 1, 0, CIRCLE, 1, [(5, 6)]), "annotation 8 of type 5 has 1 points"),
        ((8, 1, 0, 77, 1, [(5, 6)]), "annotation 8 of type 77"),
        ((8, 1, 0, SPOT, 1, [(None, 6)]), "annotation 8 has a point without coordinates"),
        ((8, 1, 0, SPOT, 1, [(float("inf"), 6)]), "record 1 has no finite x_px"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_named(annotation, message, tmp_path):
    with pytest.raises(BadLabels, match=message):
        read_labels(database(tmp_path / "labels", [annotation]))


def test_a_vote_for_an_unknown_class_is_named(tmp_path):
    path = database(tmp_path / "labels", [(1, 1, 0, SPOT, 1, [(5, 6)])], votes=[(1, 9, 1)])
    with pytest.raises(BadLabels, match="vote 1 is for the class 9"):
        read_labels(path)


def test_two_slides_of_one_name_are_refused(tmp_path):
    path = database(tmp_path / "labels", [(1, 1, 0, SPOT, 1, [(5, 6)]), (2, 2, 0, SPOT, 1, [(5, 6)])])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE Slides SET filename = 'a.svs'")
    with pytest.raises(BadLabels, match="two slides are called"):
        read_labels(path)


def test_a_truncated_database_is_refused(tmp_path):
    path = database(tmp_path / "labels", [(n, 1, 0, SPOT, 1, [(n, n)]) for n in range(1, 2000)])
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 5000, 100, 20):
        path.write_bytes(whole[:size])
        with pytest.raises(BadLabels, match="Fetch it again"):
            read_labels(path)


def test_a_damaged_database_is_refused(tmp_path):
    path = database(tmp_path / "labels", [(n, 1, 0, SPOT, 1, [(n, n)]) for n in range(1, 2000)])
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\xff" * (len(whole) - 4096)
    path.write_bytes(whole)
    with pytest.raises(BadLabels, match="damaged"):
        read_labels(path)


def test_a_database_of_something_else_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other")) as db, db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(BadLabels, match="no SlideRunner database"):
        read_labels(tmp_path / "other")


@pytest.mark.parametrize("mark", ["-wal", "-journal"])
def test_changes_that_are_not_saved_are_not_passed_over(mark, tmp_path):
    path = database(tmp_path / "labels", [(1, 1, 0, SPOT, 1, [(5, 6)])])
    (tmp_path / f"labels{mark}").write_bytes(b"pending")
    with pytest.raises(BadLabels, match="Close SlideRunner first"):
        read_labels(path)


def test_reading_never_writes_to_a_database_or_beside_it(tmp_path):
    path = database(tmp_path / "labels", [(1, 1, 0, SPOT, 1, [(5, 6)])])
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    before = path.read_bytes()
    read_labels(path)
    tmp_path.chmod(0o755)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@needs_tupac
def test_the_alternative_tupac_labels_are_as_published():
    labels = read_labels(DATA / "tupac/alternative_labels.sqlite")
    kinds = labels["kind"].to_pylist()
    assert (kinds.count("mitotic_figure"), kinds.count("imposter")) == (1999, 10483)
    assert len(set(labels["slide_id"].to_pylist())) == 73


@needs_tupac
def test_a_written_database_has_the_tables_that_sliderunner_writes(tmp_path):
    published = DATA / "tupac/alternative_labels.sqlite"
    write_labels(read_labels(published).slice(0, 10), tmp_path / "labels.sqlite")

    def columns(path):
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: {row[1:3] for row in db.execute(f"PRAGMA table_info({name})")} for name in names}

    assert columns(tmp_path / "labels.sqlite") == columns(published)
