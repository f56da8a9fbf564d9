"""Cuts crops out of a labelled slide: around its labels, around a detector's mistakes, and of tissue anywhere."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption
from mitoray.evaluation.matching import RADIUS_UM
from mitoray.models import Detector
from mitoray.slide import Rect, Slide, find_tissue, open_slide, options_for
from mitoray.training.crops import CROPS, png
from mitoray.training.detection import MISTAKE_SCORE, false_positives
from mitoray.training.reading import whole_patch
from mitoray.training.slides import TrainingSlide, centres_px, labels_within

_LABELLED: Final = ("mitotic_figure", "imposter", "uncertain")
_TRIES: Final = 20
_TILE_PX: Final = 256


@dataclass(frozen=True)
class Extraction:
    """Which crops are cut out of labelled slides.

    Args:
        detector: bundle whose false positives on the slides become crops too; none takes labels only. It should not be
            trained on other cases than the classifier, or validation cases would be known to it.
        mine_score: score of the detector from which a detection far from every label is a false positive.
        random_negatives: crops per slide of tissue anywhere, far from every label.
        margin_px: what crops show beyond the patch, both sides together, px at the model's µm/px: shifts and turns are
            taken from it. Half of the patch lets it turn freely.
    """

    detector: str | None = None
    mine_score: float = MISTAKE_SCORE
    random_negatives: int = 0
    margin_px: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.mine_score <= 1:
            raise BadOption(f"mine_score must lie above 0, at most 1, not {self.mine_score}.")
        for name in ("random_negatives", "margin_px"):
            if getattr(self, name) < 0:
                raise BadOption(f"{name} must be 0 or more, not {getattr(self, name)}.")


def slide_crops(
    slide: TrainingSlide,
    labels: pa.Table,
    extraction: Extraction,
    *,
    mpp: float,
    side_px: int,
    detector: Detector | None = None,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Crops (schema `CROPS`) of `side_px` px at `mpp` µm/px, in the order of their places; white beyond the slide.

    labels: schema `LABELS`; figures, imposters and uncertain ones in the part that may be sampled are cut out. Raises
    SlideError.
    """
    own = labels.filter(np.array(labels["slide_id"].to_pylist(), object) == slide.slide_id)
    within = labels_within([slide], own) if len(own) else own
    cells = [
        (row["x_px"], row["y_px"], row["kind"], row["subtype"])
        for row in within.to_pylist()
        if row["kind"] in _LABELLED
    ]
    if detector is not None:
        mined = false_positives(detector, slide, own, score=extraction.mine_score, storage_options=storage_options)
        cells += [(x, y, "mined", None) for x, y in centres_px(mined).tolist()]
    with open_slide(slide.uri, options_for(slide.uri, storage_options), slide.mpp) as pixels:
        if extraction.random_negatives:
            rng = np.random.default_rng([seed, zlib.crc32(slide.slide_id.encode())])
            places = _anywhere(slide, pixels, centres_px(own), extraction.random_negatives, rng)
            cells += [(x, y, "random", None) for x, y in places.tolist()]
        cells.sort(key=lambda cell: (cell[1] // _TILE_PX, cell[0] // _TILE_PX, cell[1], cell[0]))
        rows = [
            {
                "crop_id": f"{slide.slide_id}/{i}",
                "slide_id": slide.slide_id,
                "case_id": slide.case_id,
                "domain": slide.domain,
                "x_px": x,
                "y_px": y,
                "kind": kind,
                "subtype": subtype if kind == "mitotic_figure" else None,
                "mpp": mpp,
                "image": png(crop_around(pixels, x, y, mpp, side_px)),
            }
            for i, (x, y, kind, subtype) in enumerate(cells)
        ]
    return pa.Table.from_pylist(rows, schema=CROPS)


def crop_around(pixels: Slide, x: float, y: float, mpp: float, side_px: int) -> NDArray[np.uint8]:
    """The image (side_px, side_px, 3) around a point of the slide, at most half a px of level 0 beside it."""
    placed_px = max(1, round(side_px * mpp / pixels.mpp))
    corner = (round(x - (placed_px - 1) / 2), round(y - (placed_px - 1) / 2))
    whole_mpp = placed_px * pixels.mpp / side_px
    rect = whole_patch(pixels, Rect(*corner, placed_px, placed_px), whole_mpp, side_px)
    return pixels.read_region(rect, whole_mpp)


def _anywhere(
    slide: TrainingSlide, pixels: Slide, known_px: NDArray[np.float64], n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """At most `n` points (k, 2) on tissue of the sampled part, further than two matching radii from known ones."""
    part = slide.sampled
    corner, size = np.array([part.x_px, part.y_px]), np.array([part.width_px, part.height_px])
    points = np.floor(corner + rng.random((n * _TRIES, 2)) * size)
    points = points[find_tissue(pixels).contains(points)]
    if len(known_px) and len(points):
        distance_px, _ = cKDTree(known_px).query(points)
        points = points[distance_px * slide.mpp > 2 * RADIUS_UM]
    kept: NDArray[np.float64] = points[:n]
    return kept
