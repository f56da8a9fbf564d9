import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadOption, TooFewEvents, UndefinedHazardRatio
from mitoray.survival.censoring import censored_after
from mitoray.survival.cox import cox, indicators, ordinal
from mitoray.survival.kaplan_meier import log_rank, numbers_at_risk, survival_curves

# Remission of 21 + 21 children with leukaemia, weeks (Freireich et al. 1963; Cox 1972): the textbook's own example.
TREATED = [(6, 1)] * 3 + [(6, 0), (7, 1), (9, 0), (10, 1), (10, 0), (11, 0), (13, 1), (16, 1), (17, 0), (19, 0),
           (20, 0), (22, 1), (23, 1), (25, 0), (32, 0), (32, 0), (34, 0), (35, 0)]  # fmt: skip
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
TIME = np.array([t for t, _ in TREATED] + PLACEBO, float)
EVENT = np.array([e for _, e in TREATED] + [1] * 21, bool)
GROUP = np.array(["6-MP"] * 21 + ["placebo"] * 21)


def test_the_textbook_example_gives_the_published_curves_and_log_rank():
    treated, placebo = survival_curves(TIME, EVENT, GROUP)
    assert (treated.n, treated.n_events, placebo.n, placebo.n_events) == (21, 9, 21, 21)
    assert (treated.median, placebo.median) == (23, 8)
    # Kalbfleisch and Prentice, Table 1.1's data: 0.857 after 6 weeks, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448.
    published = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert treated.at(np.array([6.0, 7, 10, 13, 16, 22, 23])).round(3).tolist() == published
    assert log_rank(TIME, EVENT, GROUP).statistic == pytest.approx(16.79, abs=0.005)


def test_the_textbook_example_gives_the_published_hazard_ratio():
    model = cox(TIME, EVENT, {"placebo": (GROUP == "placebo").astype(float)})
    assert model["placebo"].coefficient == pytest.approx(1.572, abs=0.001)  # Efron's ties: Therneau and Grambsch 2000
    assert model["placebo"].standard_error == pytest.approx(0.412, abs=0.001)
    assert (model.n, model.n_events, model.n_missing) == (42, 30, 0)


def test_numbers_at_risk_count_who_is_followed_until_then():
    at_risk = numbers_at_risk(TIME, GROUP, np.array([0.0, 6, 7, 23, 35, 36]))
    assert at_risk == {"6-MP": [21, 21, 17, 6, 1, 0], "placebo": [21, 12, 12, 1, 0, 0]}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=30))
def test_curves_follow_the_product_limit_formula_with_ties(followed):
    time, event = np.array([t for t, _ in followed], float), np.array([e for _, e in followed])
    (curve,) = survival_curves(time, event, ["all"] * len(time))
    survival = 1.0
    for t in range(1, 7):
        at_risk, died = (time >= t).sum(), ((time == t) & event).sum()
        survival *= 1 - died / at_risk if at_risk else 1
        assert curve.at(np.array([float(t)]))[0] == pytest.approx(survival, abs=1e-12)


def test_all_censored_leaves_survival_at_one_and_no_median():
    curves = survival_curves(TIME, np.zeros(42, bool), GROUP)
    for curve in curves:
        assert curve.n_events == 0
        assert (curve.survival == 1).all()
        assert np.isinf(curve.median)
    with pytest.raises(TooFewEvents, match="no event happened"):
        log_rank(TIME, np.zeros(42, bool), GROUP)
    with pytest.raises(TooFewEvents, match="none of the 42 patients"):
        cox(TIME, np.zeros(42, bool), {"x": TIME})


def test_events_after_everybody_else_left_compare_nothing():
    time, event = np.array([1.0, 2, 3, 4]), np.array([False, False, False, True])
    with pytest.raises(TooFewEvents, match="while patients of two groups"):
        log_rank(time, event, ["a", "a", "b", "b"])


def test_one_time_for_all_is_a_tie_that_has_a_result():
    # Hypergeometric: 3 of 4 and 1 of 4 die; expected 2, variance 2·(4/8)·(4/7).
    time, event = np.ones(8), np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    assert log_rank(time, event, ["a"] * 4 + ["b"] * 4).statistic == pytest.approx(1 / (4 * 0.25 * 4 / 7))


def test_one_group_is_no_comparison_and_an_empty_one_is_named():
    with pytest.raises(BadOption, match="all patients are in one"):
        log_rank(TIME, EVENT, ["a"] * 42)
    with pytest.raises(BadOption, match="Nobody is in the group 'IV'"):
        survival_curves(TIME, EVENT, GROUP, ["6-MP", "IV"])


@pytest.mark.parametrize("time", [np.array([0.0, 1.0]), np.array([np.nan, 1.0]), np.array([-1.0, 1.0]), np.array([])])
def test_times_that_are_not_positive_are_refused(time):
    with pytest.raises(BadOption, match="Times"):
        survival_curves(time, np.ones(len(time), bool), ["a"] * len(time))


RNG = np.random.default_rng(1)
X = RNG.random(42)


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ({"x": np.full(42, 3.0)}, "x is the same in all patients"),
        ({"x": X, "y": 3 * X - 1}, "one follows from the others"),
        ({"x": np.where(EVENT, 1.0, 0.0)}, "x separates"),
        ({"x": X, "gap": EVENT.astype(float)}, "gap separates"),
        ({"order": -np.arange(42.0)}, "order separates"),
    ],
)
def test_hazard_ratios_that_the_data_cannot_give_are_named(covariates, message):
    time = np.arange(1.0, 43) if "order" in covariates else TIME
    event = np.ones(42, bool) if "order" in covariates else EVENT
    with pytest.raises(UndefinedHazardRatio, match=message):
        cox(time, event, covariates)


def test_patients_without_a_covariate_are_left_out_and_counted():
    missing = X.copy()
    missing[[0, 5, 40]] = np.nan
    model, kept = cox(TIME, EVENT, {"x": missing}), np.isfinite(missing)
    assert (model.n, model.n_missing) == (39, 3)
    assert model.ratios == cox(TIME[kept], EVENT[kept], {"x": X[kept]}).ratios


def test_stages_become_ranks_or_contrasts_with_the_first():
    stages = ["II", "I", None, "IV", "II"]
    np.testing.assert_array_equal(ordinal(stages, ("I", "II", "III", "IV")), [2, 1, np.nan, 4, 2])
    found = indicators(stages, ("I", "II", "III", "IV"), "stage ")
    assert list(found) == ["stage II vs I", "stage IV vs I"]
    np.testing.assert_array_equal(found["stage II vs I"], [1, 0, np.nan, 0, 1])
    with pytest.raises(UndefinedHazardRatio, match="stage is the same in all patients"):
        indicators(["I", "I"], ("I", "II"), "stage ")


def test_censoring_keeps_events_at_the_limit_and_hides_later_ones():
    time, event = censored_after(np.array([1.0, 10, 10.5]), np.array([True, True, True]), 10.0)
    assert (time.tolist(), event.tolist()) == ([1, 10, 10], [True, True, False])
    with pytest.raises(BadOption, match="more than 0"):
        censored_after(time, event, 0.0)
