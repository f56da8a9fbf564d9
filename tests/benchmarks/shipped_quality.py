"""How good a bundle's detector is, each figure marked phantom, real crops or real tissue.

python tests/benchmarks/shipped_quality.py --data-dir data
"""

import argparse
from pathlib import Path

import torch

from mitoray.models import load_bundle
from mitoray.training.material import read_evaluation
from mitoray.training.quality import metrics

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", default="mitoray-s", help="URI of a bundle")
parser.add_argument("--data-dir", type=Path, required=True, help="folder with crops/, negative_tissue/ and slides/")
parser.add_argument("--threshold", type=float, help="score from which a detection counts; default: the bundle's")
parser.add_argument("--seed", type=int, default=20_000, help="of the first phantom slide of each domain")
parser.add_argument("--threads", type=int, default=1, help="CPU threads")
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
bundle = load_bundle(arguments.model)
threshold = bundle.threshold if arguments.threshold is None else arguments.threshold
real = read_evaluation(arguments.data_dir)
for metric in metrics(bundle.detector(), threshold, phantom_seed=arguments.seed, real=real):
    print(f"{metric.data:12} {metric.value:8.4f}  {metric.name}")
