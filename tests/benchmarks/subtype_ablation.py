"""Mitosis F1 of a classifier trained with and without the subtype task, over seeds (Fick et al. 2024, Table 2).

    python tests/benchmarks/subtype_ablation.py --folder /tmp/ablation --crops figures.parquet others.parquet

Trains by jobs/train_classifier.py, two trainings a seed that share their validation crops, and prints the F1 there, at
the threshold that is best there. What is in the folder already is used again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from mitoray.report.text import as_text

JOB = Path(__file__).parents[2] / "jobs/train_classifier.py"
TASKS = {"true": "with the subtype task", "false": "without"}

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for the trainings")
parser.add_argument("--crops", nargs="+", required=True, help="tables of crops, as train_classifier takes them")
parser.add_argument("--seeds", type=int, default=5, help="default: 5")
parser.add_argument("--epochs", type=int, default=6, help="of each training (default: 6)")
parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network (default: 1)")
arguments = parser.parse_args()

os.environ["RAY_ADDRESS"] = "local"  # a Ray of its own for each training, whatever else runs here


def f1(seed: int, task: str) -> float:
    """That of the bundle, which is trained unless it was."""
    output = (arguments.folder / f"seed-{seed}-{task}").resolve()
    card = output / "bundle/bundle.json"
    if not card.exists():
        options = {
            "crops": f"[{','.join(arguments.crops)}]",
            "output": output,
            "model-mpp": 0.5,
            "patch-px": 48,
            "exchange-probability": 0.6,
            "epochs": arguments.epochs,
            "subtype-epochs": 0,
            "subtype-task": task,
            "threads": arguments.threads,
            "seed": seed,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([sys.executable, str(JOB), *words], check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads(card.read_text())["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"].startswith("F1 on the validation crops"))


if __name__ == "__main__":
    values = {task: np.array([f1(seed, task) for seed in range(arguments.seeds)]) for task in TASKS}
    rows = [
        {
            "trained": TASKS[task],
            **{f"seed {i}": v for i, v in enumerate(f1s)},
            "mean": f1s.mean(),
            "sd": f1s.std(ddof=1),
        }
        for task, f1s in values.items()
    ]
    print(as_text(rows, digits=4))
    gained = values["true"] - values["false"]
    print(f"Gained by the task, pair by pair: {gained.mean():+.4f} ± {gained.std(ddof=1):.4f}")
