"""How much longer scoring takes with a second stage, on the same regions, repeats of both in turn.

    python tests/benchmarks/second_stage_cost.py --folder /tmp/cost

Draws phantom slides, chooses the detector's threshold so that about as many candidates as asked for are classified per
mm² of tissue, and runs the scorer of an actor over all regions, reading included. The classifier's weights may be of
any quality (random by default): its time does not depend on them. Phantoms only; seconds are of this machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mitoray.models import Bundle, Normalisation, Training, load_bundle, save_bundle
from mitoray.models.architectures import built
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import read_manifest
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.score import RegionReader, RegionScorer
from mitoray.scoring.stages import SecondStage, second_halo_um

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides; slides there are used again")
parser.add_argument("--n-slides", type=int, default=2, help="slides (default: 2)")
parser.add_argument("--side-px", type=int, default=6000, help="side of a slide, px (default: 6000)")
parser.add_argument("--domain", default="phantom-breast-a", help="of all slides (default: phantom-breast-a, JPEG)")
parser.add_argument("--model", default="mitoray-s", help="detector (default: mitoray-s)")
parser.add_argument("--classifier", help="bundle of a classifier (default: mitoray-c with random weights)")
parser.add_argument("--per-mm2", type=float, default=30.0, help="candidates to classify per mm² (default: 30)")
parser.add_argument("--repeats", type=int, default=5, help="of each way, in turn (default: 5)")
parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
parser.add_argument("--threads", type=int, default=1, help="CPU threads of the networks (default: 1)")
arguments = parser.parse_args()


def random_classifier(mpp: float) -> Bundle:
    torch.manual_seed(0)
    card = {
        "name": "random-mitoray-c",
        "architecture": "mitoray-c",
        "mpp": mpp,
        "threshold": 0.5,
        "thresholds": {},
        "normalisation": Normalisation(mean=(180.0, 140.0, 170.0), std=(40.0, 50.0, 40.0)),
        "training": Training(data=(), licence="CC0", notes=()),
        "metrics": (),
    }
    bundle = Bundle(**card)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, built("mitoray-c", {}).state_dict(), folder)
        return load_bundle(folder)


manifest = arguments.folder / "manifest.csv"
if not manifest.exists():
    sides = {"width_px": arguments.side_px, "height_px": arguments.side_px}
    draw_cohort(arguments.folder, n_slides=arguments.n_slides, seed=720_000, domains=[arguments.domain], **sides)
slides = read_manifest(str(manifest))
model = load_bundle(arguments.model)
classifier = load_bundle(arguments.classifier) if arguments.classifier else random_classifier(model.mpp)
detector = model.detector(arguments.device, arguments.threads)
halo_um = {False: detector.halo_um, True: max(detector.halo_um, second_halo_um(classifier))}
plans = [(slide, plan_slide(slide, region_um=512.0, halo_um=detector.halo_um)) for slide in slides]
regions = {
    with_second: [
        region
        for slide, plan in plans
        for region in regions_of(plan, slide.uri, region_um=512.0, halo_um=halo_um[with_second]).to_pylist()
    ]
    for with_second in (False, True)
}
area_mm2 = sum(plan["tissue_mm2"] for _, plan in plans)


def run(threshold: float, second: SecondStage | None) -> tuple[float, float, dict[str, float], list[float]]:
    """A pass over all regions: seconds, those of CPU, those by stage, and the detector's scores of what was found."""
    reader = RegionReader(slides, model.mpp)  # nothing cached from the pass before
    scorer = RegionScorer(reader, detector, threshold, second=second)
    started, busy = time.perf_counter(), time.process_time()
    rows = list(scorer.score(regions[second is not None]))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return seconds, busy, scorer.take_seconds(), [c["detector_score"] for row in rows for c in row["candidates"]]


wanted = round(arguments.per_mm2 * area_mm2)
found = sorted(run(0.001, None)[3], reverse=True)
threshold = found[min(wanted, len(found)) - 1]
second = SecondStage(classifier, 0.0, arguments.device, arguments.threads)
print(f"{len(regions[True])} regions, {area_mm2:.2f} mm² of tissue, {model.name} and {classifier.name}")
times: dict[bool, list[float]] = {False: [], True: []}
cpu_times: dict[bool, list[float]] = {False: [], True: []}
stages: dict[bool, dict[str, float]] = {}
for _ in range(arguments.repeats):
    for with_second in (False, True):
        seconds, busy_s, by_stage, scores = run(threshold, second if with_second else None)
        times[with_second].append(seconds)
        cpu_times[with_second].append(busy_s)
        if seconds == min(times[with_second]):
            stages[with_second] = by_stage
print(f"{len(scores)} candidates from detector score {threshold:.4f}: {len(scores) / area_mm2:.1f} per mm²")
for with_second, name in ((False, "single-stage"), (True, "two stages")):
    took = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages[with_second].items())
    median, cpu = np.median(times[with_second]), np.median(cpu_times[with_second])
    print(f"{name}: median {median:.2f} s, {cpu:.2f} s of CPU; best {min(times[with_second]):.2f} s ({took})")
ratios = np.array(times[True]) / np.array(times[False])
print(
    f"two stages / single-stage, pass by pass: median {np.median(ratios):.3f}, {ratios.min():.3f} to {ratios.max():.3f}"
)
cpu_ratios = np.array(cpu_times[True]) / np.array(cpu_times[False])
print(f"the same of CPU seconds, for a busy machine: median {np.median(cpu_ratios):.3f}")
print(f"of the best passes: {min(times[True]) / min(times[False]):.3f}")
share = stages[True]["classify"] / (min(times[True]) - stages[True]["classify"])
print(f"seconds of classifying on top of the rest of the same pass: {share:.3f}")
