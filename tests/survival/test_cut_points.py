import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.stats import binom, norm

from mitoray.errors import BadOption, TooFewEvents
from mitoray.survival.cox import cox
from mitoray.survival.cut_points import bootstrap_cut, search_cut
from mitoray.survival.kaplan_meier import log_rank
from mitoray.survival.maximal_selection import lausen_schumacher_1992, lausen_schumacher_1994

# maxstat 0.7 in R: sapply(seq(0.5, 5, 0.5), pLausen92, minprop = 0.1, maxprop = 0.9)
P_1992 = [1.0, 0.967882898076573, 0.819678995766699, 0.463872768757117, 0.189802453892004, 0.0578438845691903,
          0.0133240079314344, 0.00233924318507284, 0.00031467775847682, 3.25492795226314e-05]  # fmt: skip
# and sapply(seq(2, 5, 0.5), pLausen94, N = 50, m = M)
M = [0, 3, 7, 8, 12, 15, 17, 18, 21, 25, 27, 30, 31, 35, 36, 39, 44, 46]
P_1994 = [0.426066236447909, 0.131558039703021, 0.0314590549699589, 0.00581093458428213, 0.000826972741261553,
          9.03968770946711e-05, 7.55926672751076e-06]  # fmt: skip


@pytest.fixture(scope="module")
def searched(patients):
    return search_cut(patients.count, patients.time_years, patients.event, permutations=500)


def test_corrected_p_is_that_of_r_and_of_the_paper():
    assert [lausen_schumacher_1992(b, 0.1) for b in np.arange(0.5, 5.1, 0.5)] == pytest.approx(P_1992, rel=1e-12)
    # R divides by zero patients below the first of these cuts, and takes the term as one that ends at certainty.
    with np.errstate(divide="ignore"):
        found = [lausen_schumacher_1994(b, 50, M) for b in np.arange(2, 5.1, 0.5)]
    assert found == pytest.approx(P_1994, rel=1e-9)
    assert round(lausen_schumacher_1994(2.5, 20, range(5, 16)), 3) == 0.073  # Lausen et al. 1994, page 489


def test_a_single_cut_needs_no_correction():
    assert lausen_schumacher_1994(1.7, 100, [40]) == pytest.approx(2 * norm.sf(1.7))


def test_every_cut_has_the_log_rank_statistic_of_lifelines(patients, searched):
    assert len(np.unique(patients.count)) < len(patients.count)  # ties among values
    for cut, z, n_high, p in zip(searched.cuts, searched.z, searched.n_high, searched.naive_p, strict=True):
        high = patients.count >= cut
        test = log_rank(patients.time_years, patients.event, np.where(high, "high", "low"))
        assert z**2 == pytest.approx(test.statistic, abs=1e-9)
        assert p == pytest.approx(test.p, abs=1e-9)
        assert n_high == high.sum()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 4)), min_size=4, max_size=25))
def test_tied_times_and_values_agree_with_lifelines_too(rows):
    time, event, value = (
        np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), (float, bool, float), strict=True)
    )
    try:
        search = search_cut(value, time, event, min_share=0.01, permutations=0)
    except (BadOption, TooFewEvents):
        assert not event.any() or len(np.unique(value)) == 1
        return
    assert search.cuts.tolist() == np.unique(value)[1:].tolist()
    for cut, z in zip(search.cuts, search.z, strict=True):
        try:
            test = log_rank(time, event, np.where(value >= cut, "high", "low"))
        except TooFewEvents:
            assert z == 0
            continue
        assert z**2 == pytest.approx(test.statistic, abs=1e-9)


def test_the_best_cut_is_the_one_with_the_smallest_naive_cox_p(patients):
    count, time, event = patients.count[:120], patients.time_years[:120], patients.event[:120]
    search = search_cut(count, time, event, min_share=0.2, permutations=0)
    by_cox = {cut: cox(time, event, {"high": (count >= cut).astype(float)})["high"].p for cut in search.cuts}
    assert len(by_cox) > 15
    assert min(by_cox, key=by_cox.get) == search.cut


def test_z_is_the_score_test_of_cox_where_times_are_distinct(patients, searched):
    # Score and information at coefficient 0, by hand: an independent way to the same number.
    order = np.argsort(patients.time_years)
    assert len(np.unique(patients.time_years)) == len(order)
    high = (patients.count >= searched.cut).astype(float)[order]
    event = patients.event[order]
    share = np.cumsum(high[::-1])[::-1] / np.arange(len(order), 0, -1)
    score, information = (high - share)[event].sum(), (share * (1 - share))[event].sum()
    assert searched.z[searched.best] == pytest.approx(score / np.sqrt(information), abs=1e-9)


