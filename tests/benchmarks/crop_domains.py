"""Real crops by scanner as slides, labels and a manifest: to train on one scanner, and test on each.

python tests/benchmarks/crop_domains.py --crops data/crops/amibr-midog21.parquet --output crops
python jobs/domain_matrix.py --manifest crops/manifest.csv --labels crops/labels.parquet --protocol single --folds 3 \
    --architecture mitoray-s --output matrix

The crops of each slide are laid side by side in one image of 0.25 µm/px. Every crop has its mitotic figure at the
centre; others that lie in it by chance are not labelled.
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from mitoray.labels.schema import LABELS

MPP = 0.25

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--crops", type=Path, required=True, help="table with slide, scanner and image of each crop")
parser.add_argument("--output", type=Path, required=True, help="folder for the slides, manifest.csv and labels.parquet")
parser.add_argument("--per-slide", type=int, default=36, help="crops per image, of the same slide if it has so many")
arguments = parser.parse_args()

arguments.output.mkdir(parents=True, exist_ok=True)
table = pq.read_table(arguments.crops, columns=["slide", "scanner", "image"]).sort_by(
    [("scanner", "ascending"), ("slide", "ascending")]
)
manifest, labels = [], []
rows = table.to_pylist()
# Crops of one slide stay together, and few slides share an image, so that no slide trains and tests at once.
groups: list[list[dict]] = []
for row in rows:
    last = groups[-1] if groups else []
    new_slide = not last or row["slide"] != last[-1]["slide"]
    if not last or row["scanner"] != last[-1]["scanner"] or (new_slide and len(last) >= arguments.per_slide):
        groups.append([])
    groups[-1].append(row)
for number, group in enumerate(groups):
    side = math.ceil(math.sqrt(len(group)))
    crops = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in group]
    px = crops[0].shape[0]
    image = np.full((math.ceil(len(group) / side) * px, side * px, 3), 255, np.uint8)
    slide_id = f"crops-{number:03d}"
    for i, crop in enumerate(crops):
        y, x = i // side * px, i % side * px
        image[y : y + px, x : x + px] = crop
        place = {"x_px": x + (px - 1) / 2, "y_px": y + (px - 1) / 2}
        labels.append(
            {
                "dataset": "AMi-Br",
                "slide_id": slide_id,
                **place,
                "kind": "mitotic_figure",
                "domain": group[0]["scanner"],
            }
        )
    file = arguments.output / f"{slide_id}.tif"
    tifffile.imwrite(file, image, tile=(256, 256), photometric="rgb", compression="adobe_deflate", metadata=None)
    manifest.append(
        {
            "slide_id": slide_id,
            "uri": str(file.resolve()),
            "case_id": slide_id,
            "domain": group[0]["scanner"],
            "mpp": MPP,
        }
    )
pa.csv.write_csv(pa.Table.from_pylist(manifest), arguments.output / "manifest.csv")
pq.write_table(pa.Table.from_pylist(labels, schema=LABELS), arguments.output / "labels.parquet")
print(
    f"{len(rows)} crops in {len(groups)} images of {len({row['scanner'] for row in rows})} scanners: {arguments.output}"
)
