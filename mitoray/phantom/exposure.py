"""The scanner's part: planes of stain on the glass, and what light makes of them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.phantom.domains import PhantomDomain, Stain
from mitoray.phantom.noise import Field, enlarge, periodic_noise
from mitoray.phantom.tissue import Tissue

OPTICAL_DENSITY: Final = 1.65
"""Natural-logarithmic density of one unit of stain."""

_STRIP_PX: Final = 256


def stain_planes(rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue, shape: tuple[int, int]) -> Field:
    """(2, height, width) float32: haematoxylin and eosin of the ground at the scanner's resolution, with fine grain."""
    planes = np.empty((2, *shape), dtype=np.float32)
    fine, coarse = 0.4 / domain.mpp, 1.2 / domain.mpp
    grain = 0.11 * periodic_noise(rng, (_STRIP_PX, 1024), (fine, fine))
    grain += 1 + 0.09 * periodic_noise(rng, (_STRIP_PX, 1024), (coarse, coarse))
    grain = np.tile(grain, (1, shape[1] // 1024 + 1))[:, : shape[1]]
    for plane, ground in zip(planes, (tissue.haematoxylin, tissue.eosin), strict=True):
        scale = ground.shape[0] / shape[0]
        for top in range(0, shape[0], _STRIP_PX):
            rows = min(_STRIP_PX, shape[0] - top)
            strip = enlarge(ground, (rows, shape[1]), (top * scale, (top + rows) * scale))
            np.multiply(strip, grain[:rows], out=plane[top : top + rows])
    return planes


def stamp(planes: Field, layers: Field, left: int, top: int) -> None:
    """Lay a sprite over the planes, as far as it lies within them."""
    height, width = planes.shape[1:]
    rows = slice(max(top, 0), min(top + layers.shape[1], height))
    columns = slice(max(left, 0), min(left + layers.shape[2], width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = layers[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    under = planes[:, rows, columns]
    under *= part[::2]
    under += part[1::2]


def expose(rng: np.random.Generator, domain: PhantomDomain, planes: Field) -> NDArray[np.uint8]:
    """The scanner's image (height, width, 3) uint8, by the law of Beer and Lambert, with sensor noise."""
    height, width = planes.shape[1:]
    density = optical_densities(domain.stain)
    noise = rng.standard_normal((_STRIP_PX, width), dtype=np.float32) * np.float32(domain.scanner.noise) + 0.5
    image = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _STRIP_PX):
        h, e = planes[:, top : top + _STRIP_PX]
        for channel, white in enumerate(domain.scanner.white):
            light = h * -density[channel, 0]
            light -= e * density[channel, 1]
            np.exp(light, out=light)
            light *= white
            light += np.roll(noise, int(rng.integers(width)), axis=1)[: len(h)]
            image[top : top + _STRIP_PX, :, channel] = np.clip(light, 0, 255, out=light)
    return image


def optical_densities(stain: Stain) -> NDArray[np.float32]:
    """(3, 2) float32: natural-logarithmic optical density per channel of one unit of haematoxylin and of eosin."""
    vectors = np.array([stain.haematoxylin, stain.eosin]).T
    strengths = np.array([stain.haematoxylin_strength, stain.eosin_strength])
    return np.asarray(vectors * strengths * OPTICAL_DENSITY, dtype=np.float32)