def test_cuts_leave_the_asked_share_on_either_side(patients, searched):
    assert searched.n_high.min() >= 30
    assert searched.n_high.max() <= 270
    outside = np.setdiff1d(np.unique(patients.count)[1:], searched.cuts)
    n_high = (patients.count[:, None] >= outside).sum(axis=0)
    assert ((n_high < 30) | (n_high > 270)).all()


def test_permutation_p_is_the_share_of_shuffles_that_separate_as_well(patients):
    search = search_cut(patients.count, patients.time_years, patients.event, permutations=99, seed=3)
    rng = np.random.default_rng(8)
    largest = [
        search_cut(rng.permutation(patients.count), patients.time_years, patients.event, permutations=0).statistic
        for _ in range(99)
    ]
    # Two samples of the same distribution: their means differ by less than four standard errors.
    error = np.sqrt((np.var(largest) + np.var(search.maxima)) / 99)
    assert abs(np.mean(largest) - search.maxima.mean()) < 4 * error
    assert search.permutation_p == (1 + (search.maxima >= search.statistic).sum()) / 100


def test_honest_p_is_never_below_naive_by_more_than_chance(searched):
    assert (searched.honest_p >= searched.naive_p - 3 * np.sqrt(searched.naive_p / 500) - 1 / 500).all()
    assert searched.p_1994 > searched.best_naive_p
    assert searched.p_1992 > searched.best_naive_p


def test_bootstrap_draws_find_what_a_search_in_the_drawn_patients_finds(patients):
    followed = (patients.count, patients.time_years, patients.event)
    drawn = bootstrap_cut(*followed, repeats=25, seed=5)
    weights = np.random.default_rng(5).multinomial(300, np.full(300, 1 / 300), size=25)
    expected = [search_cut(*(np.repeat(a, w) for a in followed), permutations=0).cut for w in weights]
    assert drawn.cuts.tolist() == expected
    assert (drawn.low, drawn.high) == (min(expected), max(expected))  # of 25 draws, 2.5 % are less than one
    assert drawn.n_undefined == 0


def test_without_draws_there_is_no_interval_and_no_permutation_p(patients):
    followed = (patients.count, patients.time_years, patients.event)
    assert np.isnan(bootstrap_cut(*followed, repeats=0).low)
    assert np.isnan(search_cut(*followed, permutations=0).permutation_p)


def test_values_that_cannot_be_cut_are_refused(patients):
    followed = (patients.time_years, patients.event)
    with pytest.raises(BadOption, match="No cut leaves 10%"):
        search_cut(np.full(300, 4.0), *followed)
    with pytest.raises(BadOption, match="No cut leaves 45%"):
        search_cut(np.repeat([0.0, 1.0], [100, 200]), *followed, min_share=0.45)
    with pytest.raises(BadOption, match="missing or not finite"):
        search_cut(np.full(300, np.nan), *followed)
    with pytest.raises(BadOption, match="less than half"):
        search_cut(patients.count, *followed, min_share=0.5)
    with pytest.raises(TooFewEvents, match="No cut without events"):
        search_cut(patients.count, patients.time_years, np.zeros(300, bool))


def test_without_effect_naive_p_rejects_far_too_often_and_corrected_p_at_most_at_its_level(benchmark_of):
    n = 200
    simulation = benchmark_of("cut_point_simulation")
    share = simulation.rejections(n, 120, 99, simulation.COUNTS, seed=11)
    assert share["naive"] * n > binom.isf(1e-9, n, 0.05)
    assert binom.ppf(0.001, n, 0.05) <= share["permutation"] * n <= binom.isf(0.001, n, 0.05)
    for bound in ("LS 1992", "LS 1994"):
        assert share[bound] * n <= binom.isf(0.001, n, 0.05)


def test_a_true_effect_at_11_is_found_there(benchmark_of):
    found = benchmark_of("cut_point_simulation").cuts_found(10, 800, 3.0, repeats=50, seed=2)
    assert found["median cut"] == pytest.approx(11, abs=2)
    assert found["holds 11"] >= 0.7
    assert found["LS 1994 < 0.05"] == 1


def test_hazard_ratio_at_the_best_cut_is_that_of_lifelines(patients, searched):
    high = patients.count >= searched.cut
    table = pd.DataFrame({"high": high.astype(float), "t": patients.time_years, "e": patients.event})
    reference = CoxPHFitter().fit(table, "t", "e").summary.loc["high"]
    ours = cox(patients.time_years, patients.event, {"high": high.astype(float)})["high"]
    assert (ours.ratio, ours.p) == pytest.approx((reference["exp(coef)"], reference["p"]), abs=1e-9)
