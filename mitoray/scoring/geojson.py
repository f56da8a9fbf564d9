"""A slide's detections and fields of view as GeoJSON that QuPath imports in the right place."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from mitoray.counting.hotspot import Hotspot

FIGURE_COLOUR: Final = [200, 0, 60]
ATYPICAL_COLOUR: Final = [150, 60, 255]
FIELD_COLOUR: Final = [0, 90, 200]
_CIRCLE_CORNERS: Final = 72


def write_geojson(
    detections: pa.Table, fields_of_view: Sequence[Hotspot], mpp: float, bounds_px: tuple[int, int] = (0, 0)
) -> bytes:
    """A FeatureCollection in px of the slide, one feature a line.

    detections: DETECTIONS table. Points are QuPath detections classified "Mitotic figure", or "Atypical mitotic figure"
    where that is at least as probable as a normal one, with their scores as measurements; fields of view are
    annotations. QuPath shows slides with bounds (MRXS-like) from their corner, so
    `bounds_px` is subtracted. Written feature by feature, so that its size in memory is the size of the file.
    """
    features = [*_fields(fields_of_view, mpp, bounds_px), *_figures(detections, bounds_px)]
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'.encode()


def _figures(detections: pa.Table, bounds_px: tuple[int, int]) -> Iterator[dict[str, Any]]:
    for row in detections.to_pylist():
        measurements = {
            name: round(row[name], 4)
            for name in ("score", "detector_score", "classifier_score", "atypical_probability")
            if row[name] is not None
        }
        yield {
            "type": "Feature",
            "geometry": {
                "type": "Point",
                "coordinates": [round(row["x_px"] - bounds_px[0], 1), round(row["y_px"] - bounds_px[1], 1)],
            },
            "properties": {
                "objectType": "detection",
                "classification": _classification(row["atypical_probability"]),
                "measurements": measurements,
            },
        }


def _classification(atypical_probability: float | None) -> dict[str, Any]:
    if atypical_probability is not None and atypical_probability >= 0.5:
        return {"name": "Atypical mitotic figure", "color": ATYPICAL_COLOUR}
    return {"name": "Mitotic figure", "color": FIGURE_COLOUR}


def _fields(fields: Iterable[Hotspot], mpp: float, bounds_px: tuple[int, int]) -> Iterator[dict[str, Any]]:
    for field in fields:
        corners = (_outline(field) / mpp - bounds_px).round(1).tolist()
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
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
        angles = np.linspace(0, 2 * np.pi, _CIRCLE_CORNERS, endpoint=False)
        unit = np.column_stack([np.cos(angles), np.sin(angles)])
    return unit * half + (field.x_um, field.y_um)
