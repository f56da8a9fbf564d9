"""Intervals of counts against enumeration, known distributions and known coverage."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, poisson

from mitoray.counting.intervals import calibrated_interval, count_distribution, sampling_interval
from mitoray.errors import BadOption

probabilities = st.lists(st.floats(0, 1), max_size=9)


@settings(deadline=None)
@given(probabilities)
def test_the_distribution_is_that_of_all_outcomes_enumerated(p):
    expected = np.zeros(len(p) + 1)
    for outcome in itertools.product([0, 1], repeat=len(p)):
        expected[sum(outcome)] += np.prod([q if yes else 1 - q for q, yes in zip(p, outcome, strict=True)])
    assert count_distribution(p) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 127, 128, 129, 5000])
def test_equal_probabilities_are_binomial(n):
    assert count_distribution(np.full(n, 0.3)) == pytest.approx(binom.pmf(np.arange(n + 1), n, 0.3), abs=1e-13)


@settings(deadline=None)
@given(probabilities, st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_is_the_narrowest_that_leaves_no_more_than_half_the_rest_on_either_side(p, level):
    distribution, tail = count_distribution(p), (1 - level) / 2
    found = calibrated_interval(p, level)
    assert distribution[: int(found.low)].sum() <= tail + 1e-12
    assert distribution[: int(found.low) + 1].sum() > tail - 1e-12
    assert distribution[int(found.high) + 1 :].sum() <= tail + 1e-12
    assert distribution[int(found.high) :].sum() > tail - 1e-12
    assert found.expected == pytest.approx(sum(p), abs=1e-9)


def test_sure_candidates_leave_no_doubt_and_no_candidates_are_none():
    sure = calibrated_interval([1.0, 1.0, 0.0])
    assert (sure.low, sure.high, sure.expected) == (2, 2, 2)
    none = calibrated_interval([])
    assert (none.low, none.high, none.expected) == (0, 0, 0)


def test_calibrated_candidates_are_covered_as_often_as_promised():
    rng = np.random.default_rng(11)
    covered = []
    for _ in range(2000):
        p = rng.beta(0.6, 0.6, 40)
        interval = calibrated_interval(p)
        covered.append(interval.low <= (rng.random(40) < p).sum() <= interval.high)
    assert 0.89 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0, 3.688879), (1, 0.025318, 5.571643), (10, 4.795389, 18.390356)]
)
def test_sampling_intervals_are_those_of_published_tables(count, low, high):
    # 95 % limits of a Poisson mean; the textbook table (Pearson and Hartley 1966, table 40).
    found = sampling_interval(count, level=0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


@settings(deadline=None)
@given(st.integers(0, 500), st.sampled_from([0.8, 0.9, 0.99]))
def test_a_mean_at_either_limit_would_give_such_a_count_as_seldom_as_stated(count, level):
    found = sampling_interval(count, level=level)
    assert poisson.cdf(count, found.high) == pytest.approx((1 - level) / 2)
    if count:
        assert poisson.sf(count - 1, found.low) == pytest.approx((1 - level) / 2)


def test_a_larger_area_makes_the_density_surer():
    small, large = sampling_interval(10, 2.0, per_mm2=1.0), sampling_interval(100, 20.0, per_mm2=1.0)
    assert small.expected == large.expected == pytest.approx(5.0)
    assert large.high - large.low < (small.high - small.low) / 2


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(BadOption, match="probabilities"):
        calibrated_interval([0.5, 1.5])
    with pytest.raises(BadOption, match="probabilities"):
        calibrated_interval([np.nan])
    with pytest.raises(BadOption, match="level"):
        calibrated_interval([0.5], level=1.0)
    with pytest.raises(BadOption, match="count"):
        sampling_interval(-1)
    with pytest.raises(BadOption, match="counted_mm2"):
        sampling_interval(3, 0.0)
