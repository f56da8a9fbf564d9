"""Train mitoray-c, the shipped classifier that tells atypical from normal figures, and judge it on real crops.

    python jobs/train_mitoray_c.py --data-dir data --output mitoray-c

Cuts crops of phantoms and tissue, trains as jobs/train_classifier.py does, and writes the bundle. The same command
again goes on where a training stopped. Exit status: 0 done, 2 bad arguments or material, 1 anything else.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import crops_of_phantoms_and_tissue
import train_classifier

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadOption, OutputBelongsToAnotherRun
from mitoray.models import load_bundle, save_bundle
from mitoray.training.fit import Scaling
from mitoray.training.material import CROP_FILES
from mitoray.training.mitoray_c import NAME, judged_on_crops, shipped_classifier


@dataclass(frozen=True)
class Train:
    """What to train from, for how long, and where to.

    Args:
        data_dir: folder with crops/*.parquet, two images negative_tissue/*.jpg and slides/: see train_mitoray_s.
        output: folder for weights.safetensors and bundle.json; crops and checkpoints go beside it.
        epochs: passes over newly drawn crops.
        subtype_epochs: epochs in which the subtype head alone learns on.
        patches: crops per epoch.
        random_negatives: crops of tissue anywhere.
        phantom_patches: drawn per phantom domain.
        seed: of initial weights, crops and augmentation.
    """

    data_dir: Path
    output: Path
    epochs: int = 16
    subtype_epochs: int = 10
    patches: int = 4096
    random_negatives: int = 3000
    phantom_patches: int = 120
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadOption, OutputBelongsToAnotherRun))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("train_mitoray_c", __doc__.partition("\n")[0])
    parser.add_class_arguments(Train)
    parser.add_class_arguments(Scaling)
    job, scaling = parser.parsed(argv, Train, Scaling)
    detector = load_bundle("mitoray-s")
    crops, training = (job.output.with_name(f"{job.output.name}-{part}") for part in ("crops.parquet", "training"))
    cut = ["--data-dir", job.data_dir, "--output", crops, "--seed", job.seed]
    drawn = ["--random-negatives", job.random_negatives, "--phantom-patches", job.phantom_patches]
    if not crops.exists():
        crops_of_phantoms_and_tissue.run([str(word) for word in (*cut, *drawn)])
    tables = [*(job.data_dir / name for name in CROP_FILES), crops]
    options = {
        "crops": f"[{','.join(map(str, tables))}]",
        "output": training,
        "name": NAME,
        "model-mpp": detector.mpp,
        "patch-px": 48,
        "exchange-probability": 0.6,
        "epochs": job.epochs,
        "subtype-epochs": job.subtype_epochs,
        "patches": job.patches,
        "seed": job.seed,
        **{name: value for name, value in vars(scaling).items() if value is not None},
    }
    train_classifier.run([f"--{name}={value}" for name, value in options.items()])
    trained = load_bundle(str(training / "bundle"))
    measured = judged_on_crops(trained.classifier(), job.data_dir)
    bundle = shipped_classifier(trained, detector, measured)
    save_bundle(bundle, trained.weights, job.output)
    for metric in bundle.metrics:
        print(f"{metric.data:12} {metric.value:8.4f}  {metric.name}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
