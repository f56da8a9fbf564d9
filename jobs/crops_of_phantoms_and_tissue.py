"""Write crops of tissue and phantoms, for a classifier to be trained on besides published crops of figures.

    python jobs/crops_of_phantoms_and_tissue.py --data-dir data --output others.parquet
    python jobs/train_classifier.py --crops '[atnorm-br.parquet, atnorm-md.parquet, others.parquet]' --model-mpp 0.5 \
        --exchange-probability 0.6 --output run

Exit status: 0 done, 2 bad arguments or input, 1 anything else.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadModel, BadOption
from mitoray.models import load_bundle
from mitoray.training.other_crops import other_crops


@dataclass(frozen=True)
class Crops:
    """What to cut, and where to.

    Args:
        data_dir: folder with crops/*.parquet, two images negative_tissue/*.jpg and slides/: see train_mitoray_s.
        output: Parquet table to write.
        detector: bundle whose false positives in the tissue are cut out.
        random_negatives: crops of tissue anywhere.
        phantom_patches: drawn per phantom domain; about two in three hold a figure or an imposter.
        seed: of all that is drawn.
    """

    data_dir: Path
    output: Path
    detector: str = "mitoray-s"
    random_negatives: int = 3000
    phantom_patches: int = 120
    seed: int = 0

    def __post_init__(self) -> None:
        if self.random_negatives < 1 or self.phantom_patches < 1:
            raise BadOption("random_negatives and phantom_patches must be at least 1.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadOption, BadModel))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("crops_of_phantoms_and_tissue", __doc__.partition("\n")[0])
    parser.add_class_arguments(Crops)
    (job,) = parser.parsed(argv, Crops)
    crops = other_crops(
        job.data_dir,
        load_bundle(job.detector).detector(),
        random_negatives=job.random_negatives,
        phantom_patches=job.phantom_patches,
        seed=job.seed,
    )
    job.output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(crops, job.output)
    kinds = Counter(f"{row['domain']} {row['kind']}" for row in crops.select(["domain", "kind"]).to_pylist())
    print(f"{len(crops)} crops in {job.output}: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}.")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
