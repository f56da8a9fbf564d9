"""Layers that the small networks are made of, and their fusion for inference."""

from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

_DEVIATIONS: Final = 10.0
"""Standard deviations beyond its mean that an activation may reach. Figures are rare and far from the mean: at 8 some
are cut off and their scores move by 0.03, above 12 the steps of 8 bits become coarse."""


class ConvNorm(nn.Module):
    """A 3 × 3 convolution, batch norm, and ReLU unless told otherwise."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out)
        self.activate = activate
        self.reach: torch.Tensor | None = None  # (channels_out,): what outputs reach, as far as the fused norm knew

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels_in, h, w) to (n, channels_out, ceil(h / stride), ceil(w / stride))."""
        if self.activate and _on_cudnn(x, self.norm):
            return _conv_relu(x, self.conv)
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.activate else x


class Residual(nn.Module):
    """Two convolutions beside the identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels, activate=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the shape of x."""
        parts: list[Any] = list(self.branch)
        first, second = parts
        if _on_cudnn(x, second.norm):
            return _conv_add_relu(first(x), second.conv, x)
        return F.relu(x + self.branch(x), inplace=True)


def _on_cudnn(x: torch.Tensor, norm: nn.Module) -> bool:
    """Whether a fused convolution can take what follows it along: on a GPU a network takes 0.6 of the time with it.

    As fast as `torch.compile`, which needs 17 s at the start, and anew for images of another size.
    """
    folded = isinstance(norm, nn.Identity) and not torch.is_grad_enabled()
    return folded and x.is_cuda and torch.version.hip is None and torch.backends.cudnn.enabled


def _conv_relu(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    settings: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *settings)


def _conv_add_relu(x: torch.Tensor, conv: nn.Conv2d, added: torch.Tensor) -> torch.Tensor:
    settings: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return torch.cudnn_convolution_add_relu(x, conv.weight, added, 1.0, conv.bias, *settings)


def fused(network: nn.Module) -> None:
    """Fold the batch norms of all `ConvNorm` into their convolutions, in place, for inference."""
    for module in list(network.eval().modules()):
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.reach = _reach(module.norm)
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()


def fold_norms(network: nn.Module) -> None:
    """Fold each batch norm that stands behind a convolution in the same module into it, in place, for inference.

    As torchvision's networks are written: there, who stands behind whom is computed behind it as well.
    """
    for module in list(network.eval().modules()):
        children = list(module.named_children())
        for (name, conv), (behind, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, behind, nn.Identity())


def _reach(norm: nn.BatchNorm2d) -> torch.Tensor:
    reach = norm.bias.detach() + _DEVIATIONS * norm.weight.detach().abs()
    return reach.clamp(min=1e-3 * float(reach.max().clamp(min=1e-3)))
