"""Which figures the report shows of a slide, and their crops."""

import logging
from typing import Any, Final, Literal, TypedDict

import numpy as np
import pyarrow as pa

from mitoray.errors import SlideError
from mitoray.report.pictures import picture_uri
from mitoray.slide import Rect, Slide

log = logging.getLogger(__name__)

CROP_UM: Final = 32.0
"""Side of a crop, µm: a mitotic figure and its neighbours. Classifiers look at 32 to 64 µm."""

_CHARACTERS_PER_PX: Final = 0.5
"""What a crop may take: 4.6 kB for 96 px, 2 kB for 64 px."""

Group = Literal["highest", "borderline"]


class Figure(TypedDict):
    """A detection to show. rank: from 1, among the slide's detections by score. Positions in level-0 px."""

    group: Group
    rank: int
    score: float
    counted: bool
    atypical: float | None
    x_px: float
    y_px: float


class Crop(Figure):
    """A figure and its picture: `src`, a data URI, None where it cannot be read."""

    src: str | None


def chosen_figures(detections: pa.Table, threshold: float, most: int) -> list[Figure]:
    """The counted figures with the highest scores, and those whose scores lie nearest to the threshold, in turn.

    detections: DETECTIONS table, best score first. `most` of each group; none in both. A figure counts from a score of
    `threshold`; detections below it are there where the run kept candidates.
    """
    # As the reduce step compares: a threshold made a float32 could count more.
    scores = detections["score"].to_numpy().astype(np.float64)
    counted = scores >= threshold
    highest = np.flatnonzero(counted)[:most]
    rest = np.setdiff1d(np.arange(len(scores)), highest)
    nearest = np.sort(rest[np.argsort(np.abs(scores[rest] - threshold), kind="stable")[:most]])
    shown = [(place, group) for pair in _in_turn(highest, nearest) for place, group in pair]
    rows = detections.select(["score", "atypical_probability", "x_px", "y_px"])
    figures: list[Figure] = []
    for place, group in shown:
        row = rows.slice(place, 1).to_pylist()[0]
        figures.append(
            {
                "group": group,
                "rank": place + 1,
                "score": round(row["score"], 4),
                "counted": bool(counted[place]),
                "atypical": None if row["atypical_probability"] is None else round(row["atypical_probability"], 3),
                "x_px": round(row["x_px"], 1),
                "y_px": round(row["y_px"], 1),
            }
        )
    return figures


def _in_turn(highest: Any, nearest: Any) -> list[list[tuple[int, Group]]]:
    longer = max(len(highest), len(nearest))
    groups: list[tuple[Any, Group]] = [(highest, "highest"), (nearest, "borderline")]
    return [[(int(places[i]), group) for places, group in groups if i < len(places)] for i in range(longer)]


def crop_rect(slide: Slide, x_px: float, y_px: float) -> Rect:
    """`CROP_UM` µm of the slide around a place, level-0 px."""
    side = round(CROP_UM / slide.mpp)
    return Rect(round(x_px - side / 2), round(y_px - side / 2), side, side)


def crop_of(slide: Slide, figure: Figure, side_px: int) -> Crop:
    """The figure in the middle of `CROP_UM` µm of its slide, `side_px` px wide or, of coarser slides, as they are."""
    rect = crop_rect(slide, figure["x_px"], figure["y_px"])
    try:
        image = slide.read_region(rect, max(slide.mpp, CROP_UM / side_px))
    except SlideError as error:
        log.warning("A figure is shown without its crop: %s", error)
        return {**figure, "src": None}
    return {**figure, "src": picture_uri(image, int(_CHARACTERS_PER_PX * side_px**2))}
