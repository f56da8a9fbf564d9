"""Bring detectors to another domain with its training part, and judge them on its test part (Aubreville et al. 2020).

    python jobs/adapt_domain.py to --runs '[seed-0, seed-1]' --manifest b.csv --labels b.parquet --output adapted
    python jobs/adapt_domain.py ms --runs '[seed-0, seed-1]' --manifest b.csv --labels b.parquet --output adapted
    python jobs/adapt_domain.py tl --runs '[seed-0, seed-1]' --manifest b.csv --labels b.parquet --output adapted

to: the threshold that is best on the training part. ms: and of each run's models (train_detector --keep-epochs) the one
that is best there. tl: transfer learning, training each run's model on. The models as they are, are always judged too.
All three write into one output, and show one table of what is there: source only, TO, TO+MS, TL. The same command again
computes only what is not there yet. Exit status: 0 done, 2 bad arguments or input (nothing was started), 3 some slides
could not be read or some trainings failed (each is named), 1 anything else.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.evaluation.adaptation import SelectBy, adaptation_table, as_csv, as_text, from_csv, table_rows
from mitoray.models import load_bundle
from mitoray.ray_address import ray_address
from mitoray.storage import Folder
from mitoray.tracking import TrackedRun
from mitoray.training.adaptation import (
    FineTuning,
    Judge,
    Target,
    fine_tunings,
    network_of,
    selected_row,
    target_of,
    untuned_rows,
)
from mitoray.training.augment import Augmentation
from mitoray.training.experiments import RESULT_FILE, Experiment, results, run_experiments
from mitoray.training.feed import Sampling
from mitoray.training.fit import Placement, Scaling
from mitoray.training.fit_session import ray_here
from mitoray.training.fitting import Fitting
from mitoray.training.source_runs import Run, digests_of, found_runs
from mitoray.training_jobs import Material, Prepared, RecordedBelow, claimed, parts_of, prepare

Command = Literal["to", "ms", "tl"]
LABEL = {"ms": "TO+MS", "tl": "TL"}
ROWS_FILE, TABLE_FILE, RECORDED_FILE = "adaptation.csv", "table.json", "recorded.json"


@dataclass(frozen=True)
class Adapt:
    """What is adapted, and how. The options of sampling, fitting and augmentation are those of tl.

    Args:
        command: to (threshold), ms (model and threshold) or tl (transfer learning).
        runs: folders, each of one trained model: a bundle, or a folder of bundles of which the one called bundle is the
            source's choice, as train_detector writes with --keep-epochs.
        output: folder, on every node, for adaptation.csv, table.json and trained bundles. Belongs to one configuration.
        domain: of the manifest, to adapt to; none takes all its slides.
        test_share: share of each domain's cases held out as test where the manifest has no split, 0 to 1.
        select_by: what ms selects a model by, on the training part: f1 (at its best threshold) or ap.
        validation_share: share of the training cases on which tl validates, where none has the split "validation".
        augment: whether tl changes patches at random, as the augmentation's own options say.
        at_once: trainings at a time.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    command: Command
    runs: list[str]
    output: Path
    domain: str | None = None
    test_share: float = 0.2
    select_by: SelectBy = "f1"
    validation_share: float = 0.2
    augment: bool = True
    at_once: int = 1
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        for name in ("test_share", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise BadOption(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")
        if self.at_once < 1:
            raise BadOption(f"at_once must be at least 1, not {self.at_once}.")


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("adapt_domain", __doc__.partition("\n")[0])
    parser.add_argument("command", choices=["to", "ms", "tl"], help="to, ms or tl: what to adapt")
    parser.add_class_arguments(Adapt, skip={"command"})
    groups = (Material, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    parser.set_defaults({"epochs": 20, "learning_rate": 1e-4, "body_learning_rate": 1e-5})  # gentle: the model is good
    job, material, sampling, fitting, augmentation, scaling = parser.parsed(argv, Adapt, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    runs = checked_runs(job, material)
    prepared = prepare(material)
    target = target_of(prepared.corpus, prepared.splits, domain=job.domain, test_share=job.test_share)
    how = FineTuning(sampling, fitting, augmentation if job.augment else None, scaling, job.validation_share)
    made: list[Experiment] = []
    if job.command == "tl":
        origin = prepared.origin(material, ("For research, not for diagnosis.",))
        made = fine_tunings(runs, target, how, origin, prepared.data, material.storage_options)
    folder = taken(job, material, prepared, target, runs, how)
    print(
        f"{len(runs)} runs, to {target.domain!r}: adapted on {len(target.train)} slides, tested on {len(target.test)}."
    )
    failed = dict(prepared.corpus.failed)
    kept = Kept(folder)
    with ray_here(scaling, ray_address(), job.at_once) as placement:
        failed |= judged(job, material, target, runs, kept, placement)
        if made:
            failed |= trained_on(job, material, made, scaling, kept, placement)
    print(f"\n{as_text(adaptation_table(kept.rows))}")
    print(f"F1 pooled and AP on the test part ({prepared.data}). Rows: {folder.shown}/{ROWS_FILE}")
    if job.mlflow:
        print(recorded(job, prepared, kept))
    for name, error in failed.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


def checked_runs(job: Adapt, material: Material) -> list[Run]:
    """The runs, all of detectors, and for ms of several models each."""
    runs = found_runs(job.runs, material.storage_options)
    for run_of in runs:
        network_of(load_bundle(run_of.source, material.storage_options))
    if job.command == "ms" and (alone := [run.name for run in runs if len(run.candidates) < 2]):
        raise BadOption(
            f"Run {alone[0]!r} holds one model, of which none can be selected. Train it with --keep-epochs, or give a "
            "folder of several bundles."
        )
    return runs


def taken(
    job: Adapt, material: Material, prepared: Prepared, target: Target, runs: Sequence[Run], how: FineTuning
) -> Folder:
    """The output, taken for this target and these runs, and within it for the settings of ms or tl."""
    options = material.storage_options
    sources = {run.name: digests_of([run.source], options) for run in runs}
    adapt = {"domain": target.domain, "runs": sources}
    parts = parts_of(train=target.train, test=target.test)
    folder = claimed(str(job.output), None, {"data": prepared.digests, "parts": parts, "adapt": adapt})
    if job.command == "ms":
        candidates = {run.name: digests_of(run.candidates, options) for run in runs}
        claimed(str(job.output / "ms"), None, {"adapt": {"select_by": job.select_by, "candidates": candidates}})
    if job.command == "tl":
        train, validate = how.parts(target)
        options_of = (how.sampling, how.fitting, how.augmentation)
        settings: dict[str, Any] = {part.__class__.__name__.lower(): asdict(part) for part in options_of if part}
        settings["adapt"] = {"augment": job.augment}
        claimed(str(job.output / "tl"), None, {**settings, "parts": parts_of(train=train, validate=validate)})
    return folder


class Kept:
    """The rows of the output so far, written after each new one."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        try:
            self.rows = from_csv(folder.read_bytes(ROWS_FILE))
        except FileNotFoundError:
            self.rows = []

    def has(self, run: str, method: str) -> bool:
        return any(row["run"] == run and row["method"] == method for row in self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        if self.has(row["run"], row["method"]):
            return
        self.rows.append(dict(row))
        self.folder.write_bytes(ROWS_FILE, as_csv(self.rows))
        self.folder.write_json(TABLE_FILE, table_rows(adaptation_table(self.rows)))


def judged(
    job: Adapt, material: Material, target: Target, runs: Sequence[Run], kept: Kept, placement: Placement
) -> dict[str, str]:
    """Source only and TO of every run, and where asked MS; gives the slides that could not be read."""
    judge = Judge(kept.folder, target, placement, material.storage_options)
    for run_of in tqdm(runs, desc="judging", unit="run", disable=None):
        if not (kept.has(run_of.name, "source only") and kept.has(run_of.name, "TO")):
            for row in untuned_rows(run_of, judge):
                kept.add(row)
        if job.command == "ms" and not kept.has(run_of.name, LABEL["ms"]):
            kept.add(selected_row(run_of, judge, job.select_by))
    return judge.failed


def trained_on(
    job: Adapt, material: Material, made: Sequence[Experiment], scaling: Scaling, kept: Kept, placement: Placement
) -> dict[str, str]:
    """TL of every run; gives why trainings failed."""
    with tqdm(total=len(made), desc="training on", unit="run", disable=None) as bar:

        def done(name: str) -> None:
            for row in results(job.output / "tl", [name]):
                kept.add(row)
            bar.update()

        failed = run_experiments(
            made,
            job.output / "tl",
            placement,
            at_once=job.at_once,
            max_failures=scaling.max_failures,
            storage_options=material.storage_options,
            done=done,
        )
        for row in results(job.output / "tl", [experiment.name for experiment in made]):
            kept.add(row)
    return failed


def recorded(job: Adapt, prepared: Prepared, kept: Kept) -> str:
    """Record the table, and a run below it for each row that this tracking server does not have yet."""
    note = job.output / RECORDED_FILE
    marks = json.loads(note.read_text()) if note.exists() else {}
    with ExitStack() as ends:
        tracked = ends.enter_context(
            TrackedRun.kept("adapt_domain", job.output / "mlflow.json", tracking_uri=job.mlflow, data=prepared.digests)
        )
        done = marks.setdefault(tracked.ref.run_id, [])
        record = RecordedBelow(tracked.ref, {"f1": "f1_pooled", "ap": "ap", "f1_chosen": "f1_chosen"})
        for row in kept.rows:
            name = f"{row['run']} {row['method']}"
            if name in done:
                continue
            file = job.output / "tl" / row["run"] / RESULT_FILE
            history = json.loads(file.read_text())["history"] if row["method"] == LABEL["tl"] else []
            told = {key: row[key] for key in ("run", "method", "model", "domain", "threshold")}
            record(name, told, history, [row])
            done.append(name)
            note.write_text(json.dumps(marks))
        table = adaptation_table(kept.rows)
        tracked.log_metrics({f"f1_mean/{line.method}": line.f1_mean for line in table})
        tracked.log_metrics({f"f1_sd/{line.method}": line.f1_sd for line in table})
        tracked.log_text(as_text(table), "adaptation.txt")
        tracked.log_text(as_csv(kept.rows).decode(), ROWS_FILE)
        return f"Recorded as {tracked.ref}."


if __name__ == "__main__":
    sys.exit(main())
