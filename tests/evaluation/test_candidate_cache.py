"""Cached candidates against matching each slide anew, and what a cache may look like."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadDetections, BadOption
from mitoray.evaluation.candidate_cache import CandidateCache, SlideCandidates, candidate_cache, read_cache
from mitoray.evaluation.cohort import EvaluatedSlide, match_cohort
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.matching import match
from mitoray.models.combination import Combination

place = st.tuples(st.integers(0, 12), st.integers(0, 12))
score = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
slide = st.tuples(st.lists(st.tuples(place, score, score), max_size=14), st.lists(place, max_size=10))


def cache_of(parts, radius=2.5):
    slides = []
    for number, (candidates, figures) in enumerate(parts):
        points = np.array([p for p, _, _ in candidates], dtype=float).reshape(-1, 2)
        detector = np.array([s for _, s, _ in candidates])
        members = np.array([s for _, _, s in candidates]).reshape(-1, 1)
        figures = np.array(figures, dtype=float).reshape(-1, 2)
        slides.append(SlideCandidates(EvaluatedSlide(f"s{number}", 1.0), points, detector, members, figures))
    return CandidateCache(slides, radius)


@settings(deadline=None, max_examples=300)
@given(st.lists(slide, min_size=1, max_size=3), st.sampled_from([1.0, 2.5, 5.0]))
def test_for_any_scores_the_same_candidates_take_the_same_figures_as_by_matching_each_slide_anew(parts, radius):
    cache = cache_of(parts, radius)
    for scores in (cache.detector_scores, cache.member_scores[:, 0], np.zeros(len(cache))):
        first = n_figures = 0
        matchings, expected = [], []
        for part in cache.slides:
            n = len(part.points_um)
            one = match(part.points_um, scores[first : first + n], part.figures_um, radius)
            expected.extend((one.detection_label + n_figures * (one.detection_label >= 0)).tolist())
            matchings.append(one)
            first, n_figures = first + n, n_figures + len(part.figures_um)
        assert cache.figures_of(scores).tolist() == expected
        ours, theirs = cache.sweep(scores), sweep(matchings)
        assert ours.scores.tolist() == theirs.scores.tolist()
        assert (ours.tp.tolist(), ours.fp.tolist()) == (theirs.tp.tolist(), theirs.fp.tolist())
        assert ours.n_labels == theirs.n_labels


def test_other_weights_change_which_of_two_rivals_is_true():
    cache = cache_of([([((0, 0), 0.9, 0.1), ((2, 0), 0.2, 0.8)], [(1, 0)])])
    assert cache.true(cache.scores(Combination(weights=(0.0,), detector_weight=1.0))).tolist() == [True, False]
    assert cache.true(cache.scores(Combination(weights=(1.0,)))).tolist() == [False, True]


def table(**changed):
    columns = {
        "slide_id": ["b", "a", "a", "elsewhere"],
        "x_px": [10.0, 100.0, 500.0, 1.0],
        "y_px": [10.0, 100.0, 500.0, 1.0],
        "detector_score": pa.array([0.3, 0.4, 0.5, 0.6], pa.float32()),
        "score": pa.array([0.9, 0.8, 0.7, 0.6], pa.float32()),
        "member_scores": pa.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]], pa.list_(pa.float32())),
    }
    return pa.table({name: value for name, value in (columns | changed).items() if value is not None})


LABELS = pa.table(
    {
        "slide_id": ["a", "a", "b"],
        "x_px": [112.0, 500.0, 300.0],
        "y_px": [100.0, 500.0, 10.0],
        "kind": ["mitotic_figure", "imposter", "mitotic_figure"],
    }
)
SLIDES = [EvaluatedSlide("a", 0.5, "lung"), EvaluatedSlide("b", 0.25, "breast"), EvaluatedSlide("empty", 0.25)]


def read(tmp_path, written, *columns):
    pq.write_table(written, tmp_path / "one.parquet")
    return read_cache(str(tmp_path / "one.parquet"), columns)


def test_a_cache_is_in_micrometres_of_each_slide_and_agrees_with_matching_the_cohort(tmp_path):
    found = read(tmp_path, table())
    cache = candidate_cache(found, LABELS, SLIDES)
    assert [len(s.points_um) for s in cache.slides] == [2, 1, 0]
    np.testing.assert_allclose(cache.slides[0].points_um, [[50, 50], [250, 250]])
    np.testing.assert_allclose(cache.member_scores, [[0.3, 0.4], [0.5, 0.6], [0.1, 0.2]], atol=1e-7)
    np.testing.assert_allclose(cache.detector_scores, [0.4, 0.5, 0.3], atol=1e-7)
    assert cache.true(cache.detector_scores).tolist() == [True, False, False]  # 12 px = 6 µm
    counted = match_cohort(found, LABELS, SLIDES).counts(0.0).sum(axis=0).tolist()
    assert counted == [1, 2, 1]
    assert (int(cache.sweep(cache.detector_scores).tp[-1]), cache.n_figures) == (1, 2)
    assert cache.domains == ["breast", "lung"]
    assert len(cache.of_domain("lung")) == 2
    assert len(cache.of_slides({"b", "empty"})) == 1


@pytest.mark.parametrize("lists", [None, pa.nulls(4, pa.list_(pa.float32()))])
def test_a_single_stage_run_has_no_members_and_its_detector_alone(tmp_path, lists):
    cache = candidate_cache(read(tmp_path, table(member_scores=lists)), LABELS, SLIDES)
    assert cache.n_members == 0
    np.testing.assert_array_equal(cache.scores(None), np.array([0.4, 0.5, 0.3], np.float32))
    with pytest.raises(BadOption, match="combines 1 classifiers, but the cached candidates have scores of 0"):
        cache.scores(Combination())


def test_scores_of_members_may_lie_in_columns_of_their_own(tmp_path):
    extra = table(member_scores=None, one=[0.1, 0.2, 0.3, 0.4], two=[0.5, 0.6, 0.7, 0.8])
    cache = candidate_cache(read(tmp_path, extra, "two", "one"), LABELS, SLIDES)
    assert cache.member_scores.tolist() == [[0.6, 0.2], [0.7, 0.3], [0.5, 0.1]]


def test_where_only_a_score_is_known_it_is_the_detectors(tmp_path):
    found = read(tmp_path, table(detector_score=None, member_scores=None))
    assert found["detector_score"].to_pylist() == found["score"].to_pylist()


@pytest.mark.parametrize(
    ("changed", "columns", "said"),
    [
        ({"member_scores": [[0.1], [0.1, 0.2], [0.1], [0.1]]}, (), "scores of 1, 2 classifiers"),
        ({"member_scores": [[0.1], None, [0.1], [0.1]]}, (), "classifiers. Give the detections of one run"),
        ({"member_scores": [[0.1], [1.5], [0.1], [0.1]]}, (), "outside 0 to 1"),
        ({"member_scores": [[0.1], [None], [0.1], [0.1]]}, (), "missing or outside 0 to 1"),
        ({"detector_score": [0.1, None, 0.2, 0.3]}, (), "detector_score: row 2 has no finite score"),
        ({"score": None}, (), "lacks the columns score"),
        ({}, ("densenet",), "lacks the columns densenet"),
        ({}, ("slide_id",), "wrong type in slide_id"),
    ],
)
def test_what_is_no_cache_is_refused_by_name(tmp_path, changed, columns, said):
    with pytest.raises(BadDetections, match=said):
        read(tmp_path, table(**changed), *columns)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadDetections, match="There are no detections at nowhere"):
        read_cache(str(tmp_path / "nowhere"))


def test_no_slide_is_no_cache(tmp_path):
    with pytest.raises(BadOption, match="no slide"):
        candidate_cache(read(tmp_path, table()), LABELS, [])
