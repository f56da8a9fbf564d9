"""How fast phantoms are drawn and written: python tests/benchmarks/phantom_drawing.py [side_px] [domain ...]."""

import resource
import sys
import tempfile
import time
from pathlib import Path

from mitoray.phantom import DOMAINS, draw_patches, draw_phantom, write_slide


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    side_px = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
    draw_phantom("phantom-breast-a", seed=0, width_px=300, height_px=300)
    print(f"{'domain':26} {'step':6} {'Mpx':>6} {'wall s':>7} {'CPU s':>6} {'Mpx/CPU s':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[2:] or ["phantom-breast-a", "phantom-sarcoma-a"]:
            start = clocks()
            phantom = draw_phantom(DOMAINS[name], seed=1, width_px=side_px, height_px=side_px)
            drawn = clocks()
            write_slide(phantom, Path(folder) / "slide.svs")
            written = clocks()
            images, _ = draw_patches(name, n=512, size_px=64, seed=1)
            patched = clocks()
            for step, before, after, pixels in (
                ("draw", start, drawn, side_px**2),
                ("write", drawn, written, side_px**2),
                ("patch", written, patched, images.size // 3),
            ):
                wall, cpu = after[0] - before[0], after[1] - before[1]
                print(f"{name:26} {step:6} {pixels / 1e6:6.1f} {wall:7.2f} {cpu:6.2f} {pixels / 1e6 / cpu:9.1f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
