"""The rectangles of a map of cells, for SlideRunner and for QuPath, and the classes that an expert changed there."""

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.curation.map_layout import CellMap
from mitoray.curation.review import short
from mitoray.errors import BadDecisions, BadLabels
from mitoray.labels import geojson, sliderunner, sliderunner_writer
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import LABELS
from mitoray.labels.source import first_bytes, load_json, replacing

log = logging.getLogger(__name__)

AS_LABELLED: Final = "as labelled"
"""The person whose votes the labels of before are, in SlideRunner."""

MAP_TABLE: Final = "MitorayCellMap"
"""Of the SlideRunner database: its one row says to which map it belongs."""

PALETTE: Final = ("#d62728", "#1f4fd6", "#ff9f1c", "#2ca02c", "#9467bd", "#17becf", "#8c564b", "#7f7f7f")
"""Of the classes in their order: figures red, imposters blue (Aubreville et al. 2020), then others."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What an expert changed. classes: new class by cell_id, in the order of the map."""

    rater: str
    classes: Mapping[str, str]


def write_sliderunner(cell_map: CellMap, path: Path, image_name: str) -> None:
    """A SlideRunner database of the map: a rectangle (AREA) per cell, of its class; its guid is the cell_id."""
    side = cell_map.side_px
    vote = [[{"rater": AS_LABELLED, "kind": name}] for name in cell_map.names]
    rows = [
        {"slide_id": image_name, "x_px": x, "y_px": y, "kind": name, "votes": votes}
        for (x, y), name, votes in zip(cell_map.corners, cell_map.names, vote, strict=True)
    ]
    with replacing(path) as part:
        sliderunner_writer.write(pa.Table.from_pylist(rows, schema=LABELS), part, "")
        with closing(sqlite3.connect(part)) as database, database:
            ids = [(one, one, sliderunner.AREA, n) for n, one in enumerate(cell_map.ids, start=1)]
            database.executemany("UPDATE Annotations SET guid = ?, description = ?, type = ? WHERE uid = ?", ids)
            corners = [(x + side - 1, y + side - 1, n) for n, (x, y) in enumerate(cell_map.corners, start=1)]
            database.executemany(
                "INSERT INTO Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx) "
                "VALUES (?, ?, 1, ?, 2)",
                corners,
            )
            colours = [(colour_of(cell_map, name), name) for name in cell_map.classes]
            database.executemany("UPDATE Classes SET color = ? WHERE name = ?", colours)
            database.execute(f"CREATE TABLE {MAP_TABLE} (digest TEXT)")
            database.execute(f"INSERT INTO {MAP_TABLE} VALUES (?)", (cell_map.digest,))  # nosec B608 # a constant


