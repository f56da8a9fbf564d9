"""Orientation, shape and resolution of patches, their figures moved along."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Floats = NDArray[np.float64]


def turned(
    images: torch.Tensor, centres_px: torch.Tensor, turns: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images flipped and turned by 90°, no pixel changed.

    images: (n, 3, s, s). centres_px: (n, k, 2). turns: (n,) in 0 to 7, one for each symmetry of the square: 1 flips x,
    2 flips y, 4 then swaps the two.
    """
    images, centres_px, last = images.clone(), centres_px.clone(), images.shape[-1] - 1
    for bit, axis in ((1, 0), (2, 1)):
        rows = _rows(turns & bit, images.device)
        images[rows] = images[rows].flip(-1 - axis)
        rows = rows.to(centres_px.device)
        centres_px[rows, :, axis] = last - centres_px[rows, :, axis]
    rows = _rows(turns & 4, images.device)
    images[rows] = images[rows].transpose(-1, -2)
    rows = rows.to(centres_px.device)
    centres_px[rows] = centres_px[rows].flip(-1)
    return images, centres_px


def affine(
    rotation_degrees: Floats, scale: Floats, shear: Floats | float = 0.0, translation_px: Floats | float = 0.0
) -> Floats:
    """(n, 2, 3) float64: for each image, where its points (x, y) go, in px from its centre.

    rotation_degrees, scale: (n,); a scale above 1 makes figures larger. shear: (n, 2), px that x moves by per px of y,
    and y per px of x. translation_px: (n, 2). The shear comes first, the translation last.
    """
    n = len(scale)
    shear, translation_px = np.broadcast_to(shear, (n, 2)), np.broadcast_to(translation_px, (n, 2))
    turn = np.radians(rotation_degrees)
    rotation = scale[:, None, None] * np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], 1).reshape(
        n, 2, 2
    )
    ones = np.ones(n)
    sheared = np.stack([ones, shear[:, 0], shear[:, 1], ones], 1).reshape(n, 2, 2)
    return np.concatenate([rotation @ sheared, translation_px[:, :, None]], axis=2)


def followed(first: Floats, then: Floats) -> Floats:
    """(n, 2, 3): both affine changes in one."""
    linear = then[:, :, :2]
    return np.concatenate([linear @ first[:, :, :2], linear @ first[:, :, 2:] + then[:, :, 2:]], axis=2)


def warped(images: torch.Tensor, centres_px: torch.Tensor, change: Floats) -> tuple[torch.Tensor, torch.Tensor]:
    """The images resampled once, bilinearly, mirrored beyond their borders; images that do not change are left exact.

    images: float32 (n, 3, s, s). change: (n, 2, 3), as `affine` gives. A centre that leaves the view keeps its place
    outside it. A figure near the border may show in the mirrored margin as well, where it has no centre.
    """
    moved = np.flatnonzero(np.abs(change - np.eye(2, 3)).max(axis=(1, 2)) > 1e-9)
    if not len(moved):
        return images, centres_px
    side, rows = images.shape[-1], torch.from_numpy(moved)
    linear = change[moved, :, :2]
    back = np.linalg.inv(linear)
    # grid_sample measures in half sides from the centre, so only the translation has to be rescaled.
    back = np.concatenate([back, back @ change[moved, :, 2:] * (-2 / side)], axis=2)
    theta = torch.from_numpy(back).to(images.device, torch.float32)
    grid = F.affine_grid(theta, [len(moved), 3, side, side], align_corners=False)
    here = rows.to(images.device)
    images = images.index_copy(
        0, here, F.grid_sample(images[here], grid, padding_mode="reflection", align_corners=False)
    )
    there, middle = rows.to(centres_px.device), (side - 1) / 2
    forward = torch.from_numpy(change[moved]).to(centres_px.device, torch.float32)
    points = torch.einsum("nij,nkj->nki", forward[:, :, :2], centres_px[there] - middle)
    return images, centres_px.index_copy(0, there, points + forward[:, None, :, 2] + middle)


def resized(images: torch.Tensor, centres_px: torch.Tensor, side_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same views at another resolution: float32 (n, 3, side_px, side_px), anti-aliased when it gets coarser."""
    side = images.shape[-1]
    if side_px == side:
        return images, centres_px
    if side_px < side:
        images = F.interpolate(images, size=side_px, mode="bilinear", antialias=True)
    else:
        images = F.interpolate(images, size=side_px, mode="bicubic").clamp_(0, 255)
    return images, (centres_px + 0.5) * (side_px / side) - 0.5


def _rows(flags: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(flags)).to(device)
