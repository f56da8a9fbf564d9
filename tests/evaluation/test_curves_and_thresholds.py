"""Curves and thresholds against counting again at every threshold, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mitoray.errors import BadOption
from mitoray.evaluation.bootstrap import slide_interval
from mitoray.evaluation.curves import ScoredOutcomes, average_precision, froc, sensitivity_at, sweep
from mitoray.evaluation.matching import Matching, f1_score, match, match_linked
from mitoray.evaluation.thresholds import best_threshold

scores = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
slide = st.tuples(st.lists(scores, max_size=12), st.lists(scores, max_size=12), st.integers(0, 4))
slides = st.lists(slide, min_size=1, max_size=4)


def matching(true_scores, false_scores, n_missed):
    """A slide with found labels at these scores, false positives at those, and labels nothing was near."""
    n = len(true_scores)
    return Matching(
        detection_label=np.array([*range(n), *[-1] * len(false_scores)], dtype=np.int64),
        label_detection=np.array([*range(n), *[-1] * n_missed], dtype=np.int64),
        true_scores=np.array(true_scores, dtype=float),
        false_scores=np.array(false_scores, dtype=float),
    )


def all_scores(cohort):
    return np.unique(np.concatenate([s for m in cohort for s in (m.true_scores, m.false_scores)]))


def counts_of(cohort, threshold):
    return np.sum([m.counts(threshold) for m in cohort], axis=0).tolist()


@settings(deadline=None)
@given(slides)
def test_the_best_threshold_is_best_of_all_thresholds_there_can_be(parts):
    cohort = [matching(*part) for part in parts]
    best = best_threshold(sweep(cohort))
    scores_seen = all_scores(cohort)
    if len(scores_seen) == 0:
        assert best is None
        return
    between = (scores_seen[1:] + scores_seen[:-1]) / 2
    every = np.concatenate([[-1.0], scores_seen, between])
    assert best.f1 == max(f1_score(*counts_of(cohort, t)) for t in every if t < scores_seen[-1])
    assert counts_of(cohort, best.threshold) == [best.tp, best.fp, best.fn]
    assert best.f1 == f1_score(best.tp, best.fp, best.fn)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.tuples(st.integers(0, 9), st.integers(0, 9)), scores), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    st.sampled_from([match, match_linked]),
)
def test_the_best_threshold_survives_matching_again_from_the_points(detections, labels, rule):
    points = np.array([p for p, _ in detections], dtype=float)
    values = np.array([s for _, s in detections])
    truth = np.array(labels, dtype=float).reshape(-1, 2)
    best = best_threshold(sweep([rule(points, values, truth, 2.5)]))
    again = [rule(points[values > t], values[values > t], truth, 2.5).counts() for t in [-1.0, *values.tolist()]]
    assert best.f1 == max(f1 for c in again if not np.isnan(f1 := f1_score(*c)))


@settings(deadline=None)
@given(slides)
def test_every_threshold_of_a_sweep_gives_the_counts_it_promises(parts):
    cohort = [matching(*part) for part in parts]
    counts = sweep(cohort)
    assert (np.diff(counts.thresholds) < 0).all()
    np.testing.assert_array_equal(np.stack(counts.above(counts.thresholds)), [counts.tp, counts.fp])
    for threshold, tp, fp in zip(counts.thresholds, counts.tp, counts.fp, strict=True):
        assert counts_of(cohort, threshold) == [tp, fp, counts.n_labels - tp]


@settings(deadline=None)
@given(slides, st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=10))
def test_counts_at_any_grid_are_those_of_counting_there(parts, grid):
    cohort = [matching(*part) for part in parts]
    assert [counts_of(cohort, t)[:2] for t in grid] == np.stack(sweep(cohort).above(np.array(grid)), axis=1).tolist()


def test_a_grid_finds_the_best_of_the_grid_only():
    counts = sweep([matching([0.9, 0.62], [0.615, 0.3], 0)])
    assert best_threshold(counts).f1 == 1.0
    on_grid = best_threshold(counts, np.arange(0.5, 1, 0.1))
    assert (on_grid.threshold, on_grid.tp, on_grid.fp, on_grid.f1) == pytest.approx((0.6, 2, 1, 0.8))


def test_without_any_label_the_best_is_still_a_threshold():
    best = best_threshold(sweep([matching([], [0.9, 0.3], 0)]))
    assert (best.tp, best.fp, best.fn, best.f1) == (0, 1, 0, 0.0)
    assert np.isnan(best_threshold(sweep([matching([], [0.3], 0)]), np.array([0.5])).f1)


def test_of_equal_thresholds_the_highest_is_taken():
    best = best_threshold(sweep([matching([0.9, 0.5], [0.7, 0.6, 0.55], 0)]))
    assert best.f1 == pytest.approx(2 / 3)
    assert best.tp == 1


@settings(deadline=None)
@given(slides)
def test_average_precision_is_that_of_scikit_learn(parts):
    cohort = [matching(true, false, 0) for true, false, _ in parts]
    counts = sweep(cohort)
    if counts.n_labels == 0:
        assert np.isnan(average_precision(counts))
        return
    true = np.concatenate([m.true_scores for m in cohort])
    false = np.concatenate([m.false_scores for m in cohort])
    truth = np.r_[np.ones(len(true)), np.zeros(len(false))]
    assert average_precision(counts) == pytest.approx(average_precision_score(truth, np.r_[true, false]))


def test_labels_never_detected_lower_the_average_precision():
    assert average_precision(sweep([matching([0.9, 0.8], [], 2)])) == pytest.approx(0.5)


def test_froc_counts_false_positives_per_mm2():
    counts = sweep([matching([0.9, 0.5], [0.8, 0.7, 0.1], 0)])
    rate, sensitivity = froc(counts, area_mm2=2.0)
    np.testing.assert_allclose(rate, [0, 0.5, 1.0, 1.0, 1.5])
    np.testing.assert_allclose(sensitivity, [0.5, 0.5, 0.5, 1.0, 1.0])
    assert sensitivity_at(counts, 2.0, 0.9) == 0.5
    assert sensitivity_at(counts, 2.0, 1.0) == 1.0
    assert sensitivity_at(sweep([matching([0.5], [0.9], 0)]), 1.0, 0.5) == 0.0
    with pytest.raises(BadOption, match="area_mm2"):
        froc(counts, 0.0)


@settings(deadline=None)
@given(slides, st.randoms(use_true_random=False))
def test_drawing_a_slide_twice_is_having_it_twice(parts, random):
    cohort = [matching(*part) for part in parts]
    times = np.array([random.randint(0, 3) for _ in cohort])
    drawn = ScoredOutcomes(cohort).sweep(times)
    copies = [m for m, n in zip(cohort, times, strict=True) for _ in range(n)]
    for threshold, tp, fp in zip(drawn.thresholds, drawn.tp, drawn.fp, strict=True):
        assert [tp, fp, drawn.n_labels - tp] == (counts_of(copies, threshold) if copies else [0, 0, 0])


def test_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = slide_interval(lambda times: float(times @ values / times.sum()), 400, repeats=2000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_interval_is_the_same_for_the_same_seed_and_nothing_without_slides():
    def mean(times):
        return float(times @ np.arange(10) / 10)

    assert slide_interval(mean, 10, seed=3) == slide_interval(mean, 10, seed=3) != slide_interval(mean, 10, seed=4)
    assert np.isnan(slide_interval(mean, 0)).all()
    assert np.isnan(slide_interval(lambda times: np.nan, 10)).all()
    with pytest.raises(BadOption, match="bootstrap"):
        slide_interval(mean, 10, repeats=0)
