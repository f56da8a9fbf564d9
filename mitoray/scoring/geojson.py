"""A slide's detections and fields of view as GeoJSON that QuPath imports in the right place.

QuPath is at ease with very many detections and not with many annotations, so figures are detections. It reads a file as
one tree in memory before it shows anything, so many figures come as several files, the best scores first: each opens in
seconds, all can be dropped on the slide at once, and every figure keeps its score, which one MultiPoint could not hold.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from mitoray.counting.hotspot import Hotspot
from mitoray.scoring.config import GeojsonShape

FIGURE_COLOUR: Final = [200, 0, 60]
ATYPICAL_COLOUR: Final = [150, 60, 255]
FIELD_COLOUR: Final = [0, 90, 200]
FIGURE_RADIUS_UM: Final = 6.25
"""Of a figure's circle: that within which detections are matched, 25 px at 0.25 µm/px (Aubreville et al. 2020)."""

_FIELD_CORNERS: Final = 72
_FIGURE_CORNERS: Final = 12


def geojson_files(
    detections: pa.Table,
    fields_of_view: Sequence[Hotspot],
    mpp: float,
    shape: GeojsonShape = "points",
    figures: int = 50_000,
) -> Iterator[bytes]:
    """FeatureCollections in px of the slide, one feature a line, of so many figures at most; the first has the fields.

    detections: DETECTIONS table. Figures are QuPath detections, points or small circles, classified "Mitotic figure",
    or "Atypical mitotic figure" where that is at least as probable as a normal one, with their scores as measurements;
    fields of view are annotations. Of a Leica slide, QuPath shows the scanned area alone, from the corner that is the
    origin here too: nothing is added. Made file by file, so that its size in memory is the size of one file.
    """
    for first in range(0, max(1, detections.num_rows), figures):
        fields = _fields(fields_of_view, mpp) if first == 0 else ()
        lines = map(_line, [*fields, *_figures(detections.slice(first, figures), mpp, shape)])
        yield ('{"type": "FeatureCollection", "features": [\n' + ",\n".join(lines) + "\n]}\n").encode()


def _line(feature: dict[str, Any]) -> str:
    return json.dumps(feature, ensure_ascii=False, separators=(",", ":"))


def _figures(detections: pa.Table, mpp: float, shape: GeojsonShape) -> Iterator[dict[str, Any]]:
    geometry = _point if shape == "points" else _circle(FIGURE_RADIUS_UM / mpp)
    for row in detections.to_pylist():
        measurements = {
            name: round(row[name], 4)
            for name in ("score", "detector_score", "classifier_score", "atypical_probability")
            if row[name] is not None
        }
        yield {
            "type": "Feature",
            "geometry": geometry(row["x_px"], row["y_px"]),
            "properties": {
                "objectType": "detection",
                "classification": _classification(row["atypical_probability"]),
                "measurements": measurements,
            },
        }


def _point(x_px: float, y_px: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [round(x_px, 1), round(y_px, 1)]}


def _circle(radius_px: float) -> Callable[[float, float], dict[str, Any]]:
    around = _unit_circle(_FIGURE_CORNERS) * radius_px

    def circle(x_px: float, y_px: float) -> dict[str, Any]:
        return _polygon(around + np.array([x_px, y_px]))

    return circle


def _polygon(corners_px: np.ndarray) -> dict[str, Any]:
    corners = corners_px.round(1).tolist()
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def _classification(atypical_probability: float | None) -> dict[str, Any]:
    if atypical_probability is not None and atypical_probability >= 0.5:
        return {"name": "Atypical mitotic figure", "color": ATYPICAL_COLOUR}
    return {"name": "Mitotic figure", "color": FIGURE_COLOUR}


def _fields(fields: Iterable[Hotspot], mpp: float) -> Iterator[dict[str, Any]]:
    for field in fields:
        yield {
            "type": "Feature",
            "geometry": _polygon(_outline(field) / mpp),
            "properties": {
                "objectType": "annotation",
                "name": f"{field.count} mitotic figures in {field.area_mm2:g} mm² ({field.shape})",
                "classification": {"name": "Hotspot", "color": FIELD_COLOUR},
                "isLocked": True,
            },
        }


def _outline(field: Hotspot) -> np.ndarray:
    """Corners (n, 2) in µm: of the rectangle, or of a polygon with the circle's radius."""
    half = np.array([field.width_um, field.height_um]) / 2
    if field.shape == "rectangle":
        unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    else:
        unit = _unit_circle(_FIELD_CORNERS)
    return unit * half + (field.x_um, field.y_um)


def _unit_circle(corners: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([np.cos(angles), np.sin(angles)])