def write_geojson(cell_map: CellMap, path: Path) -> None:
    """A QuPath file of the map: a rectangle per cell, of its class, called by its cell_id. Written cell by cell."""
    side = cell_map.side_px
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for n, (cell_id, name, (x, y)) in enumerate(zip(cell_map.ids, cell_map.names, cell_map.corners, strict=True)):
            ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
            colour = colour_of(cell_map, name)
            feature = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "annotation",
                    "name": cell_id,
                    "classification": {"name": name, "color": [int(colour[i : i + 2], 16) for i in (1, 3, 5)]},
                    "metadata": {"cell_id": cell_id, "cell_map": cell_map.digest},
                },
            }
            file.write(("," if n else "") + "\n" + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")


def read_changes(path: Path, cell_map: CellMap, rater: str | None = None) -> Changes:
    """What an expert changed on a map, in the SlideRunner database or the QuPath file written for it.

    rater: the expert's name, which a QuPath file does not say; of a SlideRunner database, whose votes count where
    several persons voted. A cell that the file does not hold any more, or that has no class, is as it was. Raises
    BadDecisions, and gives nothing, for the file of another map, ids that are not of it or that occur twice with
    different classes, and classes that no cell of the map has.
    """
    if not path.is_file():
        raise BadDecisions(f"There is no file {path.name}. Give the map's SlideRunner database or QuPath file.")
    try:
        if first_bytes(path).startswith(b"SQLite format 3\0"):
            name, given = _from_sliderunner(path, cell_map, rater)
        else:
            if not (rater and rater.strip()):
                raise BadDecisions(f"{path.name} does not say who worked in it. Give the expert's name.")
            name, given = rater, list(_from_geojson(path, cell_map))
    except BadLabels as error:
        raise BadDecisions(str(error)) from error
    return Changes(name, _settled(given, cell_map, path.name))


def colour_of(cell_map: CellMap, name: str) -> str:
    """A class' colour as #rrggbb."""
    return PALETTE[cell_map.classes.index(name) % len(PALETTE)]


def _from_geojson(path: Path, cell_map: CellMap) -> Iterator[tuple[str, str | None, str | None]]:
    """Of each feature: what messages call it, its cell_id, its class."""
    document = load_json(path, path.name)
    if not isinstance(document, dict | list):
        raise BadDecisions(f"{path.name} is no GeoJSON. Export the map's annotations from QuPath.")
    for _, record, feature, _ in geojson.features(path, path.name):
        facts = feature["properties"].get("metadata")
        facts = facts if isinstance(facts, dict) else {}
        if facts.get("cell_map"):
            _refuse_other_maps([str(facts["cell_map"])], cell_map, path.name)
        one = facts.get("cell_id") or feature["properties"].get("name")
        yield f"feature {record}", one and str(one), geojson.class_name(feature) or None


def _from_sliderunner(
    path: Path, cell_map: CellMap, rater: str | None
) -> tuple[str, list[tuple[str, str | None, str | None]]]:
    """The expert's name, and each cell's class: that expert's last vote, or else the agreed class."""
    with sliderunner.open_database(path, path.name) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (MAP_TABLE,)).fetchone():
            maps = [str(digest) for (digest,) in database.execute(f"SELECT digest FROM {MAP_TABLE}")]  # nosec B608
            _refuse_other_maps(maps, cell_map, path.name)
        classes = sliderunner.class_names(database, path.name)
        persons = dict(database.execute("SELECT uid, name FROM Persons").fetchall())
        votes: dict[str, dict[int, int]] = {}
        rows = database.execute("SELECT annoId, person, class FROM Annotations_label WHERE class > 0 ORDER BY uid")
        for annotation, person, voted in rows:
            votes.setdefault(persons.get(person) or f"person {person}", {})[annotation] = voted
        votes.pop(AS_LABELLED, None)
        name = _person(list(votes), rater, path.name)
        theirs, given = votes.get(name, {}), []
        gone = Counter[str]()
        for row in database.execute("SELECT uid, guid, deleted, agreedClass FROM Annotations ORDER BY uid"):
            if row["deleted"]:
                gone["deleted"] += 1
                continue
            chosen = theirs.get(row["uid"]) or row["agreedClass"]
            if chosen and chosen not in classes:
                raise BadDecisions(f"{path.name}: annotation {row['uid']} has a class that the database does not list.")
            given.append((f"annotation {row['uid']}", row["guid"] and str(row["guid"]), classes.get(chosen)))
    if gone:
        log.warning("%s: %d cells are marked as deleted; their class stays.", path.name, gone["deleted"])
    return name, given


def _person(persons: list[str], rater: str | None, source: str) -> str:
    if rater in persons or (rater and len(persons) < 2):
        return str(rater)
    if len(persons) == 1:
        return persons[0]
    who = f"{len(persons)} persons voted" if persons else "nobody has voted, so whose classes these are is not said"
    raise BadDecisions(f"{source}: {who}. Give the expert's name{': one of ' + ', '.join(persons) if persons else ''}.")


def _settled(given: list[tuple[str, str | None, str | None]], cell_map: CellMap, source: str) -> dict[str, str]:
    """New classes of changed cells. Raises BadDecisions."""
    before = dict(zip(cell_map.ids, cell_map.names, strict=True))
    strangers = [(record, one) for record, one, _ in given if one not in before]
    if strangers:
        record, one = strangers[0]
        raise BadDecisions(
            f"{source}: {len(strangers)} annotations are of no cell of this map; {record} is {short(one)}. Give "
            "the file of this map, and take out what was added to it."
        )
    now: dict[str, str] = {}
    for record, one, name in given:
        if name is None or one is None:
            continue
        known = name if name in cell_map.classes else kind_of(name)
        if known not in cell_map.classes:
            raise BadDecisions(
                f"{source}: {record} has the class {short(name)}, which the map does not know. Choose from "
                f"{', '.join(cell_map.classes)}."
            )
        if now.setdefault(one, known) != known:
            raise BadDecisions(f"{source}: the cell {one} is there as {now[one]} and as {known}. Keep one.")
    return {one: now[one] for one in cell_map.ids if one in now and now[one] != before[one]}


def _refuse_other_maps(digests: list[str], cell_map: CellMap, source: str) -> None:
    if others := sorted(set(digests) - {cell_map.digest}):
        raise BadDecisions(
            f"{source} belongs to the map {others[0][:12]!r}, not to {cell_map.digest[:12]!r}. Give the file that was "
            "written for this one."
        )
