"""Candidates that a run has scored already, held against labels again and again with other weights, in milliseconds.

The cache is the folder `detections/` of a run with a low `--candidate-threshold`. What it does not hold cannot be found
in it: candidates below that threshold, and of two candidates nearer to each other than the run's suppression radius the
one that the run's own weights put second. Other weights might have kept the other one; since both stand for the same
cell, at most that radius apart, its scores would hardly differ.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitoray.errors import BadDetections, BadOption
from mitoray.evaluation.cohort import EvaluatedSlide
from mitoray.evaluation.curves import Sweep, sweep
from mitoray.evaluation.inputs import checked_detections, read_tables
from mitoray.evaluation.matching import RADIUS_UM, FloatArray, IntArray, Matching, pairs_within
from mitoray.models.combination import Combination

_MEMBERS: Final = "member_scores"
_PLACE: Final = ("slide_id", "x_px", "y_px", "score")


@dataclass(frozen=True, eq=False)
class SlideCandidates:
    """Candidates and mitotic figures of one slide.

    points_um: (n, 2) float64. detector_scores: (n,), member_scores: (n, m), float64 in [0, 1]; m is 0 where no
    classifier saw them. figures_um: (k, 2) float64.
    """

    slide: EvaluatedSlide
    points_um: FloatArray
    detector_scores: FloatArray
    member_scores: FloatArray
    figures_um: FloatArray


class CandidateCache:
    """The candidates of a cohort and which of them are true, for any scores.

    detector_scores: (n,), member_scores: (n, m), slide_index: (n,), of all candidates, slide by slide.
    figure_slide: (k,), the slide of each mitotic figure.
    """

    def __init__(self, slides: Sequence[SlideCandidates], radius_um: float = RADIUS_UM) -> None:
        """Finds all pairs of a candidate and a figure within the radius. Raises BadOption as `match`, and for no slide.

        Whom a candidate takes depends on the scores only where candidates compete; the others are settled here.
        """
        if not slides:
            raise BadOption("There is no slide to hold candidates against. Check the manifest.")
        self.slides = tuple(slides)
        self.radius_um = radius_um
        self.detector_scores = np.concatenate([s.detector_scores for s in slides])
        self.member_scores = np.concatenate([s.member_scores for s in slides])
        self.slide_index = np.repeat(np.arange(len(slides)), [len(s.points_um) for s in slides])
        self.figure_slide = np.repeat(np.arange(len(slides)), [len(s.figures_um) for s in slides])
        near, close = self._pairs()
        self._settle(near, close)

    def __len__(self) -> int:
        return len(self.detector_scores)

    @property
    def n_figures(self) -> int:
        """Mitotic figures of all slides."""
        return len(self.figure_slide)

    @property
    def n_members(self) -> int:
        """Classifiers that scored each candidate; 0 in a single-stage run."""
        return int(self.member_scores.shape[1])

    @property
    def domains(self) -> list[str]:
        """Names of the domains that occur, sorted."""
        return sorted({s.slide.domain for s in self.slides if s.slide.domain is not None})

    def of_domain(self, domain: str) -> "CandidateCache":
        """The slides of one domain."""
        return CandidateCache([s for s in self.slides if s.slide.domain == domain], self.radius_um)

    def of_slides(self, slide_ids: Collection[str]) -> "CandidateCache":
        """The slides named. Raises BadOption where none is left."""
        return CandidateCache([s for s in self.slides if s.slide.slide_id in slide_ids], self.radius_um)

    def scores(self, combination: Combination | None) -> FloatArray:
        """Final scores (n,), as a run would store them: in float32. None: the detector's own.

        Raises BadOption for a combination of another number of classifiers.
        """
        if combination is None:
            return _stored(self.detector_scores)
        if len(combination.weights) != self.n_members:
            raise BadOption(
                f"The model combines {len(combination.weights)} classifiers, but the cached candidates have scores of "
                f"{self.n_members}. Score the cohort with this model, or give the model that scored it."
            )
        return _stored(combination.scores(self.detector_scores, self.member_scores))

    def figures_of(self, scores: FloatArray) -> IntArray:
        """(n,) int64: the figure that each candidate stands for, -1 for none; slide by slide the same as `match`."""
        figure = self._settled.copy()
        rivals = self._rivals[np.lexsort((self._rank[self._rivals], -scores[self._rivals]))]
        taken = set()
        for candidate in rivals.tolist():
            for wanted in self._wanted[candidate]:
                if wanted not in taken:
                    taken.add(wanted)
                    figure[candidate] = wanted
                    break
        return figure

    def true(self, scores: FloatArray) -> NDArray[np.bool_]:
        """(n,) whether each candidate stands for a mitotic figure."""
        return self.figures_of(scores) >= 0

    def sweep(self, scores: FloatArray) -> Sweep:
        """Counts over all slides at every threshold that makes a difference."""
        figure = self.figures_of(scores)
        candidate = np.full(self.n_figures, -1, dtype=np.int64)
        true = figure >= 0
        candidate[figure[true]] = np.flatnonzero(true)
        return sweep([Matching(figure, candidate, scores[true], scores[~true])])

    def _pairs(self) -> tuple[IntArray, IntArray]:
        """Numbers of candidates and figures within the radius, a candidate's nearest figure first; sets their ranks."""
        near, close, ranks = [np.empty(0, np.int64)], [np.empty(0, np.int64)], []
        candidates = figures = 0
        for slide in self.slides:
            points = slide.points_um
            for some_near, some_close in pairs_within(points, np.zeros(len(points)), slide.figures_um, self.radius_um):
                near.append(some_near + candidates)
                close.append(some_close + figures)
            ranks.append(np.argsort(np.lexsort((points[:, 1], points[:, 0]))))
            candidates, figures = candidates + len(points), figures + len(slide.figures_um)
        self._rank = np.concatenate(ranks)
        return np.concatenate(near), np.concatenate(close)

    def _settle(self, near: IntArray, close: IntArray) -> None:
        n, size = len(self), len(self) + self.n_figures
        graph = coo_array((np.ones(len(near)), (near, close + n)), shape=(size, size))
        _, group = connected_components(graph, directed=False)
        competitors = np.bincount(group[:n], minlength=size)[group[near]]
        self._settled = np.full(n, -1, dtype=np.int64)
        alone, first = np.unique(near[competitors == 1], return_index=True)
        self._settled[alone] = close[competitors == 1][first]
        self._wanted: dict[int, list[int]] = {}
        for candidate, figure in zip(near[competitors > 1].tolist(), close[competitors > 1].tolist(), strict=True):
            self._wanted.setdefault(candidate, []).append(figure)
        self._rivals = np.array(list(self._wanted), dtype=np.int64)


