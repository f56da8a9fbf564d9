"""Outlined areas, such as tumour zones."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels import geojson, sliderunner
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import KINDS
from mitoray.labels.source import first_bytes, local_file, naming_errors, short_name

log = logging.getLogger(__name__)

_POINT: Final = pa.struct([pa.field("x_px", pa.float64()), pa.field("y_px", pa.float64())])

ZONES: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rings", pa.list_(pa.list_(_POINT)), nullable=False),
    ]
)
"""Columns of a zone table. `rings` are level-0 px: the outline, then its holes, none repeating its first point."""


def read_zones(uri: str | Path, *, classes: Mapping[str, str] | None = None) -> pa.Table:
    """Polygons of a SlideRunner database, a QuPath GeoJSON file, or a folder of these: one row each, schema `ZONES`.

    `kind` is the class as the file names it, or as `classes` translates it. Outlines of mitotic figures and imposters
    are labels, not zones. Outlines of fewer than three points are left out and counted in a warning. Raises BadLabels.
    """
    path, source = local_file(str(uri)), short_name(str(uri))
    with naming_errors(source):
        return _zones(path, source, classes)


def _zones(path: Path, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    from_sqlite = path.is_file() and first_bytes(path).startswith(b"SQLite")
    rows, too_few = [], 0
    for slide_id, name, rings in (_sliderunner_polygons if from_sqlite else _geojson_polygons)(path, source):
        kind = kind_of(name, classes)
        if kind in KINDS:
            continue
        if min(map(len, rings)) < 3:
            too_few += 1
            continue
        rows.append({"slide_id": slide_id, "kind": kind, "rings": [_points(ring) for ring in rings]})
    if too_few:
        log.warning("%s: left out %d outlines of fewer than three points.", source, too_few)
    return pa.Table.from_pylist(rows, schema=ZONES)


def _sliderunner_polygons(path: Path, source: str) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    with sliderunner.open_database(path, source) as database:
        names = sliderunner.class_names(database, source)
        for annotation in sliderunner.annotations(database, source):
            if annotation["type"] != sliderunner.POLYGON:
                continue
            if annotation["agreedClass"] not in names:
                raise BadLabels(f"{source}: zone {annotation['uid']} has no class of the database. Give it one.")
            ring = geojson.opened(np.array(annotation["points"], np.float64))
            yield annotation["slide_id"], names[annotation["agreedClass"]], [ring]


def _geojson_polygons(path: Path, source: str) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    for slide_id, record, feature, polygons in geojson.features(path, source):
        if feature["geometry"]["type"] not in ("Polygon", "MultiPolygon"):
            continue
        if not (name := geojson.class_name(feature)):
            raise BadLabels(f"{source}: zone {record} has no class. Give it one in QuPath.")
        for rings in polygons:
            yield slide_id, name, rings


def _points(ring: np.ndarray) -> list[dict[str, Any]]:
    return [{"x_px": x, "y_px": y} for x, y in ring.tolist()]
