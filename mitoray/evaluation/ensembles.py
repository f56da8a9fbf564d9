"""Weights of an ensemble's members, and thresholds, judged on cached candidates; no network is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mitoray.errors import BadDetections, BadLabels, BadOption
from mitoray.evaluation.candidate_cache import CandidateCache
from mitoray.evaluation.matching import FloatArray, f1_score
from mitoray.evaluation.thresholds import OperatingPoint, best_threshold
from mitoray.models.combination import Combination

ALL: Final = "all"
DIGITS: Final = 3
"""Of weights that add up to 1: finer ones change no ranking that another cohort would confirm."""

_WIDEST, _NARROWEST = 0.2, 0.01
"""Steps of the local search, from the first to the last, each half of the one before."""


@dataclass(frozen=True)
class Weighting:
    """Weights that were tried, of the members and, where it has one, last of the detector, and the best point there."""

    weights: tuple[float, ...]
    point: OperatingPoint

    @property
    def rank(self) -> tuple[float, float]:
        """What a better weighting has more of: F1, and of equal ones likeness to uniform weights."""
        return self.point.f1, -float(np.var(self.weights))


@dataclass(frozen=True)
class Thresholds:
    """Scores from which a candidate counts: everywhere, and in the domains that have one of their own."""

    everywhere: float
    by_domain: Mapping[str, float] = field(default_factory=dict)

    def of(self, domain: str | None) -> float:
        """The one that counts in a domain."""
        return self.everywhere if domain is None else self.by_domain.get(domain, self.everywhere)


@dataclass(frozen=True)
class Judged:
    """Counts of a domain's slides, or of all."""

    n_slides: int
    tp: int
    fp: int
    fn: int

    @property
    def n_figures(self) -> int:
        """Labelled mitotic figures."""
        return self.tp + self.fn

    @property
    def f1(self) -> float:
        """NaN with neither figure nor detection."""
        return f1_score(self.tp, self.fp, self.fn)


def combination_of(weights: Sequence[float], use_detector: bool) -> Combination:
    """Weights of the members and, with `use_detector`, last of the detector, as a combination without calibration."""
    members = tuple(weights[:-1] if use_detector else weights)
    return Combination(weights=members, detector_weight=weights[-1] if use_detector else 0.0)


def starts(n_weights: int) -> list[tuple[float, ...]]:
    """Where every search begins: uniform weights, and each one alone."""
    alone = [tuple(map(float, row)) for row in np.eye(n_weights)]
    return [rounded((1.0,) * n_weights), *alone] if n_weights > 1 else alone


def rounded(weights: Sequence[float]) -> tuple[float, ...]:
    """Non-negative weights, made to add up to 1 and rounded to `DIGITS`; uniform ones for nothing but zeros."""
    total = sum(weights)
    shares = [w / total for w in weights] if total > 0 else [1 / len(weights)] * len(weights)
    return tuple(round(share, DIGITS) for share in shares)


class Objective:
    """Pooled F1 of a weighting at the threshold that is best for it, on given candidates; each is counted once."""

    def __init__(self, cache: CandidateCache, use_detector: bool) -> None:
        """Raises BadDetections for no candidate, BadLabels for no mitotic figure, BadOption for nothing to weigh."""
        check_searchable(cache)
        self.n_weights = cache.n_members + use_detector
        if self.n_weights == 0:
            raise BadOption("The cached candidates have no classifier's scores, so there are no weights to search.")
        self._cache, self._use_detector = cache, use_detector
        self._known: dict[tuple[float, ...], Weighting] = {}

    @property
    def n_evaluated(self) -> int:
        """Different weightings counted so far."""
        return len(self._known)

    def __call__(self, weights: Sequence[float]) -> Weighting:
        """The weights, rounded, and what they give."""
        near = rounded(weights)
        if near not in self._known:
            scores = self._cache.scores(combination_of(near, self._use_detector))
            self._known[near] = Weighting(near, _best(self._cache, scores))
        return self._known[near]


