"""The networks that a bundle may name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from mitoray.errors import BadOption
from mitoray.models.boxes import BoxDetector, fcos, retinanet
from mitoray.models.classifiers import CLASSIFIERS
from mitoray.models.detector import Detector
from mitoray.models.heatmap import HeatmapDetector, HeatmapNet
from mitoray.models.onnx import OnnxYolo, OnnxYoloDetector


@dataclass(frozen=True)
class Architecture:
    """How to build a detector's network without weights, and the detector around the network with weights.

    network: called with the bundle's settings as keywords; its defaults are the published settings.
    detector: called with the network and the keywords mpp, mean, std (three floats each, 0 to 255) and device.
    """

    network: Callable[..., nn.Module]
    detector: Callable[..., Detector]


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "mitoray-s": Architecture(HeatmapNet, HeatmapDetector),
    "retinanet": Architecture(retinanet, BoxDetector),
    "fcos": Architecture(fcos, BoxDetector),
    "onnx-yolo": Architecture(OnnxYolo, OnnxYoloDetector),
}


def built(architecture: str, settings: Mapping[str, Any]) -> nn.Module:
    """The network of a detector or a classifier, without weights.

    Raises BadOption for an unknown architecture, or settings that it does not take.
    """
    known = {name: detector.network for name, detector in ARCHITECTURES.items()} | CLASSIFIERS
    if architecture not in known:
        raise BadOption(f"architecture {architecture!r} is unknown; this version knows {', '.join(known)}")
    build = known[architecture]
    offered = inspect.signature(build).parameters
    if unknown := sorted(settings.keys() - offered.keys()):
        raise BadOption(f"architecture {architecture!r} has no setting {unknown[0]!r}; it has {', '.join(offered)}")
    for name, value in settings.items():
        kind = type(offered[name].default)
        if not isinstance(value, kind) and not (kind is float and type(value) is int):
            raise BadOption(f"architecture {architecture!r}: {name} must be {kind.__name__}, not {value!r}")
    return build(**settings)
