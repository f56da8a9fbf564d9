"""F1 single-stage and dual-stage on phantom domains that no training saw. Phantoms only.

    python tests/benchmarks/second_stage_f1.py --folder /tmp/dual

Draws both cohorts, trains a detector and a classifier (on labels, and on that detector's false positives) on the one,
scores the other with and without the classifier, and prints the tables of jobs/search_thresholds.py: thresholds, and
of the dual run the weights, from validation slides of the training domains. What is in the folder is used again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mitoray.phantom import DOMAINS, draw_cohort

JOBS = Path(__file__).parents[2] / "jobs"

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides, trainings, runs and tables")
parser.add_argument(
    "--domains",
    nargs="+",
    default=["phantom-breast-a", "phantom-breast-b", "phantom-lung-a", "phantom-lymphoma-a"],
    help="to train on; the others test (default: four)",
)
parser.add_argument("--train-slides", type=int, default=48, help="a third of them validates (default: 48)")
parser.add_argument("--test-slides", type=int, default=40, help="default: 40")
parser.add_argument("--side-px", type=int, default=3600, help="of a slide (default: 3600)")
parser.add_argument("--epochs", type=int, default=12, help="of both trainings (default: 12)")
parser.add_argument("--patches", type=int, default=768, help="per epoch of the detector (default: 768)")
parser.add_argument("--threads", type=int, default=1, help="CPU threads of a network (default: 1)")
parser.add_argument("--seed", type=int, default=0, help="of both trainings (default: 0)")
parser.add_argument(
    "--use-detector",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="give the detector's score a weight of its own (default: yes)",
)
arguments = parser.parse_args()

os.environ["RAY_ADDRESS"] = "local"  # a Ray of its own for each job, whatever else runs here


def drawn(name: str, domains: list[str], n_slides: int, seed: int) -> tuple[list[dict], pa.Table]:
    """Manifest rows and labels of a cohort, drawn unless it was."""
    folder = (arguments.folder / name).resolve()
    if not (folder / "labels.parquet").exists():
        side = arguments.side_px
        draw_cohort(folder, n_slides=n_slides, seed=seed, width_px=side, height_px=side, domains=domains)
    return pacsv.read_csv(folder / "manifest.csv").to_pylist(), pq.read_table(folder / "labels.parquet")


def run_job(*words: object) -> None:
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, *map(str, words)], check=False)
    print(f"{Path(str(words[0])).name}: exit {ended.returncode}, {time.perf_counter() - started:.0f} s\n", flush=True)
    if ended.returncode:
        sys.exit(ended.returncode)


def written(name: str, rows: list[dict]) -> str:
    path = arguments.folder / name
    pacsv.write_csv(pa.Table.from_pylist(rows), path)
    return str(path)


if __name__ == "__main__":
    known, labels = drawn("known", arguments.domains, arguments.train_slides, 910_000)
    unseen, others = drawn("unseen", [n for n in DOMAINS if n not in arguments.domains], arguments.test_slides, 920_000)
    for index, row in enumerate(known):
        row["split"] = "validation" if index // len(arguments.domains) % 3 == 2 else "train"
    for row in unseen:
        row["split"] = "test"
    manifest = written("known.csv", known)
    judged = written("judged.csv", [row for row in known if row["split"] == "validation"] + unseen)
    all_labels = arguments.folder / "labels.parquet"
    pq.write_table(pa.concat_tables([labels, others]), all_labels)

    fed = ["--manifest", manifest, "--labels", all_labels, "--epochs", arguments.epochs, "--seed", arguments.seed]
    detector, classifier = (arguments.folder / f"{name}-{arguments.seed}" for name in ("detector", "classifier"))
    run_job(
        *(JOBS / "train_detector.py", *fed, "--output", detector, "--architecture", "mitoray-s", "--model-mpp", 0.5),
        *("--patch-px", 128, "--patches", arguments.patches, "--validation-patches", 128, "--batch-size", 48),
        *("--learning-rate", "4e-3", "--body-learning-rate", "4e-3", "--threads", arguments.threads),
    )
    run_job(
        *(JOBS / "train_classifier.py", *fed, "--output", classifier, "--model-mpp", 0.5, "--patch-px", 48),
        *("--detector", detector / "bundle", "--mine-score", 0.05, "--random-negatives", 40, "--margin-px", 16),
        *("--exchange-probability", 0.6),
        *("--threads", arguments.threads),
    )
    for name, stage in (("single", []), ("dual", ["--classifier", classifier / "bundle"])):
        run, found = arguments.folder / f"{name}-{arguments.seed}", arguments.folder / f"{name}-found-{arguments.seed}"
        low = ["--candidate-threshold", 0.02, *(["--detector-threshold", 0.05] if stage else [])]
        run_job(
            JOBS / "score_cohort.py",
            "--manifest",
            judged,
            "--model",
            detector / "bundle",
            *stage,
            *low,
            "--output",
            run,
        )
        run_job(
            *(JOBS / "search_thresholds.py", "--detections", run / "detections", "--labels", all_labels),
            *("--manifest", judged, "--searched", "validation", "--output", found),
            *("--model", (classifier if stage else detector) / "bundle"),
            *("--use-detector", json.dumps(bool(stage) and arguments.use_detector), "--calibration", "temperature"),
        )
