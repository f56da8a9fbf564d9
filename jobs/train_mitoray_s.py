"""Train mitoray-s, the detector that ships with mitoray, judge it, and write its bundle.

    python jobs/train_mitoray_s.py --data-dir data --output bundle --minutes 15 --seed 0

Exit status: 0 trained, 2 bad arguments or input.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadOption, MitorayError
from mitoray.training.heatmap import Schedule
from mitoray.training.mitoray_s import Recipe, make_mitoray_s


@dataclass(frozen=True)
class Train:
    """What to train from, and for how long.

    Args:
        data_dir: folder with crops/atnorm-br.parquet, crops/atnorm-md.parquet, two images negative_tissue/*.jpg, and,
            for evaluation only, crops/amibr-midog21.parquet; all at 0.25 µm/px.
        output: folder for weights.safetensors and bundle.json.
        minutes: length of the training, min; takes the place of `steps`.
        steps: length of the training, batches. Gives the same weights again where `minutes` may not.
        seed: of initial weights, views, augmentation and phantoms.
        threads: CPU threads.
    """

    data_dir: Path
    output: Path
    minutes: float | None = None
    steps: int = 1000
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.minutes is not None and self.minutes <= 0:
            raise BadOption(f"minutes {self.minutes} is not above 0")
        if self.steps < 1:
            raise BadOption(f"steps {self.steps} is below 1")
        if self.threads < 1:
            raise BadOption(f"threads {self.threads} is below 1")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(MitorayError,))


def run(argv: Sequence[str] | None) -> int:
    logging.getLogger("mitoray").setLevel(logging.INFO)
    parser = JobParser("train_mitoray_s", __doc__.partition("\n")[0])
    parser.add_class_arguments(Train)
    (train,) = parser.parsed(argv, Train)
    torch.set_num_threads(train.threads)
    recipe = Recipe(Schedule(steps=train.steps, minutes=train.minutes, seed=train.seed))
    bundle = make_mitoray_s(train.data_dir, train.output, recipe)
    for metric in bundle.metrics:
        print(f"{metric.data:12} {metric.value:8.4f}  {metric.name}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
