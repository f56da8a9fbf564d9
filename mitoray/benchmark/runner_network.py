"""The detector's network as others' tools take one: a file of TorchScript, plain float32, that gives two classes."""

import warnings
from pathlib import Path

import torch
from torch import nn

from mitoray.errors import BadModel
from mitoray.models import Bundle
from mitoray.models.architectures import built
from mitoray.models.heatmap import HeatmapNet

WINDOW_PX = 512


class WindowNet(nn.Module):
    """A window's logits: 0 of no figure, its heat-map's highest of a figure; softmax gives that cell's score."""

    def __init__(self, network: HeatmapNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 2) of normalised images (n, 3, h, w)."""
        figure = self.network(x).amax(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(figure), figure], dim=1)


def write_traced(bundle: Bundle, path: Path) -> None:
    """Write the bundle's network, unfused, as TorchScript. Raises BadModel unless it draws heat-maps."""
    network = built(bundle.architecture, bundle.settings)
    if not isinstance(network, HeatmapNet):
        raise BadModel(f"model {bundle.name}: {bundle.architecture} draws no heat-map; give one of mitoray-s")
    network.load_state_dict(dict(bundle.weights))
    window = WindowNet(network).eval().requires_grad_(False)
    with warnings.catch_warnings():
        # TorchScript is on its way out of torch, but it is what WSInfer reads.
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        traced = torch.jit.trace(window, torch.zeros(2, 3, WINDOW_PX, WINDOW_PX))  # type: ignore[no-untyped-call]
        traced.save(str(path))
