"""Images of a batch take over each other's stain, so that no colour goes with a class.

Where the examples of a class come from few slides, their colour gives them away: a network then learns the colour, and
calls whatever a new laboratory stains like them by their name. Colour jitter around each image's own colour keeps much
of that; taking over another image's leaves nothing of it.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TISSUE_DENSITY: Final = 0.25
"""Summed optical density of R, G, B from which a pixel is tissue; glass lies near 0.1."""
_LEAST_TISSUE: Final = 0.1
"""Of an image's pixels: with less, it has no colour to give or to change."""
_GAIN: Final = (0.35, 2.8)


def mean_density(x: torch.Tensor) -> tuple[Floats, Floats]:
    """Mean optical density -ln((x + 1) / 256) of the tissue in each image, (n, 3), and its share of the pixels, (n,).

    x: float (n, 3, h, w), 0 to 255. Images without tissue have density 0.
    """
    density = -torch.log((x.clamp(0, 255) + 1) / 256)
    tissue = (density.sum(1, keepdim=True) > _TISSUE_DENSITY).to(x.dtype)
    pixels = tissue.sum((2, 3))
    mean = (density * tissue).sum((2, 3)) / pixels.clamp(min=1)
    share = pixels[:, 0] / (x.shape[2] * x.shape[3])
    return mean.cpu().numpy().astype(np.float64), share.cpu().numpy().astype(np.float64)


def exchange_gains(
    density: Floats, share: Floats, rng: np.random.Generator, probability: float, strength: tuple[float, float]
) -> Floats:
    """Factors (n, 3) of the optical densities, by which images look stained as another one of the batch.

    density (n, 3), share (n,): see `mean_density`. strength: 0 leaves the image, 1 gives it the other's mean density;
    drawn for each. Images without enough tissue neither give nor take.
    """
    able = np.flatnonzero(share > _LEAST_TISSUE)
    other = np.arange(len(density))
    other[able] = rng.permutation(able)
    taken = (rng.random(len(density)) < probability) & (share > _LEAST_TISSUE)
    power = np.where(taken, rng.uniform(*strength, len(density)), 0.0)[:, None]
    ratio = np.divide(density[other], density, out=np.ones_like(density), where=density > 0)
    gains: Floats = np.clip(ratio, *_GAIN) ** power
    return gains
