"""Convolutions of 8-bit integers, as CPUs with VNNI or AMX instructions compute them: four times the rate of float32.

An activation q of channel c stands for step[c] · (q − zero). The steps of the input go into the weights, those of the
output divide them, and each output channel of the weights has a scale of its own (Nagel et al. 2021, §2 and §4.2).
Sums are exact, so an answer depends neither on the size of an image nor on what else is in the batch.
"""

from typing import Final

import torch
from torch import nn

TOP: Final = 255
"""The largest activation."""
_WEIGHT_TOP: Final = 127
_LEAST: Final = 1e-6
_USUAL_PX: Final = 64
"""Side of the images that weights are laid out for. Others are as right; small ones would choose a slow layout."""


def supported() -> bool:
    """Whether torch can multiply 8-bit integers quickly here. Older instructions would be slow, and overflow."""
    capable = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    return bool(capable) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class IntegerConv(nn.Module):
    """A convolution of uint8 activations, rounded to uint8 again or, for the last of a network, left float32."""

    def __init__(
        self,
        conv: nn.Conv2d,
        step_in: torch.Tensor,
        step_out: torch.Tensor | None,
        *,
        relu: bool = False,
        zero_in: int = 0,
        zero_out: int = 0,
        offset: torch.Tensor | None = None,
    ) -> None:
        """step_in, step_out: float32, one per channel; None for float32 output.

        zero_in, zero_out: the integers that stand for 0. offset: float32, one per input channel, taken off the input
        before it is scaled; the caller then pads the image with it.
        """
        super().__init__()
        self._zero_in, self._zero_out = zero_in, zero_out
        self._dtype = torch.float32 if step_out is None else torch.uint8
        self._activation = "relu" if relu else "none"
        self._place = (
            list(conv.stride),
            [0, 0] if offset is not None else [int(side) for side in conv.padding],
            list(conv.dilation),
            conv.groups,
        )
        unit = torch.ones(conv.out_channels) if step_out is None else step_out
        weight = conv.weight.detach() * step_in.view(1, -1, 1, 1) / unit.view(-1, 1, 1, 1)
        scales = weight.abs().amax((1, 2, 3)).clamp(min=_LEAST) / _WEIGHT_TOP
        integers = (weight / scales.view(-1, 1, 1, 1)).round()
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach() / unit
        if offset is not None:
            bias = bias - (integers * offset.view(1, -1, 1, 1)).sum((1, 2, 3)) * scales
        usual = [1, conv.in_channels, _USUAL_PX, _USUAL_PX]
        packed = torch.ops.onednn.qconv_prepack(integers.to(torch.int8), scales, 1.0, zero_in, *self._place, usual)
        self._weight = packed, scales, torch.zeros(conv.out_channels, dtype=torch.int64)
        self._bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 (n, channels_in, h, w), channels last, to uint8 or float32 (n, channels_out, h', w')."""
        convolved: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, self._zero_in, *self._weight, self._bias, *self._place,
            1.0, self._zero_out, self._dtype, self._activation, [], "",
        )  # fmt: skip
        return convolved

    def add_to(self, sums: torch.Tensor, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        """The convolution of x plus `factor` times `sums`, whose memory it may take.

        sums: uint8, channels last, of the output's shape and zero.
        """
        activation = "relu" if self._activation == "relu" else None
        summed: torch.Tensor = torch.ops.onednn.qconv2d_pointwise.binary(
            x, 1.0, self._zero_in, *self._weight, sums, self._bias, *self._place,
            1.0, self._zero_out, self._dtype, factor, self._zero_out, "sum", 1.0, activation, [], "",
        )  # fmt: skip
        return summed
