"""What rescans bring to a detector on the other scanner, on phantoms: none, all of their figures, or filtered ones.

    PYTHONPATH=. python tests/benchmarks/rescan_training.py --folder /tmp/rescans

Draws crowded slides (200 figures per mm²), rescans them in another scanner and stain with much out of focus, carries
the labels over by jobs/curate_rescans.py, trains by jobs/train_detector.py, and judges on sharp rescans of others, with
and without --augment. What is in the folder already is used again.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from tqdm import tqdm

from mitoray.curation.rescans import FIGURE, MASKED
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.tables import domain_table
from mitoray.evaluation.thresholds import best_threshold
from mitoray.labels.schema import LABELS
from mitoray.models import load_bundle
from mitoray.phantom import DOMAINS, draw_phantom, write_slide
from mitoray.phantom.rescan import Rescanning, draw_rescan
from mitoray.report.text import as_text
from mitoray.training.detection import detect_slide
from mitoray.training.fit_judge import Detected
from mitoray.training.slides import open_training_slide

JOBS = Path(__file__).parents[2] / "jobs"
MEASURES = ("F1", "F1 at best threshold", "average precision")
FIRST, SECOND = DOMAINS["phantom-breast-a"], DOMAINS["phantom-breast-b"]

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides, labels, trainings")
parser.add_argument("--slides", type=int, default=8, help="to train on, and as many for the test (default: 8)")
parser.add_argument("--side-px", type=int, default=2000, help="of a slide, at 0.25 µm/px (default: 2000)")
parser.add_argument("--blurred", type=int, default=12, help="discs of 140 µm out of focus on each rescan (default: 12)")
parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind (default: 3)")
parser.add_argument("--epochs", type=int, default=8, help="default: 8")
parser.add_argument(
    "--augment", action="store_true", help="with the default augmentation, which imitates other scanners and stains"
)
parser.add_argument("--patches", type=int, default=512, help="per epoch (default: 512)")
arguments = parser.parse_args()
os.environ["RAY_ADDRESS"] = "local"


def drawn(folder: Path) -> None:
    """Training originals and rescans with labels of the originals, and sharp test rescans with their own."""
    folder.mkdir(parents=True, exist_ok=True)
    crowded = replace(FIRST, tumour=replace(FIRST.tumour, figures_per_mm2=200, imposters_per_mm2=100))
    rows, labels, tests, truth = [], [], [], []
    for i in tqdm(range(2 * arguments.slides), desc="drawing", unit="slide"):
        phantom = draw_phantom(
            crowded, seed=870_000 + i, width_px=arguments.side_px, height_px=arguments.side_px, slide_id=f"case-{i}"
        )
        test = i >= arguments.slides
        blurred = 0 if test else arguments.blurred
        how = Rescanning(2.0 - i % 5, (20.0, -10.0), 4.0, blurred=blurred, blurred_um=140.0, defocus_um=2.5)
        rescan = draw_rescan(phantom, SECOND, how, seed=i, slide_id=f"case-{i}-rescan").phantom
        write_slide(rescan, folder / f"{rescan.slide_id}.svs")
        row = {"slide_id": rescan.slide_id, "uri": f"{rescan.slide_id}.svs", "case_id": phantom.slide_id}
        row |= {"domain": SECOND.name, "original_id": phantom.slide_id}
        if test:
            tests.append(row)
            truth.append(rescan.labels)
            continue
        write_slide(phantom, folder / f"{phantom.slide_id}.svs")
        own = {"slide_id": phantom.slide_id, "uri": f"{phantom.slide_id}.svs", "domain": FIRST.name, "original_id": ""}
        rows += [{**row, **own}, row]
        labels.append(phantom.labels)
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), folder / "manifest.csv")
    originals = [row for row in rows if not row["original_id"]]
    pyarrow.csv.write_csv(pa.Table.from_pylist(originals), folder / "originals.csv")
    pq.write_table(pa.concat_tables(labels), folder / "labels.parquet")
    pyarrow.csv.write_csv(pa.Table.from_pylist(tests), folder / "tests.csv")
    pq.write_table(pa.concat_tables(truth), folder / "truth.parquet")


def unfiltered(labels: pa.Table, carried: pa.Table) -> pa.Table:
    """The labels as if every figure could be seen on the rescan."""
    hidden = {(row["slide_id"], row["x_px"], row["y_px"]) for row in carried.to_pylist() if row["state"] == MASKED}
    rows = labels.to_pylist()
    for row in rows:
        if (row["slide_id"], row["x_px"], row["y_px"]) in hidden:
            row["kind"] = FIGURE
    return pa.Table.from_pylist(rows, schema=LABELS)


def shown(row: dict[str, object]) -> dict[str, object]:
    return row | {name: f"{row[name]:.3f}" for name in MEASURES}


def run_job(*words: object) -> None:
    ended = subprocess.run([sys.executable, *map(str, words)], check=False, stdout=subprocess.DEVNULL)
    if ended.returncode:
        sys.exit(ended.returncode)


def judged(bundle: Path, folder: Path) -> dict[str, float]:
    """On the test rescans: F1 at the bundle's threshold and at the best one, and average precision."""
    loaded = load_bundle(str(bundle))
    detector = loaded.detector()
    rows = pyarrow.csv.read_csv(folder / "tests.csv").to_pylist()
    slides = tuple(open_training_slide(r["slide_id"], str(folder / r["uri"]), domain=r["domain"]) for r in rows)
    found = Detected(slides, pa.concat_tables(detect_slide(detector, slide) for slide in slides), {})
    cohort = found.matched(pq.read_table(folder / "truth.parquet"))
    whole = domain_table(cohort, loaded.threshold, repeats=0)[-1]
    best = best_threshold(sweep(cohort.matchings))
    highest = np.nan if best is None else domain_table(cohort, best.threshold, repeats=0)[-1].f1_pooled
    return dict(zip(MEASURES, (whole.f1_pooled, highest, whole.average_precision), strict=True))


