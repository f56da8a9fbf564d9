"""A detector that only takes time, by the size of its images: for measuring what stands around the network."""

import time
from typing import Final

import numpy as np
import torch

from mitoray.models import Points

SECONDS_PER_MPX: Final = 0.8
"""So long that reading costs little beside it, even where many simulated nodes share a few cores."""


class Timed:
    """Sleeps, and finds one thing in the middle of each image. Used as `python:mitoray.benchmark.stand_in:Timed`."""

    mpp, halo_um = 0.5, 16.0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:  # noqa: ARG002
        """One point per image, of score 1: see `Detector.detect`."""
        time.sleep(SECONDS_PER_MPX * len(images) * images.shape[2] * images.shape[3] / 1e6)
        middle = np.array([[images.shape[3] / 2, images.shape[2] / 2]], np.float32)
        return [Points(middle, np.ones(1, np.float32)) for _ in images]
