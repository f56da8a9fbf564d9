"""The share of a run's wall time, after start-up, that the detector runs, beside its speed on decoded arrays.

    python tests/benchmarks/detector_share.py --folder /tmp/share

Draws phantom slides (JPEG), scores them with score_cohort with as many actors as CPUs, then runs the same model in as
many processes on the same regions, decoded before. Phantoms only; speeds are of this machine.
"""

import argparse
import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

from mitoray.phantom import draw_cohort

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides and results; slides there are used again")
parser.add_argument("--n-slides", type=int, default=4, help="slides of 6,000 × 6,000 px (default: 4)")
parser.add_argument("--domain", default="phantom-breast-a", help="of all slides (default: phantom-breast-a, JPEG)")


def detect_decoded(manifest: str, regions: list[dict], barrier) -> float:
    """Seconds that one process takes for the regions, decoded beforehand."""
    import torch

    from mitoray.models import load_bundle
    from mitoray.scoring.manifest import read_manifest
    from mitoray.scoring.score import RegionReader

    bundle = load_bundle("mitoray-s")
    detector = bundle.detector("cpu", 1)
    reader = RegionReader(read_manifest(manifest), bundle.mpp)
    images = [torch.tensor(reader.decode(region, reader.fetch(region))).permute(2, 0, 1)[None] for region in regions]
    detector.detect(images[0], bundle.threshold)
    barrier.wait()
    started = time.perf_counter()
    for image in images:
        detector.detect(image, bundle.threshold)
    return time.perf_counter() - started


def main() -> None:
    arguments = parser.parse_args()
    slides = arguments.folder / "slides"
    manifest = slides / "manifest.csv"
    if not manifest.exists():
        draw_cohort(slides, n_slides=arguments.n_slides, seed=710_000, domains=[arguments.domain])

    import pyarrow.parquet as pq
    import ray

    from mitoray.scoring.config import Cohort
    from mitoray.scoring.manifest import read_manifest
    from mitoray.scoring.pipeline import score_cohort
    from mitoray.scoring.run import Run

    ray.init("local", include_dashboard=False)
    output = arguments.folder / f"run-{int(time.time())}"
    score_cohort(Run.claim(Cohort(read_manifest(str(manifest)), "mitoray-s", str(output))))
    n_processes = int(ray.cluster_resources()["CPU"])
    ray.shutdown()
    tally = json.loads((output / "work/attempts/0001.json").read_text())
    busy_s, wall_s = tally["seconds"]["detect"], tally["wall_s"]
    print(f"scoring: {tally['n_regions']} regions in {wall_s:.1f} s after the first actor's start")
    print(f"detector busy: {busy_s:.1f} of {n_processes} × {wall_s:.1f} s = {busy_s / n_processes / wall_s:.1%}")

    regions = pq.read_table(output / "work/regions").to_pylist()
    context = get_context("spawn")
    barrier = context.Barrier(n_processes)
    with context.Pool(n_processes, initializer=_share, initargs=(barrier,)) as pool:
        parts = [(str(manifest), regions[part::n_processes]) for part in range(n_processes)]
        alone_s = pool.starmap(_detect, parts)
    print(f"same regions, decoded before: {sum(alone_s):.1f} s of detector in {n_processes} processes")
    print(f"throughput in score_cohort / on decoded arrays: {max(alone_s) / wall_s:.1%}")


def _share(barrier) -> None:
    global shared
    shared = barrier


def _detect(manifest: str, regions: list[dict]) -> float:
    return detect_decoded(manifest, regions, shared)


if __name__ == "__main__":
    from mitoray.scoring.pipeline import KEEP_MEMORY

    os.environ.update(KEEP_MEMORY)  # as the actors have it
    main()
