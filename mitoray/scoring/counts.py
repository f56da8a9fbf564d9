"""What is counted on one slide: fields of view, how sure their count is, atypical figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mitoray.counting.atypical import subtypes
from mitoray.counting.hotspot import Hotspot, densest_circle, densest_rectangle
from mitoray.counting.intervals import calibrated_interval, sampling_interval
from mitoray.counting.moving_window import Shape
from mitoray.counting.tissue_fields import tissue_fields
from mitoray.scoring.config import Method
from mitoray.slide import Tissue


@dataclass(frozen=True)
class Counts:
    """columns: those of SLIDES that tell counts; fields_of_view: the circle and the rectangle, where there are any."""

    columns: dict[str, Any]
    fields_of_view: Sequence[Hotspot]


def count_slide(detections: pa.Table, tissue: Tissue, method: Method, threshold: float, calibrated: bool) -> Counts:
    """Count a slide's detections that reach the threshold.

    detections: DETECTIONS table, those below the threshold included that were kept. calibrated: whether scores are
    probabilities, without which the count has no interval from them.
    """
    mpp = tissue.mpp
    counted = detections.filter(pc.greater_equal(detections["score"], threshold))
    points_um = points_px(counted) * mpp
    circle, share = _field(points_um, tissue, method, "circle", method.hotspot_mm2)
    rectangle, _ = _field(points_um, tissue, method, "rectangle", method.hotspot_hpf_mm2)
    without_field = None if method.hotspot_tissue_share else 0
    columns = {
        "n_detections": counted.num_rows,
        "mitotic_count": circle.count if circle else without_field,
        "hotspot_x_px": circle.x_um / mpp if circle else None,
        "hotspot_y_px": circle.y_um / mpp if circle else None,
        "hotspot_area_mm2": method.hotspot_mm2,
        "hotspot_tissue_share": share,
        "mitotic_count_10hpf": rectangle.count if rectangle else without_field,
        "hotspot_10hpf_x_px": rectangle.x_um / mpp if rectangle else None,
        "hotspot_10hpf_y_px": rectangle.y_um / mpp if rectangle else None,
        "note": _note(circle, rectangle, method),
        **_subtypes("", counted),
    }
    if columns["mitotic_count"] is not None:
        sampling = sampling_interval(columns["mitotic_count"])
        columns |= {"sampling_low": sampling.low, "sampling_high": sampling.high}
    if circle:
        columns |= _subtypes("hotspot_", counted.filter(pa.array(circle.contains(points_um))))
        if calibrated:
            inside = circle.contains(points_px(detections) * mpp)
            interval = calibrated_interval(detections["score"].to_numpy()[inside])
            columns |= {"count_low": int(interval.low), "count_high": int(interval.high)}
    return Counts(columns, tuple(field for field in (circle, rectangle) if field))


def points_px(table: pa.Table) -> np.ndarray:
    """Places (n, 2) of detections or candidates, level-0 px."""
    return np.column_stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()])


def _field(
    points_um: np.ndarray, tissue: Tissue, method: Method, shape: Shape, area_mm2: float
) -> tuple[Hotspot | None, float | None]:
    """The densest field, and the share of it that is tissue where one is asked for."""
    if not method.hotspot_tissue_share:
        return (densest_circle if shape == "circle" else densest_rectangle)(points_um, area_mm2), None
    fields = tissue_fields(points_um, tissue, shape, area_mm2)
    field = fields.densest(method.hotspot_tissue_share)
    return field, fields.share_of(field) if field else None


def _note(circle: Hotspot | None, rectangle: Hotspot | None, method: Method) -> str | None:
    if not method.hotspot_tissue_share:
        return None
    lacking = [
        f"{shape} of {area_mm2:g} mm²"
        for field, shape, area_mm2 in (
            (circle, "circle", method.hotspot_mm2),
            (rectangle, "rectangle", method.hotspot_hpf_mm2),
        )
        if field is None
    ]
    if not lacking:
        return None
    return f"No {' and no '.join(lacking)} holds {method.hotspot_tissue_share:.0%} of tissue: no count of it."


def _subtypes(prefix: str, figures: pa.Table) -> dict[str, Any]:
    probability = figures["atypical_probability"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    found = subtypes(probability) if len(probability) else None
    if found is None:
        return {}
    return {
        f"{prefix}n_atypical": found.n_atypical,
        f"{prefix}n_normal": found.n_normal,
        f"{prefix}atypical_ratio": found.ratio,
    }
