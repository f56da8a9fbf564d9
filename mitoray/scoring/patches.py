"""Patches around points of a region's image, cut where the image is."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mitoray.models.classifier import PADDING
from mitoray.slide.window import FILTER_SUPPORT, SAME_RESOLUTION


def reach_px(patch_px: int) -> int:
    """How far from its centre a patch looks at most, px of its own: half its side, the filter's margin, a rounding."""
    return patch_px // 2 + FILTER_SUPPORT + 1


def patches_around(
    image: torch.Tensor, xy_px: NDArray[np.float64], *, image_mpp: float, mpp: float, patch_px: int
) -> torch.Tensor:
    """Patches at `mpp` µm/px centred on points: uint8 (n, 3, patch_px, patch_px), on the image's device.

    image: uint8 (h, w, 3). xy_px: (n, 2), px of the image. Pixels are given as they are where `mpp` is no more than 3 %
    coarser than the image, as slides do, or else resampled as slides are, with anti-aliasing. Beyond the image: white.
    """
    if mpp <= image_mpp * (1 + SAME_RESOLUTION):
        return _cut(image, xy_px, patch_px)
    # The filter looks past the patch: without real pixels there, its border would not be that of the slide.
    wider_px = patch_px + 2 * FILTER_SUPPORT
    crops = _cut(image, xy_px, round(wider_px * mpp / image_mpp)).to(torch.float32)
    resized = F.interpolate(crops, size=(wider_px, wider_px), mode="bicubic", antialias=True, align_corners=False)
    inner = slice(FILTER_SUPPORT, FILTER_SUPPORT + patch_px)
    return resized[:, :, inner, inner].round_().clamp_(0, 255).to(torch.uint8)


def _cut(image: torch.Tensor, xy_px: NDArray[np.float64], side_px: int) -> torch.Tensor:
    """Squares of image px, uint8 (n, 3, side_px, side_px), whose middles are as near to the points as they can be."""
    height, width = image.shape[:2]
    first = torch.from_numpy(np.ceil(np.asarray(xy_px, np.float64).reshape(-1, 2) - side_px / 2)).to(image.device)
    span = torch.arange(side_px, device=image.device)
    columns, rows = (first[:, axis, None].long() + span for axis in (0, 1))
    inside_x, inside_y = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
    pixels = image[rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    pixels[~(inside_y[:, :, None] & inside_x[:, None, :])] = PADDING
    return pixels.permute(0, 3, 1, 2)
