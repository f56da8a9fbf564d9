"""How well classifiers tell atypical from normal figures on real crops, with intervals over slides.

python tests/benchmarks/atypical_quality.py --data-dir data --models run/bundle

The crops, AMi-Br of MIDOG 2021, are for evaluation only: human breast, three scanners, none trained on.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mitoray.evaluation.bootstrap import slide_interval
from mitoray.models import load_bundle
from mitoray.training.material import EVALUATION_FILE, patches_at_mpp, read_crops
from mitoray.training.patches import centred

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data-dir", type=Path, required=True, help="folder with crops/")
parser.add_argument("--models", nargs="+", required=True, help="URIs of bundles with a subtype head")
parser.add_argument("--repeats", type=int, default=1000, help="bootstrap draws of slides")
arguments = parser.parse_args()

_, crops = read_crops(arguments.data_dir / EVALUATION_FILE)
table = pq.read_table(arguments.data_dir / EVALUATION_FILE, columns=["subtype", "slide", "scanner"])
is_atypical = np.array(table["subtype"].to_pylist()) == "atypical"
slides, slide = np.unique(table["slide"].to_pylist(), return_inverse=True)
scanners = np.array(table["scanner"].to_pylist())


def interval(statistic, probability):
    """Of slides drawn with repetition; a slide drawn twice counts twice."""

    def drawn(times):
        weights = times[slide].astype(float)
        if min(weights[is_atypical].sum(), weights[~is_atypical].sum()) == 0:
            return np.nan
        return statistic(is_atypical, probability, weights)

    return slide_interval(drawn, len(slides), repeats=arguments.repeats)


def balanced(truth, probability, weights=None):
    return balanced_accuracy_score(truth, probability >= 0.5, sample_weight=weights)


def area(truth, probability, weights=None):
    return roc_auc_score(truth, probability, sample_weight=weights)


for uri in arguments.models:
    bundle = load_bundle(uri)
    classifier = bundle.classifier()
    patches = centred(patches_at_mpp(crops, bundle.mpp).images, classifier.patch_px)
    probability = np.concatenate([classifier.classify(part).atypical for part in torch.split(patches, 256)])
    print(f"{bundle.name}: {len(patches)} real crops of {len(slides)} slides, {is_atypical.sum()} atypical")
    for name, statistic in (("balanced accuracy at 0.5", balanced), ("ROC AUC", area)):
        low, high = interval(statistic, probability)
        by_scanner = ", ".join(
            f"{scanner} {statistic(is_atypical[scanners == scanner], probability[scanners == scanner]):.3f}"
            for scanner in np.unique(scanners)
        )
        print(f"  {name}: {statistic(is_atypical, probability):.3f} (95 % {low:.3f} to {high:.3f}); {by_scanner}")
