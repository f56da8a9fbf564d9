"""Decoding and detecting alone, each as fast as it goes on all cores: what a pipeline of both can reach at most."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mitoray.benchmark.bare import codec_name, decode_bare
from mitoray.models import Detector, load_model
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import core_rect, outer_rect
from mitoray.slide import RegionBytes, open_slide
from mitoray.slide.tiles import tile_memory

IMAGE_UM = 1024.0
"""Side of the images that the network sees alone: just over 1 mm²."""
DETECT_SECONDS = 4.0


@dataclass(frozen=True)
class Alone:
    """Core-seconds per mm² of tissue: of the bare codec, each native tile once, and of the network on arrays."""

    decode_s_per_mm2: float
    detect_s_per_mm2: float


def alone(
    regions: Sequence[Mapping[str, Any]],
    manifest: Sequence[ManifestRow],
    model: str,
    reduced_decode: bool,
    barrier: Any,
) -> Alone:
    """Of one process's share of the REGIONS rows, on one thread; `barrier` lets all processes measure at one time."""
    bundle = load_model(model)
    detector = bundle.detector("cpu", 1)
    sources = {row.slide_id: row for row in manifest}
    tiles: dict[tuple[str, int], tuple[bytes, RegionBytes]] = {}
    mm2 = 0.0
    image = None
    for region in regions:
        source = sources[region["slide_id"]]
        with open_slide(source.uri, mpp=source.mpp, reduced_decode=reduced_decode) as slide:
            fetched = slide.fetch_region(core_rect(region), bundle.mpp)
            if image is None:
                image = _square(slide.decode_region(fetched), round(IMAGE_UM / bundle.mpp))
        codec_name(fetched)
        for index, data in zip(fetched.indices, fetched.tiles, strict=True):
            tiles[region["slide_id"], index] = data, fetched
        mm2 += region["width_px"] * region["height_px"] * region["mpp"] ** 2 / 1e6
    memory = tile_memory(fetched.tile_format)
    barrier.wait()
    started = time.perf_counter()
    for data, fetched in tiles.values():
        decode_bare(data, fetched, memory)
    decode_s = time.perf_counter() - started
    batch = torch.tensor(image).permute(2, 0, 1)[None]
    detector.detect(batch, bundle.threshold)
    barrier.wait()
    detect_s = detect_alone(detector, batch, bundle.threshold)
    image_mm2 = batch.shape[2] * batch.shape[3] * bundle.mpp**2 / 1e6
    return Alone(decode_s / mm2, detect_s / image_mm2)


def detect_on_gpu(region: Mapping[str, Any], source: ManifestRow, model: str, reduced_decode: bool) -> float:
    """Seconds per mm² of one GPU's network on an image that lies in its memory: a region as it is scored, with halo.

    Per mm² that it looks at: halos come on top in a run.
    """
    bundle = load_model(model)
    detector = bundle.detector("cuda")
    with open_slide(source.uri, mpp=source.mpp, reduced_decode=reduced_decode) as slide:
        image = torch.tensor(slide.read_region(outer_rect(region), bundle.mpp)).permute(2, 0, 1)[None].to("cuda")
    return detect_alone(detector, image, bundle.threshold) / (image.shape[2] * image.shape[3] * bundle.mpp**2 / 1e6)


def detect_alone(detector: Detector, images: torch.Tensor, threshold: float) -> float:
    """Seconds that a detector takes for images in memory, again and again."""
    detector.detect(images, threshold)
    started, passes = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < DETECT_SECONDS:
        detector.detect(images, threshold)
        passes += 1
    return elapsed / passes


def _square(image: np.ndarray, side_px: int) -> np.ndarray:
    """The image cut, or repeated, to a square."""
    repeats = [-(-side_px // edge) for edge in image.shape[:2]]
    return np.ascontiguousarray(np.tile(image, (*repeats, 1))[:side_px, :side_px])