if __name__ == "__main__":
    folder = arguments.folder.resolve()
    if not (folder / "truth.parquet").exists():
        drawn(folder)
    everything = ["--manifest", folder / "manifest.csv", "--labels", folder / "labels.parquet"]
    if not (folder / "rescans" / "labels.parquet").exists():
        run_job(JOBS / "curate_rescans.py", *everything, "--output", folder / "rescans")
    print(as_text(pyarrow.csv.read_csv(folder / "rescans" / "kept.csv").to_pylist()), flush=True)
    filtered = pq.read_table(folder / "rescans" / "labels.parquet")
    pq.write_table(
        unfiltered(filtered, pq.read_table(folder / "rescans" / "carried.parquet")), folder / "unfiltered.parquet"
    )
    kinds = {
        "originals alone": ("originals.csv", "labels.parquet"),
        "and rescans, all figures": ("manifest.csv", "unfiltered.parquet"),
        "and rescans, filtered": ("manifest.csv", "rescans/labels.parquet"),
    }
    rows = []
    for seed in range(arguments.seeds):
        for kind, (manifest, labels) in kinds.items():
            name = f"{kind.replace(' ', '-').replace(',', '')}-{'augmented' if arguments.augment else 'plain'}-{seed}"
            output = folder / name
            if not (output / "bundle").exists():
                run_job(
                    *(JOBS / "train_detector.py", "--manifest", folder / manifest, "--labels", folder / labels),
                    *("--architecture", "mitoray-s", "--model-mpp", "0.5", "--settings", json.dumps({"width": 1.0})),
                    *("--patch-px", "96", "--patches", arguments.patches, "--validation-patches", "128"),
                    *("--batch-size", "32", "--threads", "1", "--epochs", arguments.epochs, "--seed", seed),
                    *("--learning-rate", "4e-3", "--body-learning-rate", "4e-3", "--output", output),
                    *("--augment", str(arguments.augment).lower()),
                )
            rows.append({"trained on": kind, "seed": seed, **judged(output / "bundle", folder)})
            print(as_text([shown(rows[-1])]), flush=True)
    print("\nphantoms, on the other scanner:")
    print(as_text([shown(row) for row in rows]))
    means = [
        {"trained on": kind}
        | {name: float(np.mean([row[name] for row in rows if row["trained on"] == kind])) for name in MEASURES}
        for kind in kinds
    ]
    print(as_text([shown(row) for row in means]))
