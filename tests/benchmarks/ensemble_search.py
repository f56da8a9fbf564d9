"""Seconds and gain of an ensemble's search over cached candidates: `python tests/benchmarks/ensemble_search.py`.

Simulated: no image and no network. Each of the slides has figures and look-alikes; three members of different quality
see them with errors that are half their own and half shared. As many slides again are judged and not searched.
"""

import argparse
import os
import time

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import numpy as np
import ray

from mitoray.evaluation.candidate_cache import CandidateCache, SlideCandidates
from mitoray.evaluation.cohort import EvaluatedSlide
from mitoray.evaluation.ensembles import ALL, Objective, Thresholds, combination_of, judged, starts
from mitoray.report.text import as_text
from mitoray.training.experiments_weights import WeightSearch, search_weights

SIDE_UM = 5_000.0
QUALITY = (1.0, 1.2, 1.4)
"""Log-odds between a figure and a look-alike, in units of twice the members' error."""


def slide(number: int, n_candidates: int, rng: np.random.Generator) -> SlideCandidates:
    n_figures = n_candidates // 5
    figures = rng.random((n_figures, 2)) * SIDE_UM
    found = figures[rng.random(n_figures) < 0.95]
    is_true = np.arange(n_candidates) < len(found)
    points = np.concatenate(
        [found + rng.normal(0, 1.5, found.shape), rng.random((n_candidates - len(found), 2)) * SIDE_UM]
    )
    shared = rng.normal(0, 1, n_candidates)
    own = rng.normal(0, 1, (n_candidates, len(QUALITY)))
    log_odds = (2 * is_true[:, None] - 1) * np.array(QUALITY) - 1 + (shared[:, None] + own) / np.sqrt(2)
    detector = 1 / (1 + np.exp(-(is_true + rng.normal(0, 1, n_candidates))))
    where = EvaluatedSlide(f"slide-{number}", 0.25, f"domain {number % 3}")
    return SlideCandidates(where, points, detector, 1 / (1 + np.exp(-log_odds)), figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=12_000)
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--use-detector", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    slides = [slide(number, args.candidates // args.slides, rng) for number in range(2 * args.slides)]
    searched, test = CandidateCache(slides[: args.slides]), CandidateCache(slides[args.slides :])
    print(f"{len(searched)} candidates of {searched.n_members} members searched, {len(test)} judged; simulated")

    objective = Objective(searched, args.use_detector)
    begin = time.perf_counter()
    for weights in rng.dirichlet(np.ones(objective.n_weights), 50):
        objective(weights)
    print(f"{(time.perf_counter() - begin) / 50 * 1000:.1f} ms for one weighting, matching and threshold included")

    begin = time.perf_counter()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(f"{time.perf_counter() - begin:.1f} s to start Ray")
    search = WeightSearch(args.use_detector, args.trials, at_once=args.at_once, seed=args.seed)
    found = search_weights(searched, search)
    print(f"{found.duration_s:.1f} s to search {args.trials} trials, {found.n_evaluated} weightings")
    rows = []
    names = ["uniform", *(f"score {n + 1} alone" for n in range(objective.n_weights)), "searched"]
    for name, weights in zip(names, [*starts(objective.n_weights), found.best.weights], strict=True):
        combination, point = combination_of(weights, args.use_detector), objective(weights).point
        honest = judged(test, test.scores(combination), Thresholds(point.threshold))[ALL].f1
        shown = " ".join(f"{w:.3f}" for w in weights)
        rows.append({"weights": name, "are": shown, "F1 searched part": point.f1, "F1 test part": honest})
    print(as_text(rows, digits=4))


if __name__ == "__main__":
    main()
