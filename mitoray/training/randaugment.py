"""RandAugment for haematoxylin and eosin."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.training.augment_colour import ColourChange
from mitoray.training.augment_geometry import affine, followed

Floats = NDArray[np.float64]

OPERATIONS: Final = (
    "identity",
    "translate_x",
    "translate_y",
    "shear_x",
    "shear_y",
    "rotate",
    "brightness",
    "contrast",
    "color",
    "sharpness",
    "hsv",
    "hed",
)
"""Those of Faryna et al. 2021 without Equalize, whose outcome hangs on how much glass is in the view; they had left out
Posterize, Solarize and Invert, which no laboratory makes."""
MAX_MAGNITUDE: Final = 10.0
SMOOTH_SIGMA_PX: Final = 0.68
"""Of a Gaussian as wide as the 3 × 3 kernel that PIL's Sharpness blends with."""


@dataclass(frozen=True, eq=False)
class Policy:
    """What RandAugment does to n images, gathered by kind, since operations of different kinds change places freely.

    geometry: (n, 2, 3), as `affine` gives. sharpness: (n,), the amount of an unsharp mask of SMOOTH_SIGMA_PX.
    """

    geometry: Floats
    colour: ColourChange
    sharpness: Floats


def draw_policy(rng: np.random.Generator, n: int, operations: int, magnitude: float) -> Policy:
    """`operations` random ones after another for each of `n` images, each at a random magnitude from 0 to `magnitude`.

    At MAX_MAGNITUDE: 10 px of translation, a shear of 0.3, 30° of rotation, factors 1 ± 0.9 of brightness, contrast,
    colour and sharpness; at most 0.3 turns of hue, ± 0.3 of saturation and of each stain, and a tenth of that as the
    stain's shift. After Cubuk et al. 2020 and Faryna et al. 2021, whose factors run from 0.1 to 1.9 and so darken and
    pale every image at small magnitudes; here both directions are as likely at any magnitude.
    """
    geometry = affine(np.zeros(n), np.ones(n))
    colour = ColourChange.none(n)
    sharpness = np.zeros(n)
    for _ in range(operations):
        drawn = rng.integers(len(OPERATIONS), size=n)
        strength = rng.uniform(0, magnitude / MAX_MAGNITUDE, n)
        signed = strength * rng.choice([-1.0, 1.0], n)
        jitter = strength[:, None] * rng.uniform(-0.3, 0.3, (n, 6))
        of = {name: drawn == i for i, name in enumerate(OPERATIONS)}
        factor = {name: 1 + 0.9 * (signed * of[name])[:, None] for name in ("brightness", "contrast", "color")}
        shear = 0.3 * signed[:, None] * np.column_stack([of["shear_x"], of["shear_y"]])
        translation_px = 10 * signed[:, None] * np.column_stack([of["translate_x"], of["translate_y"]])
        geometry = followed(geometry, affine(30 * signed * of["rotate"], np.ones(n), shear, translation_px))
        hed, hsv = jitter * of["hed"][:, None], jitter * of["hsv"][:, None]
        colour = colour.stain(1 + hed[:, :3], 0.1 * hed[:, 3:]).hue(hsv[:, :1]).saturation(1 + hsv[:, 1:2])
        colour = colour.brightness(factor["brightness"]).contrast(factor["contrast"]).saturation(factor["color"])
        sharpness += 0.9 * signed * of["sharpness"]
    return Policy(geometry, colour, sharpness)
