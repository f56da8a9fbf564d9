"""Search settings with Optuna, and stop hopeless trials early with ASHA; Ray Tune trials over Ray Train."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.result import AUTO_RESULT_KEYS, DONE
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from mitoray.errors import BadOption
from mitoray.training.fit import BEST_BY, LIGHT_CPUS, Placement, Training, fit

TRIALS_FILE: Final = "trials.json"
_RUNS: Final = "runs"
_OF_TUNE: Final = frozenset({*AUTO_RESULT_KEYS, DONE})
"""What Ray Tune adds to the metrics of an epoch."""


@dataclass(frozen=True)
class Search:
    """How to search.

    Args:
        trials: trainings in all, those of earlier attempts included.
        grace_epochs: epochs that every trial gets before it may be stopped.
        reduction: of the trials that reach a rung, one in so many goes on to the next (ASHA, Li et al. 2020).
        at_once: trainings at a time.
        search_seed: of the search.
    """

    trials: int = 24
    grace_epochs: int = 2
    reduction: int = 3
    at_once: int = 1
    search_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.trials, self.grace_epochs, self.at_once) < 1 or self.reduction < 2:
            raise BadOption("trials, grace_epochs and at_once must be at least 1, reduction at least 2.")


def distributions(space: Mapping[str, Mapping[str, Any]]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distributions of a space as a configuration file writes it.

    By the setting's name {low, high} with `log: true` for an even search in octaves, or {choices: [...]}; whole numbers
    are searched as such. Raises BadOption.
    """
    made: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, given in space.items():
        try:
            match dict(given):
                case {"choices": choices}:
                    made[name] = optuna.distributions.CategoricalDistribution(choices)
                case {"low": int(low), "high": int(high), **rest}:
                    made[name] = optuna.distributions.IntDistribution(low, high, **rest)
                case {"low": low, "high": high, **rest}:
                    made[name] = optuna.distributions.FloatDistribution(float(low), float(high), **rest)
                case _:
                    raise ValueError("it has neither low and high nor choices")
        except (TypeError, ValueError) as error:
            raise BadOption(f"The space of {name} cannot be searched: {error}.") from error
    if not made:
        raise BadOption("There is nothing to search. Give a space.")
    return made


def sweep(
    make: Callable[[Mapping[str, Any]], Training],
    space: Mapping[str, optuna.distributions.BaseDistribution],
    search: Search,
    epochs: int,
    folder: Path,
    placement: Placement,
    *,
    done: Callable[[Mapping[str, Any]], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Rows of all trials, best first; kept after each.

    They have `trial, values, best, epochs, stopped, duration_s, error`, and `history`, the metrics of each epoch.
    make: gives the training of a trial's values. done: called here with each new row.
    """
    kept = _Kept(folder / TRIALS_FILE, epochs, done)
    if len(kept.rows) >= search.trials:
        return kept.ranked()
    judged = [row for row in kept.rows if row["best"] is not None]
    first = len(kept.rows)

    def trial(config: Mapping[str, Any]) -> None:
        fit(
            make(config),
            placement,
            name=f"trial-{tune.get_context().get_trial_id()}",
            storage=str((folder / _RUNS).absolute()),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
        )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searcher = OptunaSearch(
        dict(space),
        metric=BEST_BY,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=search.search_seed + first, n_startup_trials=6),
        points_to_evaluate=[row["values"] for row in judged] or None,
        evaluated_rewards=[row["best"] for row in judged] or None,
    )
    scheduler = ASHAScheduler(
        time_attr="epoch",
        max_t=epochs + 1,  # never reached: trials that come that far end by themselves
        grace_period=min(search.grace_epochs, epochs),
        reduction_factor=search.reduction,
    )
    tune.Tuner(
        tune.with_resources(trial, {"CPU": LIGHT_CPUS}),
        tune_config=tune.TuneConfig(
            metric=BEST_BY,
            mode="max",
            num_samples=search.trials - first,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=search.at_once,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{first:04d}", storage_path=str((folder / "tune").absolute()), verbose=0, callbacks=[kept]
        ),
    ).fit()
    return kept.ranked()


class _Kept(tune.Callback):
    """Writes a row for each trial as it ends."""

    def __init__(self, file: Path, epochs: int, done: Callable[[Mapping[str, Any]], object]) -> None:
        self._file, self._epochs, self._done = file, epochs, done
        self.rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
        self._histories: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def ranked(self) -> list[dict[str, Any]]:
        """Best first; trials without a result last."""
        return sorted(self.rows, key=lambda row: -1.0 if row["best"] is None else row["best"], reverse=True)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: Mapping[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """An epoch of a trial ended."""
        told = {
            name: value for name, value in result.items() if name not in _OF_TUNE and isinstance(value, int | float)
        }
        self._histories[trial.trial_id].append(told)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """One more row."""
        self._keep(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """One more row, with what went wrong."""
        told = str(trial.get_error() or "it ended without a word").strip()
        self._keep(trial, told.splitlines()[-1])

    def _keep(self, trial: Any, error: str | None) -> None:
        last = trial.last_result or {}
        best = trial.metric_analysis.get(BEST_BY, {}).get("max")
        epochs = int(last.get("epoch", 0))
        row = {
            "trial": f"trial-{trial.trial_id}",
            "values": dict(trial.config),
            "best": best,
            "epochs": epochs,
            "stopped": error is None and best is not None and epochs < self._epochs,
            "duration_s": round(float(last.get("time_total_s", 0.0)), 1),
            "error": error or (None if best is not None else "no epoch ended"),
            "history": self._histories.pop(trial.trial_id, []),
        }
        self.rows.append(row)
        aside = self._file.with_suffix(".part")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(self.rows, indent=2))
        aside.replace(self._file)
        self._done(row)
