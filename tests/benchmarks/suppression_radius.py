"""Within which radius two points are one figure: what each radius costs in labels, and brings in F1.

python tests/benchmarks/suppression_radius.py --data-dir data

By radius: labelled figures of MIDOG++ that have another so near; F1 of a bundle's detector at one threshold on real
crops held out from its training (AtNorM; the radius was chosen there), and by scanner on real crops of AMi-Br.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from scipy.spatial import cKDTree

from mitoray.labels import read_labels
from mitoray.models import heatmap, load_bundle
from mitoray.report.text import as_text
from mitoray.training.material import patches_at_mpp, read_evaluation, read_real
from mitoray.training.quality import crop_matchings, f1_at

RADII_UM = (6.25, 7.5, 8.0, 9.0, 10.0, 12.5)

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data-dir", type=Path, required=True, help="folder with midogpp/, crops/ and negative_tissue/")
parser.add_argument("--model", default="mitoray-s", help="URI of a bundle with a heat-map network")
parser.add_argument("--threshold", type=float, help="score from which a detection counts; default: the bundle's")
parser.add_argument("--threads", type=int, default=2, help="CPU threads")
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
labels = read_labels(arguments.data_dir / "midogpp/MIDOG++.json").to_pandas()
figures = labels[labels["kind"] == "mitotic_figure"]
nearest_um = np.concatenate(
    [cKDTree(xy).query(xy, 2)[0][:, 1] for xy in (g[["x_px", "y_px"]] * 0.25 for _, g in figures.groupby("slide_id"))]
)
bundle = load_bundle(arguments.model)
detector = bundle.detector()
threshold = bundle.threshold if arguments.threshold is None else arguments.threshold
crops = {"held out": read_real(arguments.data_dir).held_out_crops, **read_evaluation(arguments.data_dir).crops}
rows = []
for radius_um in RADII_UM:
    row = {"radius µm": radius_um, f"of {len(figures):,} labels": int((nearest_um < radius_um).sum())}
    with patch.object(heatmap, "SUPPRESSION_RADIUS_UM", radius_um):
        for name, images in crops.items():
            row[f"F1 {name}"] = f1_at(crop_matchings(detector, patches_at_mpp(images, bundle.mpp)), threshold)
    rows.append(row)
print(f"threshold {threshold:g}; real labels and real crops")
print(as_text(rows, digits=3))
