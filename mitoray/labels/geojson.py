"""QuPath GeoJSON: one feature collection per slide."""

import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import KINDS, SUBTYPES
from mitoray.labels.source import load_json, replacing
from mitoray.labels.table import label_table, slide_id_of, votes_from_text, votes_to_text

log = logging.getLogger(__name__)

_COLOURS: Final = {"mitotic_figure": [0, 170, 0], "imposter": [255, 200, 0]}
_OTHER_COLOUR: Final = [128, 128, 128]


def read(path: Path, source: str, classes: Mapping[str, str] | None) -> pa.Table:
    """Labels of one QuPath file or of a folder of them, in level-0 px.

    The slide is the metadata's `slide_id`, or else the file's name without suffix. A point is a label, a multi-point
    one label each. An outline of a class that counts is a label at the centre of its bounding box; other outlines are
    zones (`read_zones` gives them), left out with their count logged, as are features without a class. QuPath's derived
    class "class: subtype" gives the subtype. Raises BadLabels.
    """
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for slide_id, record, feature, points in features(path, source):
        name, subtype = _name_and_subtype(class_name(feature))
        form = feature["geometry"]["type"]
        kind = kind_of(name, classes)
        if not name:
            left_out["features without a class"] += 1
            continue
        if form in ("Polygon", "MultiPolygon"):
            if kind not in KINDS:
                left_out["zones"] += 1
                continue
            outer = np.concatenate([rings[0] for rings in points])
            centres = [(outer.min(axis=0) + outer.max(axis=0)) / 2]
        elif form in ("Point", "MultiPoint"):
            centres = list(points[0][0])
        else:
            left_out[f"features of the form {form}"] += 1
            continue
        extra = _metadata(feature)
        rows += [
            {
                "dataset": extra.get("dataset"),
                "slide_id": extra.get("slide_id") or slide_id,
                "x_px": float(x),
                "y_px": float(y),
                "kind": kind,
                "subtype": subtype,
                "votes": votes_from_text(extra.get("votes"), f"{source}: feature {record}"),
                "domain": extra.get("domain"),
            }
            for x, y in centres
        ]
    for reason, times in left_out.items():
        log.warning("%s: left out %d %s.", source, times, reason)
    return label_table(rows, source)


def write(table: pa.Table, path: Path) -> None:
    """One point annotation per label. A path without suffix is a folder, with one file per slide; its other files stay.

    Raises BadLabels if one file should hold several slides: QuPath imports a file into the slide that is open.
    """
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_slide.setdefault(row["slide_id"], []).append(row)
    if path.suffix and len(by_slide) > 1:
        raise BadLabels(
            f"{path.name} cannot hold {len(by_slide)} slides: QuPath takes a file per slide. Name a folder."
        )
    if path.suffix:
        _write_file([_feature(row) for rows in by_slide.values() for row in rows], path)
    else:
        write_folder({slide_id: [_feature(row) for row in rows] for slide_id, rows in by_slide.items()}, path)


def write_folder(by_slide: Mapping[str, list[dict[str, Any]]], folder: Path) -> None:
    """Features of slides as a folder of one file per slide; its other files stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for slide_id, listed in by_slide.items():
        _write_file(listed, folder / f"{quote(slide_id, safe=' ')}.geojson")


def _write_file(listed: list[dict[str, Any]], file: Path) -> None:
    with replacing(file) as part:
        part.write_text(json.dumps({"type": "FeatureCollection", "features": listed}), encoding="utf-8")


def features(path: Path, source: str) -> Iterator[tuple[str, int, dict[str, Any], list[list[np.ndarray]]]]:
    """Slide by file name, record number, feature, and its geometry as polygons of rings of points, (n, 2) float64 px.

    A ring's repeated last point is dropped; points are one ring. Raises BadLabels.
    """
    files = sorted(path.glob("*.geojson")) if path.is_dir() else [path]
    if not files:
        raise BadLabels(f"The folder {source} holds no .geojson file. Name the folder that holds one per slide.")
    for file in files:
        document = load_json(file, file.name)
        listed = document.get("features", [document]) if isinstance(document, dict) else document
        if not isinstance(listed, list):
            raise BadLabels(f"{file.name} is no GeoJSON: it has no list of features. State its dialect.")
        for record, feature in enumerate(listed, start=1):
            if not isinstance(feature, dict) or not isinstance(feature.get("properties"), dict):
                raise BadLabels(
                    f"{file.name}: record {record} is no feature with properties. Export it from QuPath again."
                )
            yield slide_id_of(unquote(file.stem)), record, feature, _geometry(feature, record, file.name)


def class_name(feature: dict[str, Any]) -> str:
    """The QuPath class of a feature, empty if it has none; a derived class as "class: subclass"."""
    classification = feature["properties"].get("classification")
    if not isinstance(classification, dict):
        return ""
    return str(classification.get("name") or ": ".join(map(str, classification.get("names") or ())))


def _geometry(feature: dict[str, Any], record: int, source: str) -> list[list[np.ndarray]]:
    try:
        form, coordinates = feature["geometry"]["type"], feature["geometry"]["coordinates"]
        match form:
            case "Point":
                polygons = [[[coordinates]]]
            case "MultiPoint" | "LineString":
                polygons = [[coordinates]]
            case "MultiPolygon":
                polygons = coordinates
            case _:
                polygons = [coordinates]
        rings = [[np.array([point[:2] for point in ring], np.float64) for ring in polygon] for polygon in polygons]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadLabels(f"{source}: feature {record} has no geometry of points ({error}). Correct it.") from error
    if not rings or not all(
        polygon and all(ring.ndim == 2 and ring.shape[1] == 2 and np.isfinite(ring).all() for ring in polygon)
        for polygon in rings
    ):
        raise BadLabels(f"{source}: feature {record} has coordinates that are missing or not finite. Correct it.")
    return [[opened(ring) for ring in polygon] for polygon in rings] if form.endswith("Polygon") else rings


def opened(ring: np.ndarray) -> np.ndarray:
    """A ring, (n, 2), without the repetition of its first point at its end."""
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def _name_and_subtype(name: str) -> tuple[str, str | None]:
    before, colon, after = name.rpartition(": ")
    return (before, after.lower()) if colon and after.lower() in SUBTYPES else (name, None)


def _metadata(feature: dict[str, Any]) -> dict[str, str]:
    metadata = feature["properties"].get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _feature(row: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: row[name] for name in ("slide_id", "dataset", "domain") if row[name] is not None}
    if row["votes"]:
        metadata["votes"] = votes_to_text(row["votes"])
    name = row["kind"] if row["subtype"] is None else f"{row['kind']}: {row['subtype']}"
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": {"type": "Point", "coordinates": [row["x_px"], row["y_px"]]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": _COLOURS.get(row["kind"], _OTHER_COLOUR)},
            "metadata": metadata,
        },
    }
