"""Megapixels per second of a bundle's detector, by threads and image size, and the memory of the process.

python tests/benchmarks/detector_throughput.py --model mitoray-s --threads 1 2
"""

import argparse
import resource
import time

import torch

from mitoray.models import load_bundle
from mitoray.phantom import draw_phantom

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", default="mitoray-s", help="URI of a bundle")
parser.add_argument("--device", default="cpu", help='torch device, "cpu" or "cuda"')
parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads")
parser.add_argument("--sides-px", type=int, nargs="+", default=[512, 1024, 2176], help="sides of the images, px")
parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement, s")
arguments = parser.parse_args()

bundle = load_bundle(arguments.model)
side = max(arguments.sides_px)
slide = torch.from_numpy(draw_phantom("phantom-breast-a", seed=1, width_px=side, height_px=side).image)
print(f"{'threads':>7} {'side px':>7} {'images':>6} {'Mpx/s':>7} {'peak MiB':>8}")
for threads in arguments.threads:
    detector = bundle.detector(arguments.device, threads)
    for side in arguments.sides_px:
        images = slide[:side, :side].permute(2, 0, 1)[None].repeat(max(1, 1024**2 // side**2), 1, 1, 1)
        detector.detect(images, bundle.threshold)
        started, pixels = time.perf_counter(), 0
        while time.perf_counter() - started < arguments.seconds:
            detector.detect(images, bundle.threshold)
            pixels += len(images) * side**2
        speed = pixels / (time.perf_counter() - started) / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{threads:7} {side:7} {len(images):6} {speed:7.1f} {peak:8.0f}")
