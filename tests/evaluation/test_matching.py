"""Matching and suppression against slow and obvious versions of themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadOption
from mitoray.evaluation import matching
from mitoray.evaluation.matching import f1_score, match, match_linked, nms, precision, recall

spot = st.tuples(st.integers(0, 12), st.integers(0, 12))
scored = st.lists(st.tuples(spot, st.sampled_from([0.1, 0.2, 0.5, 0.9])), max_size=25)
spots = st.lists(spot, max_size=25)
RADIUS = 5.0  # whole coordinates put many points exactly on the border: 3-4-5


def arrays(scored_points):
    points = np.array([p for p, _ in scored_points], dtype=float).reshape(-1, 2)
    return points, np.array([s for _, s in scored_points], dtype=float)


def slow_order(points, scores):
    return sorted(range(len(points)), key=lambda i: (-scores[i], points[i][0], points[i][1]))


def slow_match(points, scores, labels, radius):
    """Positions of the matched detection and label pairs, one to one, best score first."""
    free = sorted(map(tuple, labels.tolist()))
    pairs = []
    for i in slow_order(points, scores):
        near = [(np.hypot(*(points[i] - q)), q) for q in free]
        near = [n for n in near if n[0] <= radius]
        if near:
            label = min(near)[1]
            free.remove(label)
            pairs.append((tuple(points[i]), label))
    return sorted(pairs)


@settings(deadline=None)
@given(scored, spots)
def test_each_detection_takes_the_nearest_free_label_best_score_first(detections, labels):
    points, scores = arrays(detections)
    labels = np.array(labels, dtype=float).reshape(-1, 2)
    found = match(points, scores, labels, RADIUS)
    pairs = [(tuple(points[d]), tuple(labels[i])) for d, i in enumerate(found.detection_label) if i >= 0]
    assert sorted(pairs) == slow_match(points, scores, labels, RADIUS)
    for label, detection in enumerate(found.label_detection):
        assert detection < 0 or found.detection_label[detection] == label


@settings(deadline=None)
@given(scored, spots, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]), st.sampled_from([match, match_linked]))
def test_matching_once_and_raising_the_threshold_is_matching_again_above_it(detections, labels, threshold, rule):
    points, scores = arrays(detections)
    labels = np.array(labels, dtype=float).reshape(-1, 2)
    above = scores > threshold
    once, again = rule(points, scores, labels, RADIUS), rule(points[above], scores[above], labels, RADIUS)
    assert once.counts(threshold) == again.counts()


@settings(deadline=None)
@given(scored, spots)
def test_linked_labels_are_found_by_any_detection_and_linked_detections_are_never_false(detections, labels):
    points, scores = arrays(detections)
    labels = np.array(labels, dtype=float).reshape(-1, 2)
    linked = np.linalg.norm(points[:, None] - labels[None], axis=2) <= RADIUS
    tp, fp = int(linked.any(axis=0).sum()), int((~linked.any(axis=1)).sum())
    assert match_linked(points, scores, labels, RADIUS).counts() == (tp, fp, len(labels) - tp)


@settings(deadline=None)
@given(scored)
def test_suppression_keeps_what_a_slow_greedy_loop_keeps(detections):
    points, scores = arrays(detections)
    kept = []
    for i in slow_order(points, scores):
        if all(np.hypot(*(points[i] - points[k])) > RADIUS for k in kept):
            kept.append(i)
    assert [tuple(points[i]) for i in nms(points, scores, RADIUS)] == [tuple(points[i]) for i in kept]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 30))
def test_suppression_is_exact_at_any_coordinates(seed, radius):
    rng = np.random.default_rng(seed)
    points, scores = rng.random((60, 2)) * 100 - 50, rng.random(60)
    kept = nms(points, scores, radius)
    assert (np.diff(scores[kept]) <= 0).all()
    apart = np.linalg.norm(points[kept][:, None] - points[kept][None], axis=2) + np.eye(len(kept)) * 1e9
    assert apart.min() > radius
    for lost in set(range(60)) - set(kept.tolist()):
        near = np.linalg.norm(points[kept] - points[lost], axis=1) <= radius
        assert scores[kept][near].max() >= scores[lost]


def test_suppression_reaches_across_the_corner_of_a_cell():
    points = np.array([[0.0, 0.0], [6.99, 6.99], [14.01, 14.01]])
    assert nms(points, np.array([0.1, 0.9, 0.8]), 10.0).tolist() == [1]


def test_memory_stays_bounded_by_taking_pairs_in_batches(monkeypatch):
    rng = np.random.default_rng(3)
    points, scores, labels = rng.random((200, 2)) * 30, rng.random(200), rng.random((150, 2)) * 30
    whole = {rule: rule(points, scores, labels, RADIUS) for rule in (match, match_linked)}
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 20)
    for rule, expected in whole.items():
        batched = rule(points, scores, labels, RADIUS)
        np.testing.assert_array_equal(batched.detection_label, expected.detection_label)
        np.testing.assert_array_equal(batched.label_detection, expected.label_detection)


def test_a_distance_equal_to_the_radius_matches():
    assert match(np.array([[0.0, 0.0]]), np.array([0.5]), np.array([[15.0, 20.0]]), 25.0).counts() == (1, 0, 0)
    assert match(np.array([[0.0, 0.0]]), np.array([0.5]), np.array([[15.0, 20.1]]), 25.0).counts() == (0, 1, 1)


def test_f1_of_the_published_tupac_counts():
    assert f1_score(435, 196, 173) == pytest.approx(0.702, abs=5e-4)
    assert precision(435, 196) == pytest.approx(0.689, abs=5e-4)
    assert recall(435, 173) == pytest.approx(0.715, abs=5e-4)


def test_scores_without_anything_to_judge_are_not_a_number():
    assert np.isnan([f1_score(0, 0, 0), precision(0, 0), recall(0, 0)]).all()


def test_impossible_input_is_refused_by_name():
    one = np.zeros((1, 2))
    with pytest.raises(BadOption, match="coordinates"):
        nms(np.array([[0.0, np.nan]]), np.ones(1), 1.0)
    with pytest.raises(BadOption, match="as many scores"):
        match(one, np.ones(2), one, 1.0)
    with pytest.raises(BadOption, match="scores must be finite"):
        match(one, np.array([np.nan]), one, 1.0)
    with pytest.raises(BadOption, match="radius"):
        match_linked(one, np.ones(1), one, 0.0)
