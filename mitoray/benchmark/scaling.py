"""More nodes, more speed: simulated nodes on this machine, with a stand-in for the network that only takes time.

What is measured is all that stands around the network: Ray Data, the actors, their reading, the tally, the results.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import ray
from ray.cluster_utils import Cluster

from mitoray.benchmark.efficiency import fresh
from mitoray.benchmark.rows import Row
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import ATTEMPTS, Run

MODEL: Final = "python:mitoray.benchmark.stand_in:Timed"
REGION_UM: Final = 512.0


def scaling(manifest: Sequence[ManifestRow], folder: Path, nodes: Sequence[int]) -> list[Row]:
    """mm² per second by number of nodes, each with one actor; ratios to what as many times the first would be."""
    speeds = [_speed(manifest, folder, count) for count in nodes]
    rows = []
    for count, (speed, note) in zip(nodes, speeds, strict=True):
        linear = speeds[0][0] / nodes[0] * count
        rows.append(Row("scaling", f"{count} nodes", speed, "mm²/s", speed / linear, "linear", note))
    return rows


def _speed(manifest: Sequence[ManifestRow], folder: Path, nodes: int) -> tuple[float, str]:
    """While all actors worked: from the last one's readiness on."""
    # The head has the CPUs for what runs around the actors, and no room for one.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, resources={"scoring": 1})
        cluster.wait_for_nodes()
        ray.init(cluster.address, logging_level=logging.ERROR)
        output = fresh(folder, f"scaling-{nodes}")
        run = Run.claim(Cohort(list(manifest), MODEL, str(output), Method(region_um=REGION_UM)))
        score_cohort(run, Resources(num_actors=nodes), progress=False)
        tally = json.loads(sorted((output / ATTEMPTS).glob("*.json"))[-1].read_text())
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    speed = tally["steady_mm2"] / tally["steady_s"] if tally["steady_s"] else math.nan
    return speed, f"{tally['n_regions']} regions; {tally['steady_s']:.0f} s with all {tally['n_actors']} actors at work"
