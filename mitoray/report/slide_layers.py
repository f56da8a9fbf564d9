"""What is drawn over a slide's overview: tissue, density, fields of view. Lengths in µm of the slide."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mitoray.counting.count_map import count_map
from mitoray.counting.hotspot import field_size_um
from mitoray.report.pictures import data_uri, length_as_uri, outline_path

MAP_PX: Final = 72
"""Px of a count map's longer side: fields are large, and the browser smoothes between."""

LEAST_SCALE: Final = 5
"""Figures that the map's last colour means at least: one figure alone is no hotspot, and should not look like one."""

OPACITY: Final = 0.65

WIDE_FIELDS: Final = 8.0
"""Fields of view that a slide must be able to hold for its count map to use the field itself. Smaller slides would be
of one colour, and use a tenth of it, about one high-power field."""


def outline_layer(mask: NDArray[np.bool_], most: int) -> dict[str, Any]:
    """The tissue's border: `d` in px of a mask of `columns` × `rows`, which spans the slide; `d` has at most `most`
    characters."""
    return {"d": outline_path(mask, most), "columns": mask.shape[1], "rows": mask.shape[0]}


def density_layer(
    points_um: NDArray[np.float64], extent_um: tuple[float, float], area_mm2: float | None, most: int
) -> dict[str, Any] | None:
    """The count map as a picture: `src`, at most `most` characters, `width_um` × `height_um` from the slide's origin.

    Also `highest`, the most figures around any place, `top`, the count of the last colour, and the window's `area_mm2`.
    None where there is nothing to map.
    """
    if not len(points_um) or not area_mm2:
        return None
    area_mm2 = window_mm2(extent_um, area_mm2)
    step_um = max(extent_um) / MAP_PX
    while True:
        counted = count_map(points_um, extent_um, area_mm2=area_mm2, step_um=step_um)
        highest = int(counted.counts.max())
        png = counted.to_png(max(highest, LEAST_SCALE), OPACITY)
        if length_as_uri(len(png)) <= most:
            rows, columns = counted.counts.shape
            return {
                "src": data_uri(png, "png"),
                "width_um": columns * step_um,
                "height_um": rows * step_um,
                "highest": highest,
                "top": max(highest, LEAST_SCALE),
                "area_mm2": area_mm2,
            }
        if max(counted.counts.shape) <= 2:
            return None
        step_um *= 1.5


def window_mm2(extent_um: tuple[float, float], area_mm2: float) -> float:
    """Area of a slide's moving window: the field's own, or a tenth of it where the slide holds but a few fields."""
    return area_mm2 / 10 if extent_um[0] * extent_um[1] / 1e6 < WIDE_FIELDS * area_mm2 else area_mm2


def field_layers(row: Mapping[str, Any], rectangle_mm2: float) -> dict[str, Any]:
    """The densest fields of a SLIDES row: `circle` with its radius, `rectangle` with its sides, or None."""
    mpp = row["mpp"]
    layers: dict[str, Any] = {"circle": None, "rectangle": None}
    if row.get("hotspot_x_px") is not None:
        area_mm2 = row["hotspot_area_mm2"]
        layers["circle"] = {
            "x_um": row["hotspot_x_px"] * mpp,
            "y_um": row["hotspot_y_px"] * mpp,
            "radius_um": math.sqrt(area_mm2 * 1e6 / math.pi),
            "area_mm2": area_mm2,
            "count": row["mitotic_count"],
        }
    if row.get("hotspot_10hpf_x_px") is not None:
        width_um, height_um = field_size_um("rectangle", rectangle_mm2, 4 / 3)
        layers["rectangle"] = {
            "x_um": row["hotspot_10hpf_x_px"] * mpp - width_um / 2,
            "y_um": row["hotspot_10hpf_y_px"] * mpp - height_um / 2,
            "width_um": width_um,
            "height_um": height_um,
            "area_mm2": rectangle_mm2,
            "count": row["mitotic_count_10hpf"],
        }
    return layers
