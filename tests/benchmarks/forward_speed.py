"""Speed of the shipped detector's forward pass on a CPU in its several forms, and how far their scores lie apart.

python tests/benchmarks/forward_speed.py --threads 1

Each form takes uint8 images to logits; `detect` goes on to points. Rounds are interleaved, speeds are medians, ratios
are to eager float32 with batch norms, contiguous. Differences and same detections are of phantoms of all domains: a
detection is the same if the other form has one within a cell, 4 px, above the threshold.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from mitoray.models import heatmap, load_bundle
from mitoray.models.architectures import built
from mitoray.models.heatmap import HeatmapDetector
from mitoray.models.placement import KEEP_MEMORY, inference_dtype
from mitoray.phantom import DOMAINS, draw_phantom

WINDOW_PX = 512
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
parser.add_argument("--sides-px", type=int, nargs="+", default=[1024, 1152], help="sides of the images, px")
parser.add_argument("--rounds", type=int, default=7, help="measurements of each form (default: 7)")
parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the process's own time, for a busy machine")
parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes, needs a C++ compiler")
parser.add_argument("--default-malloc", action="store_true", help="without the memory settings that actors have")
arguments = parser.parse_args()
if not arguments.default_malloc and not KEEP_MEMORY.items() <= os.environ.items():
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)

torch.set_num_threads(arguments.threads)
bundle = load_bundle("mitoray-s")
mean, std = (torch.tensor(v).view(3, 1, 1) for v in (bundle.normalisation.mean, bundle.normalisation.std))


def network():
    made = built(bundle.architecture, bundle.settings)
    made.load_state_dict(dict(bundle.weights))
    return made.eval().requires_grad_(False)


def detector(dtype=torch.float32, integers=False):
    heatmap.inference_dtype = lambda device: dtype
    return HeatmapDetector(
        network(),
        mpp=bundle.mpp,
        mean=bundle.normalisation.mean,
        std=bundle.normalisation.std,
        device=torch.device("cpu"),
        integers=integers,
    )


def eager(net, layout):
    net = net.to(memory_format=layout)
    return lambda images: net(((images.float() - mean) / std).contiguous(memory_format=layout))[:, 0]


shipped = detector(inference_dtype(torch.device("cpu")), integers=True)
fused = detector()
forms = {
    "eager": eager(network(), torch.contiguous_format),
    "channels last": eager(network(), torch.channels_last),
    "fused": fused._logits,
    "bfloat16": detector(torch.bfloat16)._logits,
    f"shipped: {type(shipped._network).__name__}": shipped._logits,
}
if arguments.compile:
    forms["compiled float32"] = eager(torch.compile(network(), dynamic=False), torch.channels_last)
    halved = torch.compile(network().for_inference(torch.bfloat16).to(memory_format=torch.channels_last), dynamic=False)
    forms["compiled bfloat16"] = lambda images: halved(fused._normalised(images).bfloat16())[:, 0]
steps = forms | {"detect, shipped": lambda images: shipped.detect(images, bundle.threshold)}


def phantoms():
    """uint8 (n, 3, 512, 512), one of each domain, crowded with figures, at the detector's µm/px."""
    images = []
    for seed, domain in enumerate(DOMAINS.values()):
        crowded = replace(domain, tumour=replace(domain.tumour, figures_per_mm2=800, imposters_per_mm2=500))
        side_px = round(WINDOW_PX * bundle.mpp / domain.mpp)
        drawn = Image.fromarray(draw_phantom(crowded, seed=seed, width_px=side_px, height_px=side_px).image)
        images.append(torch.from_numpy(np.array(drawn.resize((WINDOW_PX, WINDOW_PX), Image.Resampling.BOX))))
    return torch.stack(images).permute(0, 3, 1, 2)


def cells_found(scores):
    """Rows (image, y, x) of local maxima above the threshold."""
    maxima = scores == torch.nn.functional.max_pool2d(scores[:, None], 3, stride=1, padding=1)[:, 0]
    return (maxima & (scores >= bundle.threshold)).nonzero().float()


def n_same(ones, others):
    """How many of `ones` have one of `others` of the same image within a cell."""
    apart = (ones[:, None] - others[None]).abs() * torch.tensor([1e3, 1.0, 1.0])
    return int((apart.amax(dim=2).amin(dim=1) <= 1).sum())


side = max(arguments.sides_px)
slide = torch.from_numpy(draw_phantom("phantom-breast-a", seed=1, width_px=side, height_px=side).image)
clock = CLOCKS[arguments.clock]
with torch.inference_mode():
    for side in arguments.sides_px:
        image = slide[:side, :side].permute(2, 0, 1)[None]
        seconds = {name: [] for name in steps}
        for round_ in range(arguments.rounds + 1):
            for name, step in steps.items():
                started = clock()
                step(image)
                if round_:  # the first warms up
                    seconds[name].append(clock() - started)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        print(f"\n{side} px, {arguments.threads} threads, {arguments.clock} time, medians of {arguments.rounds}")
        print(f"{'form':28} {'windows/s':>9} {'Mpx/s':>7} {'ratio':>6}")
        for name, median in medians.items():
            windows, ratio = side**2 / WINDOW_PX**2 / median, medians["eager"] / median
            print(f"{name:28} {windows:9.1f} {side**2 / median / 1e6:7.2f} {ratio:6.2f}")

    images = phantoms()
    reference = torch.cat([forms["eager"](image[None]) for image in images]).sigmoid()
    expected = cells_found(reference)
    print(f"\n{'form':28} {'largest difference':>18} {'same of ' + str(len(expected)):>14} {'same of its own':>17}")
    for name, form in forms.items():
        scores = torch.cat([form(image[None]) for image in images]).sigmoid()
        found = cells_found(scores)
        same, own = n_same(expected, found) / len(expected), n_same(found, expected) / len(found)
        print(f"{name:28} {(scores - reference).abs().max():18.4f} {same:14.2%} {own:17.2%}")
