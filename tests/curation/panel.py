"""Experts as they work: labels in a SlideRunner database by plain SQL, classes in QuPath files, a table filled in."""

import csv
import json
import sqlite3
from contextlib import closing


def label_in_sliderunner(path, person, kinds):
    """As SlideRunner does: the person, and a row of Annotations_label per decision. kinds: by candidate_id."""
    with closing(sqlite3.connect(path)) as database, database:
        number = database.execute("INSERT INTO Persons (name) VALUES (?)", (person,)).lastrowid
        classes = dict(database.execute("SELECT name, uid FROM Classes"))
        uids = dict(database.execute("SELECT guid, uid FROM Annotations"))
        database.executemany(
            "INSERT INTO Annotations_label (person, class, annoId) VALUES (?, ?, ?)",
            [(number, classes[kind], uids[one]) for one, kind in kinds.items()],
        )


def classify_in_qupath(folder, kinds):
    for file in folder.glob("*.geojson"):
        document = json.loads(file.read_text())
        for feature in document["features"]:
            if feature["properties"]["name"] in kinds:
                feature["properties"]["classification"] = {"name": kinds[feature["properties"]["name"]]}
        file.write_text(json.dumps(document))


def fill_in(path, kinds):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "decision": kinds.get(row["candidate_id"], "")} for row in rows)
