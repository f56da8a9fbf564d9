"""What a target domain's training part brings to detectors of another domain, on phantoms: source only, TO, TO+MS, TL.

    python tests/benchmarks/domain_adaptation.py --folder /tmp/adaptation

Draws crowded slides of both domains (200 figures per mm²), trains the runs on the one, brings them to the other by
jobs/adapt_domain.py, and prints its table. What is in the folder already is used again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

JOBS = Path(__file__).parents[2] / "jobs"
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides, trainings and the table")
parser.add_argument("--source", default="phantom-breast-a", help="domain to train on (default: phantom-breast-a)")
parser.add_argument("--target", default="phantom-lung-a", help="domain to adapt to (default: phantom-lung-a)")
parser.add_argument("--runs", type=int, default=5, help="source models, each with a seed of its own (default: 5)")
parser.add_argument("--width", type=float, default=1.0, help="of mitoray-s (default: 1.0)")
parser.add_argument("--epochs", type=int, default=8, help="of each source training (default: 8)")
parser.add_argument("--tuning-epochs", type=int, default=4, help="of each transfer learning (default: 4)")
parser.add_argument("--patches", type=int, default=512, help="per epoch (default: 512)")
parser.add_argument("--keep-epochs", type=int, default=3, help="candidates of each run (default: 3)")
parser.add_argument("--source-slides", type=int, default=10, help="default: 10")
parser.add_argument("--target-slides", type=int, default=12, help="of which a half is for the test (default: 12)")
parser.add_argument("--side-px", type=int, default=2000, help="side of a slide, level-0 px (default: 2000)")
parser.add_argument("--threads", type=int, default=1, help="CPU threads of a network (default: 1)")
arguments = parser.parse_args()

os.environ["RAY_ADDRESS"] = "local"  # a Ray of its own for each job, whatever else runs here


def drawn(name: str, domain: str, n_slides: int, seed: int) -> list[str]:
    from crowded import draw_crowded

    folder = (arguments.folder / name).resolve()
    if not (folder / "labels.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        draw_crowded(folder, [domain], n_slides=n_slides, seed=seed, side_px=arguments.side_px)
    return ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]


def run_job(*words: object) -> None:
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, *map(str, words)], check=False)
    print(f"{Path(str(words[0])).name} {words[1]}: exit {ended.returncode}, {time.perf_counter() - started:.0f} s\n")
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    source = drawn("source", arguments.source, arguments.source_slides, 810_000)
    target = drawn("target", arguments.target, arguments.target_slides, 820_000)
    fed = [
        *("--patch-px", "96", "--patches", arguments.patches, "--validation-patches", "128", "--batch-size", "32"),
        *("--threads", arguments.threads),
    ]
    runs = [(arguments.folder / f"seed-{seed}").resolve() for seed in range(arguments.runs)]
    for seed, folder in enumerate(runs):
        run_job(
            *(JOBS / "train_detector.py", *source, *fed, "--architecture", "mitoray-s", "--model-mpp", "0.5"),
            *("--settings", json.dumps({"width": arguments.width}), "--epochs", arguments.epochs, "--seed", seed),
            *("--learning-rate", "4e-3", "--body-learning-rate", "4e-3", "--keep-epochs", arguments.keep_epochs),
            *("--output", folder),
        )
    for command in ("to", "ms", "tl"):
        run_job(
            *(JOBS / "adapt_domain.py", command, "--runs", json.dumps([str(folder) for folder in runs]), *target, *fed),
            *("--test-share", "0.5", "--epochs", arguments.tuning_epochs, "--output", arguments.folder / "adapted"),
            *("--learning-rate", "5e-4", "--body-learning-rate", "1e-4"),
        )