def read_cache(uri: str, score_columns: Sequence[str] = ()) -> pa.Table:
    """Columns `slide_id, x_px, y_px, score, detector_score, member_scores` of a Parquet file or a folder of them.

    Where a column `detector_score` is missing, `score` stands in. score_columns: columns that hold the members' scores,
    in their order; without them `member_scores`, a list of equal length in every row, or null in every row (a
    single-stage run), which gives empty lists. Raises BadDetections as `read_detections`, and for scores of members
    that are missing, of unequal number or outside 0 to 1.
    """
    table, name = read_tables(uri)
    checked = checked_detections(table, name)
    detector = checked["score"]
    if "detector_score" in table.column_names:
        renamed = table.select([*_PLACE[:3], "detector_score"]).rename_columns(_PLACE)
        detector = checked_detections(renamed, f"{name}, detector_score")["score"]
    members = _members(table, score_columns, name)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(members.ravel()), members.shape[1]) if members.size else None
    column = pa.nulls(len(table), pa.list_(pa.float64())) if lists is None else lists.cast(pa.list_(pa.float64()))
    return checked.append_column("detector_score", detector).append_column(_MEMBERS, column)


def candidate_cache(
    table: pa.Table, labels: pa.Table, slides: Sequence[EvaluatedSlide], radius_um: float = RADIUS_UM
) -> CandidateCache:
    """The candidates of a table from `read_cache`, and the labels of the kind mitotic_figure, of these slides.

    Rows of other slides are left out; a slide without labels has no mitotic figures. Raises BadOption.
    """
    figures = labels.filter(pc.equal(labels["kind"], "mitotic_figure"))
    ids = [slide.slide_id for slide in slides]
    rows, figure_rows = _rows_by_slide(table, ids), _rows_by_slide(figures, ids)
    points, figure_points = _points_px(table), _points_px(figures)
    detector, members = table["detector_score"].to_numpy(), _member_array(table[_MEMBERS])
    return CandidateCache(
        [
            SlideCandidates(slide, points[own] * slide.mpp, detector[own], members[own], figure_points[fig] * slide.mpp)
            for slide, own, fig in zip(slides, rows, figure_rows, strict=True)
        ],
        radius_um,
    )


def _members(table: pa.Table, score_columns: Sequence[str], name: str) -> FloatArray:
    if missing := [column for column in score_columns if column not in table.column_names]:
        raise BadDetections(f"{name} lacks the columns {', '.join(missing)}; it has {', '.join(table.column_names)}.")
    if score_columns:
        members = np.stack([_float_column(table[c], c, name) for c in score_columns], axis=1)
    elif _MEMBERS not in table.column_names or table[_MEMBERS].null_count == len(table):
        return np.empty((len(table), 0))
    else:
        sizes = pc.unique(pc.list_value_length(table[_MEMBERS])).to_pylist()
        if len(sizes) != 1 or sizes[0] is None:
            raise BadDetections(
                f"{name} holds candidates with scores of {', '.join(map(str, sizes))} classifiers. Give the detections "
                "of one run."
            )
        members = _member_array(table[_MEMBERS])
    if not ((members >= 0) & (members <= 1)).all():
        raise BadDetections(f"{name} has a classifier's score that is missing or outside 0 to 1. Correct or remove it.")
    return members


def _float_column(column: pa.ChunkedArray, of: str, name: str) -> FloatArray:
    try:
        return column.cast(pa.float64()).to_numpy()  # type: ignore[no-any-return]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadDetections(f"{name} holds a value of the wrong type in {of}: {error}. Correct it.") from error


def _member_array(column: pa.ChunkedArray) -> FloatArray:
    """(n, m) float64 of lists of equal length; (n, 0) of nulls."""
    flat = pc.list_flatten(column).cast(pa.float64()).to_numpy()
    return flat.reshape(len(column), -1) if len(flat) else np.empty((len(column), 0))


def _points_px(table: pa.Table) -> FloatArray:
    return np.stack([table[name].to_numpy().astype(np.float64) for name in ("x_px", "y_px")], axis=1)


def _rows_by_slide(table: pa.Table, slide_ids: Sequence[str]) -> list[IntArray]:
    index = pc.index_in(table["slide_id"].cast(pa.string()), value_set=pa.array(slide_ids, pa.string()))
    slide = pc.fill_null(index, len(slide_ids)).to_numpy()
    order = np.argsort(slide, kind="stable")
    ends = np.searchsorted(slide[order], np.arange(len(slide_ids) + 1))
    return [order[start:end] for start, end in pairwise(ends)]


def _stored(scores: FloatArray) -> FloatArray:
    return scores.astype(np.float32).astype(np.float64)
