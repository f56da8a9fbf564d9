"""Windows of 512 px per second: this reader against OpenSlide and plain tiffslide, one thread each, in one run.

python tests/benchmarks/slide_reading.py ../shared/data/slides/*.svs
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["TIFFSLIDE_NUM_DECODE_THREADS"] = "1"

import numpy as np
import openslide
import tiffslide

from mitoray.slide import Rect, open_slide

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("slides", nargs="+", help="slide files, for example one JPEG and one JPEG2000")
parser.add_argument("--side-px", type=int, default=512, help="side of a window, px")
parser.add_argument("--step-px", type=int, default=448, help="distance between windows, px; less than a side overlaps")
parser.add_argument("--rounds", type=int, default=5, help="times that each reader reads each slide")
arguments = parser.parse_args()
side = arguments.side_px


def windows(width_px: int, height_px: int) -> Iterator[tuple[int, int]]:
    """Left, top of windows row by row, those that lie wholly on the slide."""
    for y in range(0, height_px - side + 1, arguments.step_px):
        for x in range(0, width_px - side + 1, arguments.step_px):
            yield x, y


def by_mitoray(path: str) -> int:
    """Read all windows, return how many."""
    with open_slide(path, mpp=0.25) as slide:
        return sum(
            slide.read_region(Rect(x, y, side, side), 0.25).shape[2] == 3
            for x, y in windows(slide.width_px, slide.height_px)
        )


def by_openslide(path: str) -> int:
    """Read all windows, return how many."""
    with openslide.OpenSlide(path) as slide:
        return sum(
            np.asarray(slide.read_region(place, 0, (side, side)).convert("RGB")).shape[2] == 3
            for place in windows(*slide.dimensions)
        )


def by_tiffslide(path: str) -> int:
    """Read all windows, return how many."""
    with tiffslide.TiffSlide(path) as slide:
        return sum(
            slide.read_region(place, 0, (side, side), as_array=True).shape[2] == 3
            for place in windows(*slide.dimensions)
        )


readers = {"mitoray": by_mitoray, "OpenSlide": by_openslide, "tiffslide": by_tiffslide}
print(f"{'slide':32} {'reader':10} {'windows/s':>9} {'mitoray is':>10}")
for path in arguments.slides:
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(arguments.rounds):
        for name, read in readers.items():
            started = time.perf_counter()
            count = read(path)
            speeds[name].append(count / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, speed in medians.items():
        print(f"{Path(path).name:32.32} {name:10} {speed:9.1f} {medians['mitoray'] / speed:9.2f}×")
