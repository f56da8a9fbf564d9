"""How much annotated area, or how many slides, a detector needs: F1 against the amount (Bertram et al. 2019, Fig. 5).

    python jobs/training_area.py --manifest slides.csv --labels labels.parquet --hpf "[5, 10, 50]" --output area
    python jobs/training_area.py --manifest slides.csv --labels labels.parquet --n-slides "[3, 6, 12]" --output area

--hpf limits the area of each training slide to that many high-power fields (0.237 mm² each) where it is most active;
--n-slides takes that many whole slides, drawn anew for each repeat. The same command again runs only what is not done.
Exit status: 0 done, 2 bad arguments or input (nothing was started), 3 some models failed, 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.evaluation.ablation import area_curve
from mitoray.ray_address import ray_address
from mitoray.report.matrix_figure import area_figure
from mitoray.report.text import as_text
from mitoray.tracking import TrackedRun
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import parted
from mitoray.training.experiments import Experiment, results, run_experiments
from mitoray.training.feed import Sampling
from mitoray.training.fit import Scaling
from mitoray.training.fit_session import ray_here
from mitoray.training.fitting import Fitting
from mitoray.training.slides import HPF_MM2, limited
from mitoray.training_jobs import (
    Material,
    Model,
    RecordedBelow,
    area_rows,
    assembled,
    claimed,
    parts_of,
    prepare,
    seeded,
)


@dataclass(frozen=True)
class Area:
    """Which amounts to try.

    Args:
        output: folder, on every node, for scores.csv, area.png and every model's bundle. Belongs to one configuration.
        hpf: high-power fields of 0.237 mm² that each training slide is limited to; or else n_slides.
        n_slides: numbers of training slides.
        repeats: models per amount, each with its own draw and seed.
        validation_share: share of each domain's cases, 0 to 1, on which the threshold is chosen. Test slides are those
            of the split "test".
        at_once: trainings at a time.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    output: Path
    hpf: list[float] | None = None
    n_slides: list[int] | None = None
    repeats: int = 3
    validation_share: float = 0.2
    at_once: int = 1
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if bool(self.hpf) == bool(self.n_slides):
            raise BadOption("Give either hpf or n_slides.")
        if min(self.hpf or self.n_slides or [0]) <= 0 or self.repeats < 1 or self.at_once < 1:
            raise BadOption("hpf and n_slides must be above 0, repeats and at_once at least 1.")
        if not 0 < self.validation_share < 1:
            raise BadOption(f"validation_share must lie between 0 and 1, not {self.validation_share}.")

    @property
    def amounts(self) -> list[dict[str, float]]:
        """One mapping per amount, by its measure."""
        if self.hpf:
            return [{"area_hpf": amount} for amount in self.hpf]
        return [{"n_slides": amount} for amount in self.n_slides or []]


def main(argv: Sequence[str] | None = None) -> int:
    bad_input = (BadLabels, BadManifest, BadModel, BadOption, OutputBelongsToAnotherRun)
    return run_job(lambda: run(argv), bad_input=bad_input)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("training_area", __doc__.partition("\n")[0])
    groups = (Area, Material, Model, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    job, material, model, sampling, fitting, augmentation, scaling = parser.parsed(argv, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    prepared = prepare(material)
    corpus = prepared.corpus
    train, validate = parted(corpus, "cases", prepared.splits, job.validation_share, fitting.seed)
    test = corpus.of(slide_id for slide_id, split in prepared.splits.items() if split == "test")
    if not test:
        raise BadLabels('No slide has the split "test". Fill the column split of the manifest.')
    experiments = []
    for amount in job.amounts:
        for repeat in range(job.repeats):
            rng = np.random.default_rng([fitting.seed, repeat])
            area_mm2 = amount["area_hpf"] * HPF_MM2 if "area_hpf" in amount else None
            n_slides = int(amount["n_slides"]) if "n_slides" in amount else None
            part = tuple(limited(train, corpus.labels, rng, area_mm2=area_mm2, n_slides=n_slides))
            training = assembled(material, prepared, part, validate, model, sampling, fitting, augmentation, scaling)
            which: dict[str, Any] = {**amount, "repeat": repeat}
            name = f"{'-'.join(f'{value:g}-{key}' for key, value in amount.items())}-repeat-{repeat}"
            experiments.append(
                Experiment(
                    name,
                    seeded(training, fitting.seed + repeat),
                    corpus.labels,
                    validate,
                    test,
                    partial(area_rows, **which, area_mm2=sum(slide.area_mm2 for slide in part)),
                    prepared.origin(material, (f"Trained on limited material: {name}.",)),
                    prepared.data,
                    which,
                )
            )
    parts = (model, sampling, fitting, augmentation)
    settings = {part.__class__.__name__.lower(): asdict(part) for part in parts}
    claimed(
        str(job.output),
        None,
        {**settings, "parts": parts_of(train=train, validate=validate, test=test), "data": prepared.digests},
    )
    with ExitStack() as ends:
        tracked = None
        if job.mlflow:
            note = job.output / "mlflow.json"
            tracked = ends.enter_context(
                TrackedRun.kept("training_area", note, tracking_uri=job.mlflow, data=prepared.digests)
            )
            tracked.log_parameters(settings)
        placement = ends.enter_context(ray_here(scaling, ray_address(), job.at_once))
        bar = ends.enter_context(tqdm(total=len(experiments), desc="models", unit="model", disable=None))
        failed = run_experiments(
            experiments,
            job.output,
            placement,
            at_once=job.at_once,
            max_failures=scaling.max_failures,
            storage_options=material.storage_options,
            record=RecordedBelow(tracked.ref, {"f1": "f1", "ap": "ap"}) if tracked else None,
            done=lambda _: bar.update(),
        )
        rows = results(job.output, [experiment.name for experiment in experiments])
        if rows:
            pyarrow.csv.write_csv(pa.Table.from_pylist(rows), job.output / "scores.csv")
            figure = area_figure(area_curve(rows), data=prepared.data)
            figure.savefig(job.output / "area.png", dpi=150)
            print(as_text(rows, f1=3))
            print(f"Test slides: {prepared.data}. Table and figure: {job.output}")
        if tracked:
            tracked.log_metrics({"failed_models": len(failed)})
            if rows:
                tracked.log_figure(figure, "area.png")
            print(f"Recorded as {tracked.ref}.")
    for name, error in {**corpus.failed, **failed}.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed or corpus.failed else DONE


if __name__ == "__main__":
    sys.exit(main())
