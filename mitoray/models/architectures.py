"""The networks that a bundle may name."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from mitoray.errors import BadOption
from mitoray.models.classifiers import CLASSIFIERS
from mitoray.models.detector import Detector


@dataclass(frozen=True)
class Architecture:
    """How to build a detector's network without weights, and the detector around the network with weights.

    Both are said as "module:name" and imported when they are asked for: torchvision's detectors take seconds to import,
    in every process.
    """

    network_at: str
    detector_at: str

    @property
    def network(self) -> Callable[..., nn.Module]:
        """Called with the bundle's settings as keywords; its defaults are the published settings."""
        network: Callable[..., nn.Module] = pkgutil.resolve_name(self.network_at)
        return network

    @property
    def detector(self) -> Callable[..., Detector]:
        """Called with the network and the keywords mpp, mean, std (three floats each, 0 to 255) and device."""
        detector: Callable[..., Detector] = pkgutil.resolve_name(self.detector_at)
        return detector


_HERE: Final = "mitoray.models"

ARCHITECTURES: Final[dict[str, Architecture]] = {
    "mitoray-s": Architecture(f"{_HERE}.heatmap:HeatmapNet", f"{_HERE}.heatmap:HeatmapDetector"),
    "retinanet": Architecture(f"{_HERE}.boxes:retinanet", f"{_HERE}.boxes:BoxDetector"),
    "fcos": Architecture(f"{_HERE}.boxes:fcos", f"{_HERE}.boxes:BoxDetector"),
    "onnx-yolo": Architecture(f"{_HERE}.onnx:OnnxYolo", f"{_HERE}.onnx:OnnxYoloDetector"),
}


def built(architecture: str, settings: Mapping[str, Any]) -> nn.Module:
    """The network of a detector or a classifier, without weights.

    Raises BadOption for an unknown architecture, or settings that it does not take.
    """
    if architecture in ARCHITECTURES:
        build: Callable[..., nn.Module] = ARCHITECTURES[architecture].network
    elif architecture in CLASSIFIERS:
        build = CLASSIFIERS[architecture]
    else:
        known = ", ".join([*ARCHITECTURES, *CLASSIFIERS])
        raise BadOption(f"architecture {architecture!r} is unknown; this version knows {known}")
    offered = inspect.signature(build).parameters
    if unknown := sorted(settings.keys() - offered.keys()):
        raise BadOption(f"architecture {architecture!r} has no setting {unknown[0]!r}; it has {', '.join(offered)}")
    for name, value in settings.items():
        kind = type(offered[name].default)
        if not isinstance(value, kind) and not (kind is float and type(value) is int):
            raise BadOption(f"architecture {architecture!r}: {name} must be {kind.__name__}, not {value!r}")
    return build(**settings)
