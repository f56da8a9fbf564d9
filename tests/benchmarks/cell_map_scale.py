"""Seconds and peak memory of a map of 50,000 cells, beside those of the imports alone.

python tests/benchmarks/cell_map_scale.py --folder /tmp

Cells are NOISE of 128 px, in three crowds: only sizes count. Needs 2.5 GB of disk while it runs, and about 1 GB for the
map, which is removed.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from mitoray.curation.cell_grid import Layout, grid_of
from mitoray.curation.map_image import CellStore, write_map

SIDE = 128


def peak_gib() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where the map lies while it is made")
    parser.add_argument("--cells", type=int, default=50_000, help="number of cells")
    arguments = parser.parse_args()
    print(f"imports: peak {peak_gib():.2f} GiB")
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    plane = rng.normal(size=(arguments.cells, 2)) + 6 * rng.integers(0, 3, (arguments.cells, 1))
    grid = grid_of(plane, Layout())
    print(f"grid of {grid.columns} x {grid.rows}: {time.perf_counter() - began:.0f} s, peak {peak_gib():.2f} GiB")
    noise = rng.integers(100, 220, (64, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, CellStore(SIDE, Path(folder)) as cells:
        for first in range(0, arguments.cells, 64):
            cells.add(noise[: min(64, arguments.cells - first)])
        began, path = time.perf_counter(), Path(folder) / "map.tif"
        size = write_map(path, grid, cells, 0.25)
        seconds, mib = time.perf_counter() - began, path.stat().st_size / 2**20
        print(f"map of {size[0]} x {size[1]} px, {mib:.0f} MiB: {seconds:.0f} s, peak {peak_gib():.2f} GiB")


if __name__ == "__main__":
    main()
