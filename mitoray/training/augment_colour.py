"""Stain and light: what changes the colours of an image, and no pixel's place.

Every change here is linear, either in optical density (stain, gamma) or in grey values (contrast, tint, hue, ...), so
any number of them costs one product with a 3 × 3 matrix per image and kind.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_DENSITY: Final[Floats] = np.asarray(np.linalg.inv(_STAINS).T, np.float64)
"""Amounts of haematoxylin, eosin and DAB from the optical densities of R, G, B (Ruifrok and Johnston 2001)."""
DENSITY_FROM_HED: Final[Floats] = np.asarray(np.linalg.inv(HED_FROM_DENSITY), np.float64)
LUMA: Final[Floats] = np.array([0.299, 0.587, 0.114])
"""Of R, G, B in grey (ITU-R BT.601), as in PIL."""


@dataclass(frozen=True, eq=False)
class ColourChange:
    """What happens to the colours of n images: first in optical density, then in light.

    density (n, 3, 3), density_shift (n, 3): density' = density · D + density_shift, with D = -ln((x + 1) / 256).
    light, around_mean (n, 3, 3), light_shift (n, 3): x' = light · x + around_mean · mean + light_shift, with the mean
    colour of the image. Grey values 0 to 255 are clipped once, after all of it. Each method gives the change with one
    more of its kind behind it, its values neutral for images that stay as they are.
    """

    density: Floats
    density_shift: Floats
    light: Floats
    around_mean: Floats
    light_shift: Floats

    @classmethod
    def none(cls, n: int) -> "ColourChange":
        """Nothing, for `n` images."""
        same, nought = np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3))
        return cls(same, nought, same, np.zeros((n, 3, 3)), nought)

    def followed_by(self, other: "ColourChange") -> "ColourChange":
        """Both changes, the densities of both before the light of both."""
        both = self._in_density(other.density, other.density_shift)
        return both._in_light(other.light, other.around_mean, other.light_shift)

    def stain(self, scale: Floats, shift: Floats) -> "ColourChange":
        """Scale and shift, both (n, 3), the amount of each stain (Tellez et al. 2018, §III-B)."""
        matrix = DENSITY_FROM_HED @ (scale[:, :, None] * HED_FROM_DENSITY)
        return self._in_density(matrix, shift @ DENSITY_FROM_HED.T)

    def gamma(self, gamma: Floats) -> "ColourChange":
        """Raise the light of each channel to a power, (n, 3) or (n, 1): as if there were so much more of all stain."""
        return self._in_density(gamma[:, :, None] * np.eye(3), np.zeros_like(self.density_shift))

    def brightness(self, factor: Floats) -> "ColourChange":
        """Multiply the light, (n, 1)."""
        return self._in_light(factor[:, :, None] * np.eye(3))

    def tint(self, shift: Floats) -> "ColourChange":
        """Add grey values to each channel, (n, 3) or (n, 1)."""
        return self._in_light(np.eye(3), shift=np.broadcast_to(shift, self.light_shift.shape))

    def contrast(self, factor: Floats) -> "ColourChange":
        """Stretch around the mean grey of the image, (n, 1)."""
        scale = factor[:, :, None]
        return self._in_light(scale * np.eye(3), (1 - scale) * np.full((3, 3), 1 / 3))

    def saturation(self, factor: Floats) -> "ColourChange":
        """Stretch around the grey of each pixel, (n, 1)."""
        scale = factor[:, :, None]
        return self._in_light(scale * np.eye(3) + (1 - scale) * LUMA)

    def crosstalk(self, shares: Floats) -> "ColourChange":
        """Let each channel see shares, (n, 3, 3), of the others' light; grey stays grey."""
        matrix = np.eye(3) + shares
        return self._in_light(matrix / matrix.sum(axis=2, keepdims=True))

    def hue(self, turns: Floats) -> "ColourChange":
        """Turn around the grey axis of the colour cube, (n, 1): 1/3 makes red green."""
        angle = 2 * np.pi * turns[:, :, None]
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        grey = np.full((3, 3), 1 / 3)
        return self._in_light(np.cos(angle) * (np.eye(3) - grey) + grey + np.sin(angle) * across)

    def _in_density(self, matrix: Floats, shift: Floats) -> "ColourChange":
        density_shift = np.einsum("nij,nj->ni", matrix, self.density_shift) + shift
        return ColourChange(matrix @ self.density, density_shift, self.light, self.around_mean, self.light_shift)

    def _in_light(self, matrix: Floats, of_mean: Floats | float = 0.0, shift: Floats | float = 0.0) -> "ColourChange":
        # The mean colour goes the way of the colours, so a later pivot is a function of the first mean.
        of_mean = np.broadcast_to(of_mean, self.light.shape)
        matrix = np.broadcast_to(matrix, self.light.shape)
        around_mean = matrix @ self.around_mean + of_mean @ (self.light + self.around_mean)
        light_shift = np.einsum("nij,nj->ni", matrix + of_mean, self.light_shift) + shift
        return ColourChange(self.density, self.density_shift, matrix @ self.light, around_mean, light_shift)


def recoloured(images: torch.Tensor, change: ColourChange) -> torch.Tensor:
    """The images with that change: float32 (n, 3, h, w), 0 to 255; images that do not change are left exact."""
    in_density = _differs(change.density, np.eye(3)) | _differs(change.density_shift, 0)
    in_light = _differs(change.light, np.eye(3)) | _differs(change.around_mean, 0) | _differs(change.light_shift, 0)
    rows = np.flatnonzero(in_density | in_light)
    if not len(rows):
        return images
    if len(rows) == len(images):
        return _recoloured(images, change, rows, in_density.any())
    here = torch.from_numpy(rows).to(images.device)
    return images.index_copy(0, here, _recoloured(images[here], change, rows, in_density.any()))


def _recoloured(x: torch.Tensor, change: ColourChange, rows: NDArray[np.int64], in_density: np.bool_) -> torch.Tensor:
    def on_device(values: Floats) -> torch.Tensor:
        return torch.from_numpy(values[rows]).to(x.device, torch.float32)

    shape, pixels = x.shape, x.flatten(2)
    if in_density:
        # x + 1 = 256 exp(-D): the constants go into the shift.
        shift = np.log(256) * (1 - change.density.sum(axis=2)) - change.density_shift
        pixels = torch.baddbmm(on_device(shift)[:, :, None], on_device(change.density), pixels.log1p())
        pixels = pixels.expm1()
    mean = pixels.mean(dim=2, keepdim=True)
    light_shift = torch.baddbmm(on_device(change.light_shift)[:, :, None], on_device(change.around_mean), mean)
    return torch.baddbmm(light_shift, on_device(change.light), pixels).clamp_(0, 255).view(shape)


def _differs(values: Floats, neutral: Floats | float) -> NDArray[np.bool_]:
    """bool (n,): the images whose values are not neutral."""
    away = np.abs(values - neutral).reshape(len(values), -1).max(axis=1)
    return np.asarray(away > 1e-9, np.bool_)