def refined(objective: Objective, weights: Sequence[float], evaluations: int = 150) -> Weighting:
    """The best weighting found by changing one weight at a time, by ever smaller steps, beginning at `weights`.

    evaluations: weightings counted at most, the ones counted before not among them.
    """
    best, last, step = objective(weights), objective.n_evaluated + evaluations, _WIDEST
    while step >= _NARROWEST and objective.n_evaluated < last:
        before = best
        for place in range(len(best.weights)):
            for change in (step, -step):
                moved = np.array(best.weights)
                moved[place] = max(0.0, moved[place] + change)
                if objective.n_evaluated < last:
                    best = max(best, objective(moved.tolist()), key=lambda w: w.rank)
        if best is before:
            step /= 2
    return best


def exact_thresholds(
    cache: CandidateCache, scores: FloatArray, min_figures: int = 20
) -> tuple[Thresholds, dict[str, str]]:
    """The thresholds with the highest F1, of all slides summed and of each domain, and why a domain has none.

    Every threshold that makes a difference is tried. A domain with fewer than `min_figures` mitotic figures, or without
    candidates, gets none: the one of all slides counts there. Raises BadDetections for no candidate, BadLabels for no
    figure at all.
    """
    check_searchable(cache)
    own, reasons = {}, {}
    slide_of = np.array([slide.slide.domain for slide in cache.slides], dtype=object)
    for domain in cache.domains:
        part = cache.of_domain(domain)
        if part.n_figures < max(1, min_figures):
            reasons[domain] = f"{part.n_figures} mitotic figures, fewer than {max(1, min_figures)}"
        elif len(part) == 0:
            reasons[domain] = "no candidate"
        else:
            own[domain] = _threshold(_best(part, scores[slide_of[cache.slide_index] == domain]))
    return Thresholds(_threshold(_best(cache, scores)), own), reasons


def judged(cache: CandidateCache, scores: FloatArray, thresholds: Thresholds) -> dict[str, Judged]:
    """Counts by domain and of all slides (`ALL`, last), where candidates count from their domain's threshold on."""
    figure = cache.figures_of(scores)
    lowest = np.array([thresholds.of(slide.slide.domain) for slide in cache.slides])
    counts = scores >= lowest[cache.slide_index]
    n = len(cache.slides)
    tp = np.bincount(cache.slide_index[counts & (figure >= 0)], minlength=n)
    fp = np.bincount(cache.slide_index[counts & (figure < 0)], minlength=n)
    fn = np.bincount(cache.figure_slide, minlength=n) - tp
    domains = np.array([slide.slide.domain for slide in cache.slides], dtype=object)
    parts = {domain: domains == domain for domain in cache.domains} | {ALL: np.ones(n, dtype=bool)}
    return {
        name: Judged(int(own.sum()), int(tp[own].sum()), int(fp[own].sum()), int(fn[own].sum()))
        for name, own in parts.items()
    }


def check_searchable(cache: CandidateCache) -> None:
    """Raises BadDetections for no candidate, BadLabels for no mitotic figure: no threshold could be found on those."""
    if cache.n_figures == 0:
        raise BadLabels(
            f"The {len(cache.slides)} slides to search hold no mitotic figure, so that no threshold can be found on "
            "them. Search on slides that do."
        )
    if len(cache) == 0:
        raise BadDetections(
            f"There is no candidate on the {len(cache.slides)} slides to search. Check the detections and slide_id."
        )


def _best(cache: CandidateCache, scores: FloatArray) -> OperatingPoint:
    best = best_threshold(cache.sweep(scores))
    assert best is not None, "there are candidates"
    return best


def _threshold(point: OperatingPoint) -> float:
    # Below a lowest score of 0 there is none; from 0 on all count.
    return max(0.0, point.threshold)
