"""Calibration against scikit-learn and against scores whose true probabilities are known."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from mitoray.errors import BadLabels, BadOption
from mitoray.evaluation.calibration import KNOTS, calibrated, expected_calibration_error, reliability
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.matching import Matching
from mitoray.evaluation.thresholds import best_threshold


def overconfident(n, seed=0, temperature=3.0, shift=-1.0):
    """Scores whose log-odds are three times too large and shifted, truths drawn by the right probabilities."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 1.2, n)
    probability = 1 / (1 + np.exp(-log_odds))
    scores = 1 / (1 + np.exp(-temperature * (log_odds - shift)))
    return scores, rng.random(n) < probability, probability


def error_by_hand(probabilities, truths, bins):
    total = 0.0
    for b in range(bins):
        inside = (probabilities > b / bins) & (probabilities <= (b + 1) / bins)
        if b == 0:
            inside |= probabilities == 0
        if inside.any():
            total += inside.sum() * abs(probabilities[inside].mean() - truths[inside].mean())
    return total / len(probabilities)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.sampled_from([1, 4, 8]))
def test_the_calibration_error_is_the_one_counted_bin_by_bin(rows, bins):
    probabilities, truths = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    expected = error_by_hand(probabilities, truths, bins)
    assert expected_calibration_error(probabilities, truths, bins) == pytest.approx(expected, abs=1e-12)


def test_the_reliability_curve_is_that_of_scikit_learn():
    scores, truths, _ = overconfident(2000)
    curve = reliability(scores, truths)
    share, mean = calibration_curve(truths, scores, n_bins=15)
    filled = curve.count > 0
    np.testing.assert_allclose(curve.share_true[filled], share)
    np.testing.assert_allclose(curve.mean_probability[filled], mean)
    assert curve.count.sum() == 2000


def test_an_empty_bin_is_no_error():
    curve = reliability(np.array([0.05, 0.95]), np.array([False, True]), bins=10)
    assert np.isnan(curve.share_true[1:9]).all()
    assert curve.error == pytest.approx(0.05)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_brings_probabilities_near_the_truth_on_candidates_not_seen(method):
    scores, truths, _ = overconfident(4000, seed=1)
    fitted = calibrated(method, scores, truths)
    other, other_truths, probability = overconfident(20000, seed=2)
    before = expected_calibration_error(other, other_truths)
    after = expected_calibration_error(fitted(other), other_truths)
    assert before > 0.15
    assert after < 0.03
    assert np.abs(fitted(other) - probability).mean() < 0.03


def test_temperature_and_bias_are_those_that_the_scores_were_spoilt_by():
    fitted = calibrated("temperature", *overconfident(100_000)[:2])
    assert fitted.temperature == pytest.approx(3.0, rel=0.05)
    assert fitted.bias == pytest.approx(-1.0, abs=0.03)


def test_isotonic_knots_are_the_flats_of_scikit_learn_at_their_mean_scores():
    rng = np.random.default_rng(4)
    scores = np.round(rng.random(300), 2)
    truths = rng.random(300) < scores
    fitted = calibrated("isotonic", scores, truths)
    levels = IsotonicRegression().fit_transform(scores, truths)
    for level in np.unique(levels):
        at = scores[levels == level].mean()
        assert fitted(np.array([at]))[0] == pytest.approx(level, abs=2e-3)


def test_no_calibration_is_none():
    assert calibrated("none", np.array([0.5]), np.array([True])) is None


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 3000), st.sampled_from(["temperature", "isotonic"]))
@example(823, 823, "isotonic")  # two neighbouring levels of 0.5, one of them by rounding a little more
def test_candidates_keep_their_order_and_the_best_f1_does_not_change(seed, n, method):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(n), 3)
    truths = rng.random(n) < scores
    fitted = calibrated(method, scores, truths)
    distinct = np.unique(scores)
    mapped = fitted(distinct).astype(np.float32).astype(np.float64)  # as a run stores them
    assert (np.diff(mapped) > 0).all()
    if method == "isotonic":
        assert len(fitted.scores) <= KNOTS
    known = [best_f1(s, truths) for s in (scores, fitted(scores).astype(np.float32).astype(np.float64))]
    assert known[0] == known[1]


def best_f1(scores, truths):
    n = int(truths.sum())
    whole = Matching(np.where(truths, 0, -1), np.zeros(n, np.int64), scores[truths], scores[~truths])
    return best_threshold(sweep([whole])).f1


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_what_cannot_be_calibrated_is_told(method):
    with pytest.raises(BadLabels, match="All 2 candidates to calibrate on are true"):
        calibrated(method, np.array([0.2, 0.9]), np.array([True, True]))
    with pytest.raises(BadLabels, match="All 1 candidates to calibrate on are false"):
        calibrated(method, np.array([0.2]), np.array([False]))
    with pytest.raises(BadLabels, match="lower scores are true more often"):
        calibrated(method, np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False]))
    with pytest.raises(BadOption, match="between 0 and 1"):
        calibrated(method, np.array([0.1, 1.2]), np.array([True, False]))
    with pytest.raises(BadOption, match="need as many scores"):
        expected_calibration_error(np.empty(0), np.empty(0, dtype=bool))
