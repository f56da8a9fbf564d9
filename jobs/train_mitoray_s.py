"""Train mitoray-s, the detector that ships with mitoray, judge it, and write its bundle.

    python jobs/train_mitoray_s.py --data-dir data --output bundle

The same command again goes on where a training stopped. Exit status: 0 trained, 2 bad arguments or input, 1 anything
else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadOption, OutputBelongsToAnotherRun
from mitoray.models import save_bundle
from mitoray.ray_address import ray_address
from mitoray.training.fit import Network, Scaling, Training, fit
from mitoray.training.fit_session import Watched, ray_here
from mitoray.training.material import read_evaluation, read_real
from mitoray.training.mitoray_s import (
    NORMALISATION,
    TEST_SEED,
    MaterialFeed,
    Recipe,
    choose_threshold,
    shipped_bundle,
)
from mitoray.training.quality import metrics
from mitoray.training_jobs import claimed


@dataclass(frozen=True)
class Train:
    """What to train from, and for how long.

    Args:
        data_dir: folder with crops/atnorm-br.parquet, crops/atnorm-md.parquet, two images negative_tissue/*.jpg, and,
            for evaluation only, crops/amibr-midog21.parquet and slides/CMU-1-Small-Region.svs.
        output: folder for weights.safetensors and bundle.json; checkpoints go beside it.
        model_mpp: µm/px of the network's input, 0.25 or 0.5.
        width: multiplies the network's channels.
        stride: px of the input per cell of the heat-map, 2 or 4.
        epochs: passes, each followed by a look at the validation patches.
        steps: batches per epoch.
        seed: of initial weights, views, augmentation and phantoms.
    """

    data_dir: Path
    output: Path
    model_mpp: float = 0.5
    width: float = 1.5
    stride: int = 4
    epochs: int = 24
    steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model_mpp not in (0.25, 0.5):
            raise BadOption(f"model_mpp {self.model_mpp} is not offered; use 0.25 or 0.5")
        if self.steps < 1:
            raise BadOption(f"steps {self.steps} is below 1")

    @property
    def recipe(self) -> Recipe:
        """The shipped recipe with these changes."""
        fitting = replace(Recipe().fitting, epochs=self.epochs, seed=self.seed)
        return Recipe(self.model_mpp, self.width, self.stride, steps=self.steps, fitting=fitting)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadOption, OutputBelongsToAnotherRun))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("train_mitoray_s", __doc__.partition("\n")[0])
    parser.add_class_arguments(Train)
    parser.add_class_arguments(Scaling)
    job, scaling = parser.parsed(argv, Train, Scaling)
    logging.getLogger("mitoray").setLevel(logging.INFO)
    recipe = job.recipe
    real, evaluation = read_real(job.data_dir), read_evaluation(job.data_dir)
    network = Network("mitoray-s", recipe.mpp, NORMALISATION, recipe.settings)
    feed = MaterialFeed(job.data_dir.resolve(), recipe)
    claimed(f"{job.output}-checkpoints", None, {"recipe": asdict(recipe)})
    with ray_here(scaling, ray_address()) as placement, Watched(recipe.fitting.epochs) as board:
        fitted = fit(
            Training(network, feed, recipe.fitting, recipe.augmentation, recipe.output_px),
            placement,
            name=f"{job.output.name}-checkpoints",
            storage=str(job.output.resolve().parent),
            max_failures=scaling.max_failures,
            on_epoch=board.on_epoch,
        )
    bundle = shipped_bundle(recipe, fitted.weights, 0.5)
    detector = bundle.detector()
    threshold = choose_threshold(detector, real, recipe.augmentation)
    judged = tuple(metrics(detector, threshold, phantom_seed=TEST_SEED, real=evaluation))
    bundle = bundle.model_copy(update={"threshold": threshold, "metrics": judged})
    save_bundle(bundle, fitted.weights, job.output)
    for metric in judged:
        print(f"{metric.data:12} {metric.value:8.4f}  {metric.name}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
