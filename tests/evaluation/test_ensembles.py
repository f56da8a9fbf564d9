"""Weights and thresholds against trying them all."""

import itertools

import numpy as np
import pytest

from mitoray.errors import BadDetections, BadLabels, BadOption
from mitoray.evaluation.candidate_cache import CandidateCache, SlideCandidates
from mitoray.evaluation.cohort import EvaluatedSlide
from mitoray.evaluation.ensembles import (
    ALL,
    Objective,
    Thresholds,
    combination_of,
    exact_thresholds,
    judged,
    refined,
    rounded,
    starts,
)
from mitoray.evaluation.matching import f1_score, match
from mitoray.models.combination import Combination
from mitoray.training.experiments_weights import WeightSearch, search_weights


def simulated(n_slides=6, n_candidates=40, quality=(0.6, 1.0, 1.4), seed=0, shift=0.0):
    """Members whose errors are partly their own; domains a, b and c, in c all scores are lower by `shift`."""
    rng = np.random.default_rng(seed)
    slides = []
    for number in range(n_slides):
        domain = "abc"[number % 3]
        figures = rng.random((n_candidates // 4, 2)) * 400
        true = np.arange(n_candidates) < len(figures)
        points = rng.random((n_candidates, 2)) * 400
        points[true] = figures + rng.normal(0, 1, figures.shape)
        noise = rng.normal(0, 0.6, (n_candidates, 1)) + rng.normal(0, 0.8, (n_candidates, len(quality)))
        log_odds = (2 * true[:, None] - 1) * np.array(quality) + noise - shift * (domain == "c")
        detector = 1 / (1 + np.exp(-(true - 0.5 + rng.normal(0, 1, n_candidates))))
        slide = EvaluatedSlide(f"s{number}", 0.25, domain)
        slides.append(SlideCandidates(slide, points, detector, 1 / (1 + np.exp(-log_odds)), figures))
    return CandidateCache(slides)


def f1_by_hand(cache, scores, threshold_of):
    """Every slide matched anew, without the candidates below its threshold."""
    counts, first = np.zeros(3, dtype=int), 0
    for part in cache.slides:
        own = scores[first : first + len(part.points_um)]
        first += len(own)
        kept = own >= threshold_of(part.slide.domain)
        counts += match(part.points_um[kept], own[kept], part.figures_um, 6.25).counts()
    return f1_score(*counts.tolist())


@pytest.mark.parametrize("use_detector", [False, True])
def test_f1_of_a_weighting_is_the_best_that_any_threshold_gives(use_detector):
    cache = simulated(n_slides=3, n_candidates=24)
    objective = Objective(cache, use_detector)
    for weights in np.random.default_rng(1).dirichlet(np.ones(objective.n_weights), 4):
        found = objective(weights)
        scores = cache.scores(combination_of(found.weights, use_detector))
        every = [f1_by_hand(cache, scores, lambda _, t=t: t) for t in np.unique(scores)]
        assert found.point.f1 == max(every)
        assert f1_by_hand(cache, scores, lambda _, t=found.point.threshold: t) == max(every)


def test_the_local_search_comes_within_a_hundredth_of_trying_all_weights():
    cache = simulated()
    objective = Objective(cache, use_detector=False)
    grid = [w for w in itertools.product(np.linspace(0, 1, 21), repeat=3) if abs(sum(w) - 1) < 1e-9]
    best = max(objective(w).point.f1 for w in grid)
    alone = [objective(w).point.f1 for w in starts(3)]
    assert best > max(alone[1:]) + 0.01, "the simulated members must help each other"
    found = max((refined(Objective(cache, False), w) for w in starts(3)), key=lambda w: w.rank)
    assert found.point.f1 >= best - 0.01
    assert found.point.f1 >= max(alone)


def test_the_local_search_counts_no_more_weightings_than_it_may():
    objective = Objective(simulated(), use_detector=True)
    refined(objective, (1, 1, 1, 1), evaluations=10)
    assert objective.n_evaluated <= 11


def test_weights_add_up_to_one_in_three_digits_and_equal_ones_win_ties():
    assert rounded((2, 1, 1)) == (0.5, 0.25, 0.25)
    assert rounded((0, 0)) == (0.5, 0.5)
    assert rounded((1, 1, 1)) == (0.333, 0.333, 0.333)
    assert combination_of((0.2, 0.3, 0.5), use_detector=True) == Combination(weights=(0.2, 0.3), detector_weight=0.5)
    assert starts(1) == [(1.0,)]
    same = simulated(quality=(1.0,))
    twice = [SlideCandidates(s.slide, s.points_um, s.detector_scores, s.member_scores[:, [0, 0]], s.figures_um)
             for s in same.slides]  # fmt: skip
    objective = Objective(CandidateCache(twice), use_detector=False)
    assert max(map(objective, ([0.9, 0.1], [0.5, 0.5], [0.0, 1.0])), key=lambda w: w.rank).weights == (0.5, 0.5)


def test_each_domain_with_figures_enough_has_the_threshold_that_is_best_for_it():
    cache = simulated(shift=1.5)
    scores = cache.scores(Combination(weights=(1.0, 1.0, 1.0)))
    thresholds, reasons = exact_thresholds(cache, scores)
    assert not reasons
    assert thresholds.by_domain["c"] < min(thresholds.by_domain["a"], thresholds.by_domain["b"])
    for domain in "abc":
        part = cache.of_domain(domain)
        own = part.scores(Combination(weights=(1.0, 1.0, 1.0)))
        best = max(f1_by_hand(part, own, lambda _, t=t: t) for t in np.unique(own))
        assert judged(cache, scores, thresholds)[domain].f1 == best
    assert thresholds.of("d") == thresholds.of(None) == thresholds.everywhere


def test_a_domain_with_few_figures_falls_back_to_the_threshold_of_all_and_says_why():
    cache = simulated(n_slides=7)  # domain a has three slides of ten figures, the others two
    thresholds, reasons = exact_thresholds(cache, cache.scores(Combination(weights=(1.0, 1.0, 1.0))), min_figures=25)
    assert list(thresholds.by_domain) == ["a"]
    assert reasons == dict.fromkeys("bc", "20 mitotic figures, fewer than 25")
    without = CandidateCache([*cache.slides, _empty("d", figures=0), _empty("e", figures=30)])
    scores = without.scores(Combination(weights=(1.0, 1.0, 1.0)))
    _, reasons = exact_thresholds(without, scores, min_figures=0)
    assert reasons == {"d": "0 mitotic figures, fewer than 1", "e": "no candidate"}


def _empty(domain, figures):
    slide = EvaluatedSlide(f"empty-{domain}", 0.25, domain)
    return SlideCandidates(slide, np.empty((0, 2)), np.empty(0), np.empty((0, 3)), np.random.rand(figures, 2))


def test_counts_by_domain_are_those_of_matching_at_its_threshold():
    cache = simulated(shift=1.0)
    scores = cache.scores(Combination(weights=(0.2, 0.3, 0.5)))
    thresholds = Thresholds(0.5, {"c": 0.2})
    rows = judged(cache, scores, thresholds)
    assert list(rows) == ["a", "b", "c", ALL]
    assert rows[ALL].f1 == f1_by_hand(cache, scores, thresholds.of)
    assert rows["c"].f1 == f1_by_hand(
        cache.of_domain("c"), scores[[s % 3 == 2 for s in cache.slide_index]], lambda _: 0.2
    )
    assert (rows[ALL].n_slides, rows[ALL].n_figures) == (6, 60)
    assert sum(rows[d].fp for d in "abc") == rows[ALL].fp


def test_a_score_at_the_threshold_counts_as_in_a_scoring_run():
    points = np.array([[0.0, 0.0]])
    cache = CandidateCache(
        [SlideCandidates(EvaluatedSlide("s", 1.0), points, np.array([0.0]), np.empty((1, 0)), points)]
    )
    thresholds, _ = exact_thresholds(cache, cache.scores(None), min_figures=1)
    assert thresholds.everywhere == 0.0
    assert judged(cache, cache.scores(None), thresholds)[ALL].f1 == 1.0


def test_without_figures_or_candidates_no_threshold_is_made_up():
    one = np.array([[0.0, 0.0]])
    no_figure = SlideCandidates(EvaluatedSlide("s", 1.0), one, np.array([0.5]), np.array([[0.5]]), np.empty((0, 2)))
    with pytest.raises(BadLabels, match="hold no mitotic figure"):
        exact_thresholds(CandidateCache([no_figure]), np.array([0.5]))
    with pytest.raises(BadLabels, match="hold no mitotic figure"):
        Objective(CandidateCache([no_figure]), use_detector=False)
    with pytest.raises(BadDetections, match="no candidate"):
        exact_thresholds(CandidateCache([_empty("a", figures=2)]), np.empty(0))
    single_stage = SlideCandidates(EvaluatedSlide("s", 1.0), one, np.array([0.5]), np.empty((1, 0)), one)
    with pytest.raises(BadOption, match="no weights to search"):
        Objective(CandidateCache([single_stage]), use_detector=False)


def test_one_weight_is_not_searched_and_needs_no_cluster():
    found = search_weights(simulated(quality=(1.0,)), WeightSearch())
    assert (found.best.weights, found.n_evaluated) == ((1.0,), 1)


@pytest.mark.slow
def test_the_search_finds_what_the_members_know_together_and_the_same_again(ray_session):
    cache = simulated(n_slides=9)
    search = WeightSearch(trials=5, evaluations=30, seed=3)
    found = search_weights(cache, search)
    assert found.best.point.f1 > max(start.point.f1 for start in found.starts[1:])
    assert found.best.point.f1 >= found.starts[0].point.f1
    assert found.n_evaluated > 5
    assert search_weights(cache, search).best == found.best
