"""Decoding and detecting alone, each as fast as it goes on all cores: what a pipeline of both can reach at most."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch

from mitoray.models import load_model
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import core_rect
from mitoray.slide import RegionBytes, open_slide
from mitoray.slide.reduction import decode_reduced
from mitoray.slide.tiles import JPEG, JPEG2000

IMAGE_UM = 1024.0
"""Side of the images that the network sees alone: just over 1 mm²."""
DETECT_SECONDS = 4.0


@dataclass(frozen=True)
class Alone:
    """Core-seconds per mm² of tissue: of the bare codec, each native tile once, and of the network on arrays."""

    decode_s_per_mm2: float
    detect_s_per_mm2: float


def alone(work: tuple[Sequence[Mapping[str, Any]], Sequence[ManifestRow], str, bool, int], barrier: Any) -> Alone:
    """Of one process's share of the regions; `barrier` lets all processes measure at the same time.

    work: REGIONS rows, the manifest, the model's URI, whether tiles are reduced while decoding, CPU threads.
    """
    regions, manifest, model, reduced_decode, threads = work
    bundle = load_model(model)
    detector = bundle.detector("cpu", threads)
    sources = {row.slide_id: row for row in manifest}
    tiles: dict[tuple[str, int], tuple[RegionBytes, int]] = {}
    mm2 = 0.0
    image = None
    for region in regions:
        source = sources[region["slide_id"]]
        with open_slide(source.uri, mpp=source.mpp, reduced_decode=reduced_decode) as slide:
            fetched = slide.fetch_region(core_rect(region), bundle.mpp)
            if image is None:
                image = _square(slide.decode_region(fetched), round(IMAGE_UM / bundle.mpp))
        for position, index in enumerate(fetched.indices):
            if fetched.tiles[position]:
                tiles[region["slide_id"], index] = fetched, position
        mm2 += region["width_px"] * region["height_px"] * region["mpp"] ** 2 / 1e6
    barrier.wait()
    started = time.perf_counter()
    for fetched, position in tiles.values():
        _decode(fetched, position)
    decode_s = time.perf_counter() - started
    batch = torch.tensor(image).permute(2, 0, 1)[None]
    detector.detect(batch, bundle.threshold)
    barrier.wait()
    started, passes = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < DETECT_SECONDS:
        detector.detect(batch, bundle.threshold)
        passes += 1
    image_mm2 = batch.shape[2] * batch.shape[3] * bundle.mpp**2 / 1e6
    return Alone(decode_s / mm2, elapsed / (passes * image_mm2))


def _square(image: np.ndarray, side_px: int) -> np.ndarray:
    """The image cut, or repeated, to a square."""
    repeats = [-(-side_px // edge) for edge in image.shape[:2]]
    return np.ascontiguousarray(np.tile(image, (*repeats, 1))[:side_px, :side_px])


def _decode(fetched: RegionBytes, position: int) -> None:
    """One tile by its codec, no more."""
    data, form, reduction = fetched.tiles[position], fetched.tile_format, fetched.window.reduction
    if reduction:
        decode_reduced(data, form, reduction, form.width_px >> reduction, form.height_px >> reduction)
    elif form.compression == JPEG:
        colour, out_colour = tifffile.tifffile.jpeg_decode_colorspace(form.photometric, 1, (), form.jfif)
        imagecodecs.jpeg8_decode(data, tables=form.jpeg_tables, colorspace=colour, outcolorspace=out_colour)
    elif form.compression in JPEG2000:
        imagecodecs.jpeg2k_decode(data)
    else:
        tifffile.TIFF.DECOMPRESSORS[form.compression](data)
