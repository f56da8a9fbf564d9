"""The losses of baseline JPEG, on the device: everything of the format but the entropy coding, which loses nothing."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

_LUMINANCE: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE: Final = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Quantisation of DCT coefficients at quality 50 (ITU-T T.81, tables K.1 and K.2)."""
_YCC_FROM_RGB: Final = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)
"""JFIF, without the 128 that Cb and Cr are stored with; JPEG takes 128 off all three again, so that only Y lacks it."""


def compressed(images: torch.Tensor, quality: NDArray[np.int64], subsampled: NDArray[np.bool_]) -> torch.Tensor:
    """The images as they come out of a JPEG file.

    images: float32 (n, 3, h, w), RGB, clipped to 0 to 255 and rounded first. quality: (n,) in 1 to 100, on libjpeg's
    scale. subsampled: (n,), colour at half the resolution (4:2:0) or in full (4:4:4). The grid of 8 px blocks starts at
    the corner of the image. Returns whole numbers, 0 to 255.
    """
    out = torch.empty_like(images)
    for half in (False, True):
        rows = np.flatnonzero(subsampled == half)
        if len(rows):
            here = torch.from_numpy(rows).to(images.device)
            out.index_copy_(0, here, _compressed(images[here], quality[rows], subsampled=half))
    return out


def quantisation(quality: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 3, 64): the steps of Y, Cb and Cr at each quality, as the Independent JPEG Group scales them."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    tables = np.stack([_LUMINANCE, _CHROMINANCE, _CHROMINANCE]).reshape(3, 64)
    steps: NDArray[np.float64] = np.clip((tables * scale + 50) // 100, 1, 255).astype(np.float64)
    return steps


def _compressed(x: torch.Tensor, quality: NDArray[np.int64], *, subsampled: bool) -> torch.Tensor:
    height, width = x.shape[2:]
    unit = 16 if subsampled else 8
    steps = _like(quantisation(quality), x)[:, :, None]
    x = F.pad(x.clamp(0, 255).round_(), (0, -width % unit, 0, -height % unit), mode="replicate")
    ycc = _mixed(_YCC_FROM_RGB, x)
    ycc[:, 0] -= 128
    ycc.round_()
    if subsampled:
        luma = _quantised(ycc[:, :1], steps[:, :1])
        # libjpeg rounds the mean of 4 px down and up by turns, and smooths on the way back ("fancy upsampling").
        means = F.avg_pool2d(ycc[:, 1:], 2)
        means[..., ::2].add_(0.25)
        means[..., 1::2].add_(0.5)
        chroma = _quantised(means.floor_(), steps[:, 1:])
        ycc = torch.cat([luma, F.interpolate(chroma, scale_factor=2, mode="bilinear").round_()], dim=1)
    else:
        ycc = _quantised(ycc, steps)
    ycc[:, 0] += 128
    return _mixed(np.linalg.inv(_YCC_FROM_RGB), ycc)[:, :, :height, :width].round().clamp_(0, 255)


def _quantised(planes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Planes (n, c, h, w) of whole blocks, around 0, their DCT coefficients rounded to steps (n, c, 1, 64)."""
    n, channels, height, width = planes.shape
    grid = (n, channels, height // 8, width // 8, 8, 8)
    blocks = planes.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4).reshape(n, channels, -1, 64)
    dct = _like(_DCT, planes)
    # libjpeg's coefficients are whole eighths, and so often lie exactly between two steps, where it rounds away from 0.
    coefficients = (blocks @ dct.T).mul_(8).round_().mul_((1 + 1e-5) / 8)
    blocks = coefficients.div_(steps).round_().mul_(steps) @ dct
    return blocks.view(grid).transpose(3, 4).reshape(planes.shape).round_().clamp_(-128, 127)


def _mixed(matrix: NDArray[np.float64], x: torch.Tensor) -> torch.Tensor:
    return (_like(matrix, x) @ x.flatten(2)).view(x.shape)


def _like(values: NDArray[np.float64], x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(x.device, x.dtype)


def _dct_of_blocks() -> NDArray[np.float64]:
    """(64, 64): the two-dimensional DCT-II of 8 × 8 px in one orthonormal matrix (T.81, A.3.3)."""
    wave = np.cos(np.pi / 8 * np.outer(np.arange(8), np.arange(8) + 0.5)) / 2
    wave[0] /= np.sqrt(2)
    return np.asarray(np.kron(wave, wave), np.float64)


_DCT: Final = _dct_of_blocks()
