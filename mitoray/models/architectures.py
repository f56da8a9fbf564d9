"""The networks that a bundle may name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from mitoray.models.detector import Detector
from mitoray.models.heatmap import HeatmapDetector, HeatmapNet


@dataclass(frozen=True)
class Architecture:
    """How to build a network without weights, and the detector around the network with weights.

    detector: called with the network and the keywords mpp, mean, std (three floats each, 0 to 255) and device.
    """

    network: Callable[[], nn.Module]
    detector: Callable[..., Detector]


ARCHITECTURES: Final[dict[str, Architecture]] = {"mitoray-s": Architecture(HeatmapNet, HeatmapDetector)}
