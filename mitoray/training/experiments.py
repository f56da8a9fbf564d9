"""Many trainings as Ray Tune trials over Ray Train: bounded by resources, resumed trial by trial, recorded."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from mitoray.errors import MitorayError
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.models import Training as Origin
from mitoray.models import save_bundle
from mitoray.training.fit import BEST_BY, LIGHT_CPUS, Fitted, Placement, Training, fit
from mitoray.training.fit_judge import Data, as_bundle, detect_slides
from mitoray.training.slides import TrainingSlide

log = logging.getLogger(__name__)

RESULT_FILE: Final = "result.json"
BUNDLE_FOLDER: Final = "bundle"
_RUNS: Final = "runs"
_TUNE: Final = "tune"

Scored = Callable[[MatchedCohort, MatchedCohort], list[dict[str, Any]]]
"""Rows of results from the validation and the test cohort of a trained model."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """One training and what it is judged on.

    name: a file name, unique. validate: slides that the threshold is chosen on; test: slides that give the results.
    scored: makes rows of results; parameters: what sets this experiment apart, recorded.
    """

    name: str
    training: Training
    labels: pa.Table
    validate: tuple[TrainingSlide, ...]
    test: tuple[TrainingSlide, ...]
    scored: Scored
    origin: Origin
    data: Data
    parameters: Mapping[str, Any] = field(default_factory=dict)


Recorder = Callable[[str, Mapping[str, Any], Sequence[Mapping[str, float]], Sequence[Mapping[str, Any]]], None]
"""Records a finished experiment: its name, parameters, the metrics of each epoch, and its rows of results."""


def run_experiments(
    experiments: Sequence[Experiment],
    folder: Path,
    placement: Placement,
    *,
    at_once: int = 1,
    max_failures: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    record: Recorder | None = None,
    done: Callable[[str], object] = lambda _: None,
) -> dict[str, str]:
    """Run those that have no results yet; returns why others failed, by name.

    folder: on every node. Each experiment writes `folder/name/result.json` and `folder/name/bundle/` when it is done;
    its checkpoints lie in `folder/runs/name`, where one that was interrupted goes on. done: called with each name.
    """
    open_ones = [e for e in experiments if not (folder / e.name / RESULT_FILE).exists()]
    if not open_ones:
        return {}
    shared = [ray.put(experiment) for experiment in open_ones]

    def trial(config: Mapping[str, Any]) -> None:
        experiment: Experiment = ray.get(shared[config["number"]])
        try:
            fitted = _run(experiment, folder, placement, max_failures, storage_options, [TuneReportCallback()])  # type: ignore[no-untyped-call]
            rows = results(folder, [experiment.name])
            if record:
                record(experiment.name, experiment.parameters, fitted.history, rows)
        except MitorayError as error:
            tune.report({BEST_BY: -1.0, "failure": f"{type(error).__name__}: {error}"})
            return
        tune.report({BEST_BY: fitted.metrics[BEST_BY], "failure": ""})

    attempt = len(list((folder / _TUNE).glob("*"))) if (folder / _TUNE).exists() else 0
    grid = tune.Tuner(
        # The trial itself only waits; its workers ask for what they need.
        tune.with_resources(trial, {"CPU": LIGHT_CPUS}),
        param_space={"number": tune.grid_search(list(range(len(open_ones))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once, metric=BEST_BY, mode="max"),
        run_config=tune.RunConfig(
            name=f"attempt-{attempt:03d}",
            storage_path=str((folder / _TUNE).absolute()),
            verbose=0,
            callbacks=[_Done([e.name for e in open_ones], done)],
        ),
    ).fit()
    failed = {}
    for result in (grid[i] for i in range(len(grid))):
        name = open_ones[(result.config or {})["number"]].name
        failure = (result.metrics or {}).get("failure")
        if result.error:  # a whole remote traceback, of which the last line says what went wrong
            failure = str(result.error).strip().splitlines()[-1]
        if failure:
            failed[name] = failure
    return failed


def results(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the experiments that are done."""
    files = (folder / name / RESULT_FILE for name in names)
    return [row for file in files if file.exists() for row in json.loads(file.read_text())["rows"]]


def _run(
    experiment: Experiment,
    folder: Path,
    placement: Placement,
    max_failures: int,
    storage_options: Mapping[str, Any] | None,
    callbacks: Sequence[Any],
) -> Fitted:
    """Train, judge on whole slides, and write the bundle and, last, the results."""
    fitted = fit(
        experiment.training,
        placement,
        name=experiment.name,
        storage=str((folder / _RUNS).absolute()),
        max_failures=max_failures,
        callbacks=callbacks,
    )
    network = experiment.training.network
    judged = detect_slides(
        network, fitted.weights, (*experiment.validate, *experiment.test), placement, storage_options
    )
    for slide_id, error in judged.failed.items():
        log.warning("%s: slide %s is not judged: %s", experiment.name, slide_id, error)
    parts = [
        replace(judged, slides=tuple(s for s in judged.slides if s in part)).matched(experiment.labels)
        for part in (experiment.validate, experiment.test)
    ]
    own = folder / experiment.name
    bundle = as_bundle(network, fitted, parts[0], name=experiment.name, origin=experiment.origin, data=experiment.data)
    save_bundle(bundle, fitted.weights, own / BUNDLE_FOLDER)
    document = {
        "parameters": dict(experiment.parameters),
        "rows": experiment.scored(*parts),
        "failed_slides": dict(judged.failed),
        "history": list(fitted.history),
    }
    aside = own / f"{RESULT_FILE}.part"
    aside.write_text(json.dumps(document, indent=2, ensure_ascii=False))
    aside.rename(own / RESULT_FILE)
    return fitted


class _Done(tune.Callback):
    def __init__(self, names: Sequence[str], done: Callable[[str], object]) -> None:
        self._names, self._done = names, done

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._done(self._names[trial.config["number"]])

    on_trial_error = on_trial_complete
