"""Detect in a labelled slide, all of the part that is judged, as scoring would."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from scipy.spatial import cKDTree

from mitoray.evaluation.matching import RADIUS_UM, nms
from mitoray.labels.schema import LABELS
from mitoray.models import Detector
from mitoray.slide import Rect, open_slide, options_for
from mitoray.training.feed import MINED
from mitoray.training.slides import TrainingSlide, centres_px

CORE_UM: Final = 512.0
FLOOR: Final = 0.05
"""Detections that score less are not kept: no threshold lies there."""
MISTAKE_SCORE: Final = 0.3
"""Score from which a detection without a label is a mistake to learn from."""

DETECTIONS: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


def detect_slide(
    detector: Detector,
    slide: TrainingSlide,
    *,
    floor: float = FLOOR,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Detections (schema `DETECTIONS`) that score `floor` or more in the sampled part. Raises SlideError."""
    halo_px = round(detector.halo_um / slide.mpp)
    points, scores = [np.empty((0, 2))], [np.empty(0)]
    with open_slide(slide.uri, options_for(slide.uri, storage_options), slide.mpp) as pixels:
        for core in _cores(slide):
            outer = core.expanded(halo_px)
            image = pixels.read_region(outer, detector.mpp)
            (found,) = detector.detect(torch.tensor(image).permute(2, 0, 1)[None], floor)
            xy_px = outer.to_level0(found.xy_px.astype(float), (image.shape[0], image.shape[1]))
            owned = core.contains(xy_px)
            points.append(xy_px[owned])
            scores.append(found.scores[owned].astype(float))
    xy_px, score = np.concatenate(points), np.concatenate(scores)
    kept = nms(xy_px * slide.mpp, score, RADIUS_UM)
    columns = [[slide.slide_id] * len(kept), xy_px[kept, 0], xy_px[kept, 1], score[kept]]
    return pa.table(columns, schema=DETECTIONS)


def false_positives(
    detector: Detector,
    slide: TrainingSlide,
    labels: pa.Table,
    *,
    score: float = MISTAKE_SCORE,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Detections far from every label of the slide, as labels (schema `LABELS`) of kind imposter. Raises SlideError."""
    found = detect_slide(detector, slide, floor=score, storage_options=storage_options)
    own = np.array(labels["slide_id"].to_pylist(), object) == slide.slide_id
    known, xy_px = centres_px(labels)[own], centres_px(found)
    if len(known) and len(xy_px):
        distance, _ = cKDTree(known).query(xy_px)
        xy_px = xy_px[distance * slide.mpp > 2 * RADIUS_UM]
    rows = [
        {"dataset": MINED, "slide_id": slide.slide_id, "x_px": x, "y_px": y, "kind": "imposter", "domain": slide.domain}
        for x, y in xy_px.tolist()
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def _cores(slide: TrainingSlide) -> Iterator[Rect]:
    """The sampled part in squares of `CORE_UM`, the last of each row and column smaller."""
    part, side = slide.sampled, round(CORE_UM / slide.mpp)
    right, bottom = part.x_px + part.width_px, part.y_px + part.height_px
    for y in range(part.y_px, bottom, side):
        for x in range(part.x_px, right, side):
            yield Rect(x, y, min(side, right - x), min(side, bottom - y))
