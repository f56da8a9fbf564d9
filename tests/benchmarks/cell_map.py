"""The cell map of more than 5,000 real crops: size, peak memory, and whether cells of a class lie together.

python tests/benchmarks/cell_map.py --data ../shared/data --output /tmp/cell_map

The cells: all 4,574 REAL CROPS of mitotic figures (AMi-Br, AtNorM-BR, AtNorM-MD), classes normal and atypical, and
1,000 REAL CROPS of canine mammary tissue without figures, class "random", so that there are 5,574. Runs the job's
embed, rank and map, each in a process of its own, and prints what they print, their seconds and peak memory, then the
map's size, levels and µm/px as tiffslide reads them, and how close normal and atypical figures lie without the tissue,
which is easily told from them.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tiffslide import TiffSlide

from mitoray.curation.cell_grid import Grid, closeness
from mitoray.curation.map_layout import read_cell_map
from mitoray.training.crops import CROPS, png
from mitoray.training.material import read_real
from mitoray.training.patches import Tissue

ROOT = Path(__file__).parents[2]
TABLES = ("amibr-midog21", "atnorm-br", "atnorm-md")
CROP_PX, MPP = 128, 0.25


def tissue_crops(data: Path, n: int, seed: int) -> pa.Table:
    """Crops of 32 µm of real tissue without figures."""
    image = read_real(data).tissue
    half = CROP_PX // 2
    rows = []
    for x, y in np.round(Tissue(image, MPP).places(4 * n, np.random.default_rng(seed))).astype(int).tolist():
        crop = image[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half]
        if crop.shape == (3, CROP_PX, CROP_PX) and len(rows) < n:
            of = {"crop_id": f"tissue-{len(rows)}", "slide_id": "tissue", "case_id": "tissue", "kind": "random"}
            rows.append(
                {
                    **of,
                    "x_px": float(x),
                    "y_px": float(y),
                    "mpp": MPP,
                    "image": png(np.ascontiguousarray(crop.permute(1, 2, 0).numpy())),
                }
            )
    return pa.Table.from_pylist(rows, schema=CROPS)


def write_tissue(data: Path, n: int, path: Path) -> None:
    """Write `tissue_crops`."""
    pq.write_table(tissue_crops(data, n, 0), path)


def timed(*words: str) -> None:
    """Run the job and print what it says, its seconds and its peak memory."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(ROOT / "jobs" / "curate_consistency.py"), *words])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    code, gib = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 2**20
    print(f"  {words[0]}: status {code}, {seconds:.0f} s, peak {gib:.2f} GiB\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with crops/ and negative_tissue/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the map")
    parser.add_argument("--tissue", type=int, default=1000, help="crops of tissue")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tissue = arguments.output / "tissue.parquet"
    if not tissue.exists():
        # In a process of its own: a process that is started by a large one counts its starter's memory as its own peak.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            other.submit(write_tissue, arguments.data, arguments.tissue, tissue).result()
    tables = [str(arguments.data / "crops" / f"{name}.parquet") for name in TABLES]
    output = ("--output", str(arguments.output / "job"))
    timed("embed", *output, "--classes", "subtype", "--crops", f"[{', '.join([*tables, str(tissue)])}]")
    timed("rank", *output)
    timed("map", *output)
    path = arguments.output / "job" / "map" / "cells.tif"
    with TiffSlide(path) as slide:
        mpp = slide.properties["tiffslide.mpp-x"]
        print(f"{path}: {path.stat().st_size / 2**20:.0f} MiB, levels {slide.level_dimensions}, {mpp} µm/px")
    made = read_cell_map(path.with_suffix(".parquet"))
    figures = np.array([name != "random" for name in made.names])
    codes = np.array([name == "atypical" for name in made.names]).astype(int)[figures]
    close = closeness(Grid(made.grid.columns, made.grid.rows, made.grid.places[figures]), codes)
    print(
        f"normal and atypical figures alone: {close['share']:.3f}, chance {close['by_chance']:.3f}, p {close['p']:.3g}"
    )


if __name__ == "__main__":
    main()
