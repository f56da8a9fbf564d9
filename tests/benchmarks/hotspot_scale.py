"""Seconds and memory for the fields of a slide with very many detections: `python tests/benchmarks/hotspot_scale.py`.

Two slides of 20 × 20 mm: "tumour" has hot and cold areas, as slides do; "even" has detections everywhere alike, which
is the worst case for pruning, since every field is nearly as good as the best. The count map and the densest circle
with enough tissue look at every centre of their grid, of 100 µm and 16 µm: only the number of points matters to them.
"""

import argparse
import resource
import time

import numpy as np

from mitoray.counting.count_map import count_map
from mitoray.counting.hotspot import densest_circle, densest_rectangle
from mitoray.counting.tissue_fields import densest_with_tissue
from mitoray.slide import Tissue

SIDE_UM = 20_000.0
TISSUE = Tissue(np.ones((1250, 1250), bool), 80_000, 80_000, 0.25)


def even(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((n, 2)) * SIDE_UM


def tumour(n: int, rng: np.random.Generator) -> np.ndarray:
    centres = rng.random((40, 2)) * SIDE_UM
    spread_um = rng.uniform(300, 3000, 40)
    of = rng.integers(0, 40, n)
    return np.clip(centres[of] + rng.normal(size=(n, 2)) * spread_um[of, None], 0, SIDE_UM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    n = parser.parse_args().points
    for slide in (tumour, even):
        points = slide(n, np.random.default_rng(0))
        for densest in (densest_circle, densest_rectangle):
            start = time.process_time()
            hotspot = densest(points)
            seconds = time.process_time() - start
            assert hotspot is not None
            assert hotspot.contains(points).sum() == hotspot.count
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{slide.__name__:7s} {hotspot.shape:9s} {n} points: count {hotspot.count}, "
                f"{seconds:.1f} CPU s, peak {peak_mib:.0f} MiB"
            )
        start = time.process_time()
        found = count_map(points, (SIDE_UM, SIDE_UM))
        mapped = time.process_time()
        in_tissue = densest_with_tissue(points, TISSUE, 0.9)
        print(
            f"{slide.__name__:7s} count map {found.counts.shape}: at most {found.counts.max()}, "
            f"{mapped - start:.1f} CPU s; circle with 90% of tissue: {in_tissue.count if in_tissue else 'none'}, "
            f"{time.process_time() - mapped:.1f} CPU s"
        )


if __name__ == "__main__":
    main()
