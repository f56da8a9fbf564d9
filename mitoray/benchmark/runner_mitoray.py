"""mitoray's own planning and scoring over a slide, as one of several actors: with its detector, or a traced network.

With the network that the others run, window by window, what is left between them is how slides are read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mitoray import __version__
from mitoray.benchmark.runner_network import WINDOW_PX
from mitoray.models import Bundle, Detector, Points, load_bundle
from mitoray.models.inputs import Normaliser
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import outer_rect, plan_slide, regions_of
from mitoray.scoring.score import RegionReader, RegionScorer

REGIONS_UM = (2048.0, 1536.0, 1024.0, 768.0, 512.0)
"""Sizes of regions to choose from: as large as by default, unless that leaves cores without work on a small slide."""
BATCH = 8


class TracedDetector:
    """A traced network on windows of an image, without overlap. What it finds is not looked at: its time counts."""

    def __init__(self, path: str, bundle: Bundle, like: Detector) -> None:
        self.mpp, self.halo_um, self.device = like.mpp, like.halo_um, like.device
        self._network = torch.jit.load(path, map_location=self.device)  # type: ignore[no-untyped-call]
        self._normalised = Normaliser(bundle.normalisation.mean, bundle.normalisation.std, self.device)

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:  # noqa: ARG002
        """No points; see `Detector.detect`."""
        with torch.inference_mode():
            for image in images:
                for batch in torch.split(windows_of(image), BATCH):
                    self._network(self._normalised(batch)).cpu()
        nothing = Points(np.empty((0, 2), np.float32), np.empty(0, np.float32))
        return [nothing] * len(images)


def windows_of(image: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 3, WINDOW_PX, WINDOW_PX) that cover an image uint8 (3, h, w), white beyond it."""
    height, width = image.shape[1:]
    padded = F.pad(image, (0, -width % WINDOW_PX, 0, -height % WINDOW_PX), value=255)
    cut = padded.unfold(1, WINDOW_PX, WINDOW_PX).unfold(2, WINDOW_PX, WINDOW_PX)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1)


def shares(regions: Sequence[Mapping[str, Any]], n: int) -> list[list[Mapping[str, Any]]]:
    """The regions dealt to `n` actors, the largest first, each to the one with least to read, in their order."""
    dealt: list[list[int]] = [[] for _ in range(n)]
    loads = [0] * n
    for index in sorted(range(len(regions)), key=lambda index: -_read_px(regions[index])):
        least = loads.index(min(loads))
        dealt[least].append(index)
        loads[least] += _read_px(regions[index])
    return [[regions[index] for index in sorted(share)] for share in dealt]


def _read_px(region: Mapping[str, Any]) -> int:
    outer = outer_rect(region)
    return outer.width_px * outer.height_px


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, int]], dict[str, Any]]]:
    """The version, and the work: to plan the slide and to score this actor's share of its regions."""
    bundle = load_bundle(settings["model"])
    detector = bundle.detector(settings["device"], settings["threads"])
    halo_um = detector.halo_um
    if settings["traced"]:
        detector = TracedDetector(settings["network"], bundle, detector)
    row = ManifestRow("slide", settings["slide"], mpp=settings["slide_mpp"])

    def planned(region_um: float) -> list[list[Mapping[str, Any]]]:
        plan = plan_slide(row, region_um=region_um, halo_um=halo_um)
        if plan["status"] != "planned":
            raise RuntimeError(plan["error"])
        regions = regions_of(plan, row.uri, region_um=region_um, halo_um=halo_um)
        return shares(regions.to_pylist(), settings["actors"])

    def longest(region_um: float) -> int:
        return max(sum(map(_read_px, share)) for share in planned(region_um))

    region_um = min(REGIONS_UM, key=longest)

    def work(_: dict[str, int]) -> dict[str, Any]:
        started = time.perf_counter()
        regions = planned(region_um)[settings["actor"]]
        seconds = {"plan": time.perf_counter() - started}
        scorer = RegionScorer(RegionReader([row], bundle.mpp), detector, bundle.threshold, settings["read_threads"])
        for scored in scorer.score(regions):
            if scored["status"] != "scored":
                raise RuntimeError(scored["error"])
        px = sum(region["width_px"] * region["height_px"] for region in regions)
        return {"mm2": px * settings["slide_mpp"] ** 2 / 1e6, "stages": seconds | scorer.take_seconds()}

    return {"version": __version__, "torch": torch.__version__, "region_um": region_um}, work
