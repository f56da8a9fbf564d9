"""What optics, sensor and firmware of a scanner do to an image: blur, noise, sharpening, a coarser resolution."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Floats = NDArray[np.float64]


def blurred(x: torch.Tensor, sigma_px: Floats) -> torch.Tensor:
    """Gaussian blur, mirrored at the borders. x: float32 (n, 3, h, w). sigma_px: (n,), above 0, one per image."""
    n, channels, height, width = x.shape
    reach = min(math.ceil(3 * float(sigma_px.max())), height - 1, width - 1)
    taps = np.exp(-((np.arange(-reach, reach + 1) / sigma_px[:, None]) ** 2) / 2)
    taps /= taps.sum(axis=1, keepdims=True)
    kernels = torch.from_numpy(taps).to(x.device, x.dtype).repeat_interleave(channels, dim=0)[:, None, None]
    planes = F.pad(x, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernels, groups=n * channels)
    return F.conv2d(planes, kernels.transpose(2, 3), groups=n * channels).view_as(x)


def sharpened(x: torch.Tensor, sigma_px: Floats, amount: Floats) -> torch.Tensor:
    """Unsharp mask: the difference from the image blurred by `sigma_px`, times `amount`, on top. Both (n,).

    Amounts above about 1 draw halos around nuclei, as early scanners do; negative ones soften. Not clipped.
    """
    return torch.lerp(blurred(x, sigma_px), x, 1 + _per_image(amount, x))


def fringed(x: torch.Tensor, shift_px: NDArray[np.int64]) -> torch.Tensor:
    """Red and blue moved by -1, 0 or 1 px: shift_px (n, 2, 2), of red and blue, along x and y. Borders continue."""
    n, _, height, width = x.shape
    moved = x.clone()
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    for image in range(n):
        for channel, (dx, dy) in zip((0, 2), shift_px[image].tolist(), strict=True):
            moved[image, channel] = wide[image, channel, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
    return moved


def noisy(x: torch.Tensor, std: Floats, seed: int) -> torch.Tensor:
    """Independent Gaussian noise of `std` grey values, (n,). The same seed gives the same noise on the same device."""
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.randn(x.shape, generator=generator, device=x.device).mul_(_per_image(std, x)).add_(x)


def at_low_resolution(
    x: torch.Tensor, factor: Floats, scanned: Callable[[torch.Tensor], torch.Tensor] = lambda small: small
) -> torch.Tensor:
    """The images as a coarser scanner stores them, brought back to their size. Not clipped.

    x: float32 (n, 3, s, s). factor: (n,), 0 to 1, of the resolution. scanned: what happens at the low resolution; it
    gets (n, 3, m, m), m the largest of the small sides, each smaller image continued by its last row and column.
    """
    side = x.shape[-1]
    small = np.maximum(np.rint(side * factor), 1)
    down, up = (torch.from_numpy(m).to(x.device, x.dtype)[:, None] for m in _resampling(side, small))
    return up @ scanned(down @ x @ down.transpose(2, 3)) @ up.transpose(2, 3)


def _resampling(side: int, small: Floats) -> tuple[Floats, Floats]:
    """Matrices (n, m, side) and (n, side, m) that bring rows of `side` px to `small` ones, (n,), and back.

    Down: a triangle as wide as a small pixel's neighbours reach. Up: cubic convolution, a = -0.5 (Keys 1981).
    """
    fine = np.arange(side) + 0.5
    step = (side / small)[:, None, None]
    coarse = np.minimum(np.arange(int(small.max())), small[:, None] - 1)[:, :, None] + 0.5
    down = np.maximum(1 - np.abs(fine / step - coarse), 0)
    place = fine[None, :, None] / step - 0.5
    start = np.floor(place)
    up = np.zeros((len(small), side, int(small.max())))
    image, row = np.ogrid[: len(small), :side]
    for tap in (-1, 0, 1, 2):
        column = np.clip(start + tap, 0, small[:, None, None] - 1)[:, :, 0].astype(np.int64)
        up[image, row, column] += _cubic(np.abs(place - start - tap))[:, :, 0]
    return down / down.sum(axis=2, keepdims=True), up


def _cubic(distance: Floats) -> Floats:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _per_image(values: Floats, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(x.device, x.dtype).view(-1, 1, 1, 1)
