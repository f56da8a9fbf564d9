"""Search the settings of a training: Optuna proposes, ASHA stops what is hopeless, MLflow keeps every trial.

    python jobs/sweep.py --manifest slides.csv --labels labels.parquet --output sweep --trials 24
    python jobs/sweep.py --config sweep.yaml --at-once 8 --mlflow http://mlflow:5000

sweep.yaml names what is searched, for example

    space:
      fitting.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
      sampling.hard_share: {low: 0.0, high: 0.3}
      settings.width: {choices: [1.0, 1.5]}

The same command again goes on to the number of trials. Exit status: 0 done, 2 bad arguments or input (nothing was
started), 3 some trials failed, 1 anything else.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.ray_address import ray_address
from mitoray.report.sweep_figure import sweep_figure
from mitoray.report.text import as_text
from mitoray.tracking import RunRef, TrackedRun
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import parted
from mitoray.training.experiments_sweep import Search, distributions, sweep
from mitoray.training.feed import Sampling
from mitoray.training.fit import Scaling, Training
from mitoray.training.fit_session import ray_here
from mitoray.training.fitting import Fitting
from mitoray.training.variation import varied
from mitoray.training_jobs import Material, Model, assembled, claimed, parts_of, prepare

SPACE: dict[str, dict[str, Any]] = {
    "fitting.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "fitting.weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "augmentation.stain_probability": {"low": 0.0, "high": 1.0},
}


@dataclass(frozen=True)
class Sweep:
    """What to search, and where the results go.

    Args:
        output: folder, on every node, for trials.json, sweep.png and best.json. Belongs to one configuration.
        space: settings to search, by part and name; by default learning rate, weight decay and stain augmentation.
        validation_share: share of each domain's cases that judges the trials, 0 to 1.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    output: Path
    space: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(SPACE))
    validation_share: float = 0.2
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise BadOption(f"validation_share must lie between 0 and 1, not {self.validation_share}.")
        distributions(self.space)


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("sweep", __doc__.partition("\n")[0])
    groups = (Sweep, Search, Material, Model, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    job, search, material, model, sampling, fitting, augmentation, scaling = parser.parsed(argv, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    parts = {"fitting": fitting, "sampling": sampling, "augmentation": augmentation, "settings": model.settings or {}}
    for name, given in job.space.items():
        one = varied(parts, {name: given.get("low", given.get("choices", [None])[0])})
        replace(model, settings=one["settings"])
    prepared = prepare(material)
    train, validate = parted(prepared.corpus, "cases", prepared.splits, job.validation_share, fitting.seed)

    def make(values: Mapping[str, Any]) -> Training:
        other = varied(parts, values)
        return assembled(
            material,
            prepared,
            train,
            validate,
            replace(model, settings=other["settings"]),
            other["sampling"],
            other["fitting"],
            other["augmentation"],
            scaling,
        )

    settings = {part.__class__.__name__.lower(): asdict(part) for part in (model, sampling, fitting, augmentation)}
    claimed(
        str(job.output),
        None,
        {**settings, "space": job.space, "parts": parts_of(train=train, validate=validate), "data": prepared.digests},
    )
    with ExitStack() as ends:
        tracked = None
        if job.mlflow:
            tracked = ends.enter_context(TrackedRun.start("sweep", tracking_uri=job.mlflow, data=prepared.digests))
            tracked.log_parameters({**settings, "space": job.space, "search": asdict(search)})
        placement = ends.enter_context(ray_here(scaling, ray_address(), search.at_once))
        bar = ends.enter_context(tqdm(total=search.trials, desc="trials", unit="trial", disable=None))
        rows = sweep(
            make,
            distributions(job.space),
            search,
            fitting.epochs,
            job.output,
            placement,
            done=partial(seen, bar, tracked.ref if tracked else None),
        )
        return told(job, rows, tracked, prepared.data)


def seen(bar: Any, parent: RunRef | None, row: Mapping[str, Any]) -> None:
    """Show a trial that ended, and record it."""
    bar.update()
    if parent is None:
        return
    with TrackedRun.start(row["trial"], parent=parent, tags={"stopped_early": str(row["stopped"])}) as run:
        run.log_parameters(row["values"])
        for metrics in row["history"]:
            run.log_metrics(metrics, step=int(metrics["epoch"]))
        run.log_metrics({"best_val_ap": row["best"], "epochs": row["epochs"], "duration_s": row["duration_s"]})


def told(job: Sweep, rows: Sequence[Mapping[str, Any]], tracked: TrackedRun | None, data: str) -> int:
    """Show the trials, best first, and write the figure and the best settings."""
    shown = [
        {
            "trial": row["trial"],
            **row["values"],
            "validation AP": row["best"],
            "epochs": row["epochs"],
            "stopped": "early" if row["stopped"] else "",
        }
        for row in rows
    ]
    print(as_text(shown, digits=5))
    print(f"Validation patches: {data}. Tables and figure: {job.output}")
    figure = sweep_figure(rows)
    figure.savefig(job.output / "sweep.png", dpi=150)
    if rows[0]["best"] is not None:
        (job.output / "best.json").write_text(json.dumps(rows[0]["values"], indent=2) + "\n")
    if tracked:
        tracked.log_figure(figure, "sweep.png")
        tracked.log_metrics({"val_ap": rows[0]["best"]})
        tracked.log_json(list(rows), "trials.json")
        print(f"Recorded as {tracked.ref}.")
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"failed: {row['trial']}: {row['error']}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())
