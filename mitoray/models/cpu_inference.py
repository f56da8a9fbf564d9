"""The heat-map network for inference on a CPU: in 8-bit integers where they are quick and right, else as it is."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional as F

from mitoray.models.integers import TOP, IntegerConv, supported
from mitoray.models.layers import ConvNorm, Residual

if TYPE_CHECKING:
    from mitoray.models.heatmap import HeatmapNet

TOLERANCE: Final = 0.03
"""Scores of the integer network lie this near those of float32. Of the shipped detector's they were at most 0.022
apart on phantoms that nothing was chosen by, 0.016 on real crops and 0.013 on a whole section, and 0.004 (root mean
square) where float32 scores above 0.1."""

_FINE_TOP: Final = 153
"""Share of `TOP` that fine features may reach, so that coarser ones can be added to them without overflow."""
_SIGNED_ZERO: Final = 128
_SIGNED_TOP: Final = 127

_PICTURE_PX: Final = 128
_LOGIT_SHARE: Final = 0.15
"""Deviation of the integer network's logits, as a share of the logits' own, above which it is not used."""

_log = logging.getLogger(__name__)


def integer_network(network: "HeatmapNet", mean: Sequence[float], std: Sequence[float]) -> "IntegerHeatmapNet | None":
    """`network`, fused and float32, in integers; None where the CPU lacks the instructions or its answer differs.

    mean, std: of the channels, in units of 0 to 255. The answers are compared on a picture drawn from both.
    """
    if not supported():
        return None
    try:
        integers = IntegerHeatmapNet(network, mean, std)
        agrees = _agrees(integers, network, mean, std)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:  # torch's integer operations are not public
        _announce(f"8-bit integers are not used: {error}")
        return None
    _announce("8-bit integers" if agrees else "8-bit integers are not used: they differ from float32")
    return integers if agrees else None


@torch.inference_mode()
def _agrees(integers: nn.Module, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> bool:
    centre, spread = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
    images = (centre + spread * _picture()).round().clamp(0, 255).to(torch.uint8)
    expected: torch.Tensor = network((images - centre) / spread)
    found: torch.Tensor = integers(images)
    if found.shape != expected.shape:  # the network's forward is not the one that was translated
        return False
    scores_apart = (found.sigmoid() - expected.sigmoid()).abs().max()
    return bool(scores_apart <= TOLERANCE) and bool((found - expected).std() <= _LOGIT_SHARE * expected.std())


def _picture() -> torch.Tensor:
    """float32 (1, 3, side, side): clouds of several sizes and dark spots, in standard deviations."""
    random = torch.Generator().manual_seed(0)
    side = _PICTURE_PX, _PICTURE_PX
    clouds = [
        F.interpolate(torch.randn(1, 3, cells, cells, generator=random), side, mode="bilinear") for cells in (8, 32, 64)
    ]
    spots = F.interpolate((torch.rand(1, 1, 24, 24, generator=random) > 0.95).float(), side, mode="bilinear")
    return torch.stack(clouds).sum(0) * 0.7 - 2.5 * spots


@cache
def _announce(what: str) -> None:
    _log.info("heat-map network on the CPU: %s", what)


class IntegerHeatmapNet(nn.Module):
    """A fused `HeatmapNet` in 8-bit integers; the channels' normalisation is part of its first convolution.

    Steps come from what the batch norms let activations reach, so no images are needed (Nagel et al. 2019, §4.2).
    """

    def __init__(self, network: "HeatmapNet", mean: Sequence[float], std: Sequence[float]) -> None:
        """`network` is fused; `mean` and `std` are in units of 0 to 255. Raises ValueError if it has no batch norms."""
        super().__init__()
        stem, fine, fine_residual = _layers(network.fine)
        reach_stem, reach_smooth = _reach(stem), _reach(network.smooth_middle)
        # One step for both sides of the last addition; neither side may use the other's share of the range.
        reach_fine = torch.maximum(
            _reach_of_stage(fine, fine_residual) * TOP / _FINE_TOP, reach_smooth * TOP / (TOP - _FINE_TOP)
        )
        step_fine, step_stem = reach_fine / TOP, reach_stem / TOP

        offset = torch.tensor(mean, dtype=torch.float32)
        self._border = offset.round().to(torch.uint8)
        self._stem = IntegerConv(stem.conv, 1 / torch.tensor(std), step_stem, relu=True, offset=offset)
        self._fine = _Stage(fine, fine_residual, step_stem, step_fine)
        middle, middle_residual = _layers(network.middle)
        step_middle = _reach_of_stage(middle, middle_residual) / TOP
        self._middle = _Stage(middle, middle_residual, step_fine, step_middle)
        coarse, coarse_residual = _layers(network.coarse)
        step_coarse = _reach_of_stage(coarse, coarse_residual) / TOP
        self._coarse = _Stage(coarse, coarse_residual, step_middle, step_coarse)

        lateral = _spread(network.lateral_middle, step_middle) + _spread(network.lateral_coarse, step_coarse)
        step_lateral = lateral / _SIGNED_TOP
        self._lateral_middle = IntegerConv(network.lateral_middle, step_middle, step_lateral, zero_out=_SIGNED_ZERO)
        self._lateral_coarse = IntegerConv(network.lateral_coarse, step_coarse, step_lateral, zero_out=_SIGNED_ZERO)
        self._smooth_middle = IntegerConv(
            network.smooth_middle.conv, step_lateral, step_fine, relu=True, zero_in=_SIGNED_ZERO
        )
        step_smooth = _reach(network.smooth_fine) / TOP
        self._smooth_fine = IntegerConv(network.smooth_fine.conv, step_fine, step_smooth, relu=True)
        self._centre = IntegerConv(network.centre, step_smooth, None)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 (n, 1, ceil(h / stride), ceil(w / stride)) of images uint8 (n, 3, h, w), not normalised."""
        fine = self._fine(self._stem(self._padded(images))).clamp_(max=_FINE_TOP)
        middle = self._middle(fine)
        coarser = _doubled(self._lateral_coarse(self._coarse(middle)), like=middle)
        middle = self._smooth_middle(self._lateral_middle.add_to(coarser, middle)).clamp_(max=TOP - _FINE_TOP)
        logits: torch.Tensor = self._centre(self._smooth_fine(fine.add_(_doubled(middle, like=fine))))
        return logits

    def _padded(self, images: torch.Tensor) -> torch.Tensor:
        """With a border of the channels' means, which are what float32 pads with once they are normalised."""
        n, channels, height, width = images.shape
        padded = torch.empty(n, height + 2, width + 2, channels, dtype=torch.uint8)
        for side in (padded[:, 0], padded[:, -1], padded[:, :, 0], padded[:, :, -1]):
            side.copy_(self._border)
        padded[:, 1:-1, 1:-1] = images.permute(0, 2, 3, 1)
        return padded.permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, enter: ConvNorm, residual: Residual, step_in: torch.Tensor, step_out: torch.Tensor) -> None:
        super().__init__()
        first, second = _layers(residual.branch)
        # The identity is added in integers: all its channels need the same factor to the output's steps.
        self._factor = float((_reach(enter) / TOP / step_out).max())
        step_enter, step_branch = step_out * self._factor, _reach(first) / TOP
        self._enter = IntegerConv(enter.conv, step_in, step_enter, relu=True)
        self._first = IntegerConv(first.conv, step_enter, step_branch, relu=True)
        self._second = IntegerConv(second.conv, step_branch, step_out, relu=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._enter(x)
        return self._second.add_to(x, self._first(x), self._factor)


def _layers(stage: nn.Module) -> list[Any]:
    return list(stage.children())


def _reach(layer: ConvNorm) -> torch.Tensor:
    if layer.reach is None:
        raise ValueError("a layer was not fused with a batch norm")
    return layer.reach


def _reach_of_stage(enter: ConvNorm, residual: Residual) -> torch.Tensor:
    return torch.hypot(_reach(enter), _reach(_layers(residual.branch)[-1]))


def _spread(conv: nn.Conv2d, step_in: torch.Tensor) -> torch.Tensor:
    """What sums of channels reach that vary on their own."""
    reach = step_in.view(1, -1, 1, 1) * TOP
    spread = (conv.weight.detach() * reach).square().sum((1, 2, 3)).sqrt()
    return spread if conv.bias is None else spread + conv.bias.detach().abs()


def _doubled(x: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    height, width = like.shape[-2:]
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")[..., :height, :width]
    return doubled.contiguous(memory_format=torch.channels_last)
