"""Search of an ensemble's weights: Optuna proposes, each Ray Tune trial refines its proposal on the cached scores."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import optuna
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from mitoray.errors import BadOption, TrainingFailed
from mitoray.evaluation.candidate_cache import CandidateCache
from mitoray.evaluation.ensembles import Objective, Weighting, refined, starts

_F1: Final = "f1"
_WEIGHT: Final = "weight_{}"


@dataclass(frozen=True)
class WeightSearch:
    """How to search the weights.

    Args:
        use_detector: whether the detector's own score gets a weight beside the classifiers' scores.
        trials: proposals, each refined by changing one weight at a time; uniform weights and each score alone come
            first, whatever the number.
        evaluations: weightings that a trial counts at most, milliseconds each.
        at_once: trials at a time; the same seed gives the same weights for 1 only, since Optuna learns from what ended.
        seed: of the proposals, and of the cases that `test_share` draws.
    """

    use_detector: bool = False
    trials: int = 16
    evaluations: int = 150
    at_once: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.trials, self.evaluations, self.at_once) < 1:
            raise BadOption("trials, evaluations and at_once must be at least 1.")


@dataclass(frozen=True)
class Found:
    """The best weighting, the best of the starts (uniform first, then each alone), and what the search took."""

    best: Weighting
    starts: tuple[Weighting, ...]
    n_evaluated: int
    duration_s: float


def search_weights(cache: CandidateCache, search: WeightSearch) -> Found:
    """The weighting with the highest pooled F1 at its own exact threshold; of equals the one nearest to uniform.

    Needs a running Ray, unless there is one weight only, which is not searched. Raises as `Objective`, and
    TrainingFailed where a trial ends in an error.
    """
    begin = time.perf_counter()
    objective = Objective(cache, search.use_detector)
    first = tuple(objective(weights) for weights in starts(objective.n_weights))
    if len(first) == 1:
        return Found(first[0], first, 1, time.perf_counter() - begin)
    results = _trials(cache, search, objective.n_weights)
    found = [objective(tuple(result["weights"])) for result in results]
    n_evaluated = sum(int(result["n_evaluated"]) for result in results)
    best = max([*first, *found], key=lambda weighting: weighting.rank)
    return Found(best, first, n_evaluated, time.perf_counter() - begin)


class _Refining(tune.Trainable):
    """One trial: a proposal, refined. The process and its candidates stay for the next one."""

    def setup(self, config: dict[str, Any], cache: Any = None, search: Any = None) -> None:
        self._cache: CandidateCache = cache
        self._search: WeightSearch = search
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._weights = [new_config[_WEIGHT.format(place)] for place in range(len(new_config))]
        return True

    def step(self) -> dict[str, Any]:
        objective = Objective(self._cache, self._search.use_detector)
        best = refined(objective, self._weights, self._search.evaluations)
        return {
            _F1: best.point.f1,
            "weights": best.weights,
            "n_evaluated": objective.n_evaluated,
            tune.result.DONE: True,
        }


def _trials(cache: CandidateCache, search: WeightSearch, n_weights: int) -> list[Mapping[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [_WEIGHT.format(place) for place in range(n_weights)]
    seeds = [dict(zip(names, weights, strict=True)) for weights in starts(n_weights)]
    searcher = OptunaSearch(
        {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in names},
        metric=_F1,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=2 * n_weights),
        points_to_evaluate=seeds,
    )
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(_Refining, cache=cache, search=search), {"CPU": 1}),
            tune_config=tune.TuneConfig(
                metric=_F1,
                mode="max",
                num_samples=max(search.trials, len(seeds)),
                search_alg=searcher,
                max_concurrent_trials=search.at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="weights",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(fail_fast=True),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    if results.errors:
        raise TrainingFailed(f"A trial of the search failed: {str(results.errors[0]).strip().splitlines()[-1]}")
    return [results[number].metrics or {} for number in range(len(results))]
