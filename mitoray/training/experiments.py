"""Many trainings as Ray Tune trials over Ray Train: bounded by resources, resumed trial by trial, recorded."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

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
RECORDED_FILE: Final = "recorded.json"
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


class Recorder(Protocol):
    """Records finished experiments, here in the process that runs them."""

    @property
    def key(self) -> str:
        """Where to: what is recorded under one key is not recorded there again."""
        ...

    def __call__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        history: Sequence[Mapping[str, float]],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """A finished experiment: its name, parameters, the metrics of each epoch, and its rows of results."""
        ...


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
    record: called once for each that is done, those of earlier attempts included; what it could not record, it is given
    again at the end, and then its error is raised.
    """
    open_ones = [e for e in experiments if not (folder / e.name / RESULT_FILE).exists()]
    finished = [e.name for e in experiments if e not in open_ones]
    for name in finished:
        done(name)
    if record:
        _record(finished, folder, record)
    if not open_ones:
        return {}
    shared = [ray.put(experiment) for experiment in open_ones]

    def trial(config: Mapping[str, Any]) -> None:
        experiment: Experiment = ray.get(shared[config["number"]])
        try:
            fitted = _run(experiment, folder, placement, max_failures, storage_options, [TuneReportCallback()])  # type: ignore[no-untyped-call]
        except MitorayError as error:
            tune.report({BEST_BY: -1.0, "failure": f"{type(error).__name__}: {error}"})
            return
        tune.report({BEST_BY: fitted.metrics[BEST_BY], "failure": ""})

    def ended(name: str) -> None:
        done(name)
        if record:
            try:
                _record([name], folder, record)
            except MitorayError as error:  # the training is not lost for that, and there is another try at the end
                log.warning("%s is not recorded yet: %s", name, error)

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
            callbacks=[_Done([e.name for e in open_ones], ended)],
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
    if record:
        _record([e.name for e in open_ones], folder, record)
    return failed


def results(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the experiments that are done."""
    files = (folder / name / RESULT_FILE for name in names)
    return [row for file in files if file.exists() for row in json.loads(file.read_text())["rows"]]


def _record(names: Sequence[str], folder: Path, record: Recorder) -> None:
    """Record those of the experiments that are done and not recorded yet."""
    for name in names:
        result, mark = folder / name / RESULT_FILE, folder / name / RECORDED_FILE
        recorded = json.loads(mark.read_text()) if mark.exists() else []
        if result.exists() and record.key not in recorded:
            document = json.loads(result.read_text())
            record(name, document["parameters"], document["history"], document["rows"])
            mark.write_text(json.dumps([*recorded, record.key]))


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
