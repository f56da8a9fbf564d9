"""Matching over the slides of a cohort."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mitoray.evaluation.matching import RADIUS_UM, FloatArray, IntArray, Matching, match, match_linked, nms

Rule = Literal["one_to_one", "linked"]

_RULES: Final = {"one_to_one": match, "linked": match_linked}


@dataclass(frozen=True)
class EvaluatedSlide:
    """A slide whose mitotic figures are all labelled. `area_mm2`: the labelled (scored) area, None if unknown."""

    slide_id: str
    mpp: float
    domain: str | None = None
    area_mm2: float | None = None


@dataclass(frozen=True)
class MatchedCohort:
    """The slides, and the matching of each, in the same order."""

    slides: tuple[EvaluatedSlide, ...]
    matchings: tuple[Matching, ...]

    @property
    def domains(self) -> list[str]:
        """Names of the domains that occur, sorted."""
        return sorted({slide.domain for slide in self.slides if slide.domain is not None})

    @property
    def area_mm2(self) -> float | None:
        """Summed area of the slides; None if that of any is unknown."""
        areas = [slide.area_mm2 for slide in self.slides if slide.area_mm2 is not None]
        return sum(areas) if len(areas) == len(self.slides) else None

    def of_domain(self, domain: str) -> "MatchedCohort":
        """The slides of one domain."""
        at = [i for i, slide in enumerate(self.slides) if slide.domain == domain]
        return MatchedCohort(tuple(self.slides[i] for i in at), tuple(self.matchings[i] for i in at))

    def counts(self, threshold: float) -> IntArray:
        """(slides, 3) int64: true positives, false positives and false negatives at score > threshold."""
        return np.array([m.counts(threshold) for m in self.matchings], dtype=np.int64).reshape(-1, 3)


def match_cohort(
    detections: pa.Table,
    labels: pa.Table,
    slides: Sequence[EvaluatedSlide],
    *,
    radius_um: float = RADIUS_UM,
    rule: Rule = "one_to_one",
    nms_um: float | None = None,
) -> MatchedCohort:
    """Match the detections of each slide with its labels of the kind mitotic_figure.

    detections: columns `slide_id, x_px, y_px, score`; labels: `slide_id, x_px, y_px, kind`; rows of other slides are
    left out. A slide without labels has no mitotic figures. nms_um: detections this close to a better one go first.
    """
    found = _points_by_slide(detections, slides, "score")
    true = _points_by_slide(labels.filter(pc.equal(labels["kind"], "mitotic_figure")), slides)
    matchings = []
    for (points, scores), (figures, _) in zip(found, true, strict=True):
        if nms_um is not None:
            kept = nms(points, scores, nms_um)
            points, scores = points[kept], scores[kept]
        matchings.append(_RULES[rule](points, scores, figures, radius_um))
    return MatchedCohort(tuple(slides), tuple(matchings))


def _points_by_slide(
    table: pa.Table, slides: Sequence[EvaluatedSlide], score: str | None = None
) -> list[tuple[FloatArray, NDArray[np.float64]]]:
    """For each slide its points, (n, 2) µm, and their scores (zero without a column of scores)."""
    ids = pa.array([slide.slide_id for slide in slides], pa.string())
    slide = pc.fill_null(pc.index_in(table["slide_id"].cast(pa.string()), value_set=ids), len(slides)).to_numpy()
    order = np.argsort(slide, kind="stable")
    points = np.stack([table[name].to_numpy()[order].astype(np.float64) for name in ("x_px", "y_px")], axis=1)
    scores = table[score].to_numpy()[order].astype(np.float64) if score else np.zeros(len(points))
    ends = np.searchsorted(slide[order], np.arange(len(slides) + 1))
    spans = list(zip(ends[:-1], ends[1:], slides, strict=True))
    return [(points[start:end] * slide.mpp, scores[start:end]) for start, end, slide in spans]
