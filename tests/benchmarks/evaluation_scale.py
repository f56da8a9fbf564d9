"""Seconds and memory to judge one slide of very many detections: `python tests/benchmarks/evaluation_scale.py`.

The slide has 100,000 × 100,000 px at 0.25 µm/px; four in five labels have one to three detections nearby, the other
detections lie anywhere. They are suppressed, matched by both rules, and their best threshold is searched.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mitoray.evaluation.curves import average_precision, sweep
from mitoray.evaluation.matching import RADIUS_UM, match, match_linked, nms
from mitoray.evaluation.thresholds import best_threshold

SIDE_UM = 25_000.0


def slide(n_detections: int, n_labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = rng.random((n_labels, 2)) * SIDE_UM
    near = np.repeat(labels, rng.choice([0, 1, 2, 3], n_labels, p=[0.2, 0.6, 0.15, 0.05]), axis=0)[:n_detections]
    near = near + rng.normal(0, 2, near.shape)
    far = rng.random((n_detections - len(near), 2)) * SIDE_UM
    scores = np.concatenate([rng.beta(4, 2, len(near)), rng.beta(2, 4, len(far))])
    return np.concatenate([near, far]), scores, labels


def timed(what: str, call: Callable[[], Any]) -> Any:
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:28s} {wall:6.1f} s ({cpu:.1f} CPU s), peak {peak_mib:.0f} MiB")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detections", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=500_000)
    args = parser.parse_args()
    points, scores, labels = slide(args.detections, args.labels, np.random.default_rng(0))
    print(f"{len(points)} detections, {len(labels)} labels")
    kept = timed("suppression", lambda: nms(points, scores, RADIUS_UM))
    print(f"{len(kept)} detections kept; the following takes all")
    timed("linked matching", lambda: match_linked(points, scores, labels, RADIUS_UM))
    matching = timed("one-to-one matching", lambda: match(points, scores, labels, RADIUS_UM))
    counts = timed("counts at every threshold", lambda: sweep([matching]))
    best = timed("best of all thresholds", lambda: best_threshold(counts))
    print(f"{len(counts.scores)} distinct scores: {best}, average precision {average_precision(counts):.4f}")


if __name__ == "__main__":
    main()
