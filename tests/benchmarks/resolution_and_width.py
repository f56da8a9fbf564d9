"""What the shipped detector's resolution, stride and width cost and bring: each trained alike and briefly, then judged.

python tests/benchmarks/resolution_and_width.py --data-dir data --steps 600 --threads 2

Sensitivity is that on real AMi-Br crops, never trained on, at so many false positives per mm² of real tissue without
figures: a region at 0.25 µm/px, and a slide scanned at 0.5. Seconds per mm² are the detector's alone, on the CPU.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from mitoray.models.architectures import built
from mitoray.models.bundle import detector_around
from mitoray.report.text import as_text
from mitoray.training.fitting import Fitter
from mitoray.training.material import at_mpp, patches_at_mpp, read_evaluation
from mitoray.training.mitoray_s import NORMALISATION, MaterialFeed, Recipe
from mitoray.training.quality import crop_matchings, f1_at, false_scores, sensitivity_above, threshold_at

CONFIGURATIONS = [(0.25, 1.0, 4), (0.5, 1.0, 2), (0.5, 1.0, 4), (0.5, 1.5, 4), (0.5, 2.0, 4)]

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data-dir", type=Path, required=True, help="folder with crops/, negative_tissue/ and slides/")
parser.add_argument("--steps", type=int, default=600, help="batches of each training")
parser.add_argument("--threads", type=int, default=2, help="CPU threads")
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
real = read_evaluation(arguments.data_dir)
rows = []
for mpp, width, stride in CONFIGURATIONS:
    torch.manual_seed(0)
    epochs = 10
    fitting = replace(Recipe().fitting, epochs=epochs)
    recipe = Recipe(mpp, width, stride, steps=arguments.steps // epochs, fitting=fitting, phantom_patches=150)
    feed = MaterialFeed(arguments.data_dir, recipe)
    module = built("mitoray-s", recipe.settings)
    fitter = Fitter(
        module,
        fitting,
        recipe.steps,
        NORMALISATION,
        device=torch.device("cpu"),
        augmentation=recipe.augmentation,
        output_px=recipe.output_px,
    )
    started = time.perf_counter()
    for batches in feed.epochs(0, epochs, 0, 1):
        fitter.run_epoch(batches)
    trained_s = time.perf_counter() - started
    detector = detector_around("mitoray-s", module, mpp, NORMALISATION, torch.device("cpu"))
    tissue = at_mpp(real.tissue[:, 2000:4048, 2000:4048], mpp)[None]
    detector.detect(tissue, 0.5)
    started = time.perf_counter()
    detector.detect(tissue, 0.5)
    per_mm2 = (time.perf_counter() - started) / (2048 * 0.25 / 1000) ** 2
    of_scanner = [crop_matchings(detector, patches_at_mpp(crops, mpp)) for crops in real.crops.values()]
    crops = [matching for matchings in of_scanner for matching in matchings]
    f1, threshold = max((min(f1_at(m, t / 100) for m in of_scanner), t / 100) for t in range(4, 96, 2))
    row = {"µm/px": mpp, "stride": stride, "width": width, "train s": trained_s, "s/mm²": per_mm2, "least F1": f1}
    for (scores, area_mm2), short in zip(false_scores(detector, real).values(), ("0.25", "0.5"), strict=True):
        for rate in (5.0, 1.0):
            name = f"at {rate:g}/mm² {short}"
            row[name] = sensitivity_above(crops, threshold_at(scores, area_mm2, rate))
    rows.append(row)
    print(as_text(rows, **{"train s": 0}), flush=True)
print("least F1: of the three scanners, at the one threshold that is best for it; real crops and real tissue")
