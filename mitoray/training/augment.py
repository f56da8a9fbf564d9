"""Random changes of a batch that other scanners, stains and file formats would make."""

from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mitoray.training.patches import Patches

_Change = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]

_HED_FROM_RGB: Final = torch.tensor(
    np.linalg.inv([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]), dtype=torch.float32
)
"""Stain amounts from optical densities: haematoxylin, eosin, DAB (Ruifrok and Johnston 2001)."""


def augment(batch: Patches, rng: np.random.Generator) -> Patches:
    """The batch with new orientation, resolution, sharpness, stain, light and compression, each image on its own dice.

    Deterministic given `rng`. Same shapes and dtypes as the input.
    """
    images, centres = _turn(batch.images, batch.centres_px, rng)
    x = images.float()
    x = _some(x, 0.3, rng, _resample)
    x = _some(x, 0.25, rng, _blur)
    x = _stain(x, rng)
    x = _light(x, rng)
    x = _some(x, 0.3, rng, _compress)
    return Patches(x.round_().clamp_(0, 255).to(torch.uint8), centres)


def _turn(images: torch.Tensor, centres: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    last = images.shape[-1] - 1
    flip_x, flip_y, transpose = torch.from_numpy(rng.random((3, len(images))) < 0.5)
    images = torch.where(flip_x[:, None, None, None], images.flip(-1), images)
    images = torch.where(flip_y[:, None, None, None], images.flip(-2), images)
    images = torch.where(transpose[:, None, None, None], images.transpose(-1, -2), images)
    flips = torch.stack([flip_x, flip_y], dim=1)[:, None]
    centres = torch.where(flips, last - centres, centres)
    return images, torch.where(transpose[:, None, None], centres.flip(-1), centres)


def _stain(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Scale and shift each stain's amount, after Tellez et al. 2018, §III-B."""
    n = len(x)
    density = -torch.log((x + 1) / 256)
    amounts = torch.einsum("nchw,cs->nshw", density, _HED_FROM_RGB)
    amounts = amounts * _uniform(rng, 0.75, 1.3, n, 3) + _uniform(rng, -0.03, 0.03, n, 3)
    return 256 * torch.exp(-torch.einsum("nshw,sc->nchw", amounts, torch.linalg.inv(_HED_FROM_RGB))) - 1


def _light(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    tint = _uniform(rng, -8, 8, n, 3)
    return (x - mean) * _uniform(rng, 0.8, 1.25, n, 1) + mean + _uniform(rng, -18, 18, n, 1) + tint


def _resample(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """As a scan at up to 0.6 µm/px looks once it is brought to 0.25."""
    size = x.shape[-1]
    factor = 0.5 if rng.random() < 0.5 else rng.uniform(0.4, 0.9)
    small = F.interpolate(x, size=round(size * factor), mode="bilinear", antialias=True)
    return F.interpolate(small, size=size, mode="bicubic").clamp(0, 255)


def _blur(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    sigma = rng.uniform(0.5, 1.5)
    kernel = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2 * sigma**2)).repeat(3, 1, 1, 1)
    kernel /= kernel[0].sum()
    x = F.conv2d(F.pad(x, (4, 4, 0, 0), mode="reflect"), kernel, groups=3)
    return F.conv2d(F.pad(x, (0, 0, 4, 4), mode="reflect"), kernel.transpose(2, 3), groups=3)


def _compress(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    quality = rng.integers(40, 95, size=len(x))
    pixels = x.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    coded = np.stack([_through_jpeg(image, int(q)) for image, q in zip(pixels, quality, strict=True)])
    return torch.from_numpy(coded).permute(0, 3, 1, 2).float()


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _some(x: torch.Tensor, share: float, rng: np.random.Generator, change: _Change) -> torch.Tensor:
    chosen = torch.from_numpy(rng.random(len(x)) < share)
    if chosen.any():
        x[chosen] = change(x[chosen], rng)
    return x


def _uniform(rng: np.random.Generator, low: float, high: float, n: int, channels: int) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(low, high, (n, channels, 1, 1))).float()
