"""Imposters: cells that look like mitotic figures to the hasty eye.

The list follows the mimics in Donovan et al. (2021), Veterinary Pathology 58(2), 243–257.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.noise import Field
from mitoray.phantom.sprites import Sheet, Sprite, inside


def _dying(sheet: Sheet, domain: PhantomDomain, globules: Field, rng: np.random.Generator) -> Sprite:
    """Smooth dark globules in shrunken, glowing pink cytoplasm with a halo around it."""
    outline = sheet.ellipse((0, 0), (rng.uniform(4.4, 6.2), rng.uniform(3.8, 5.2)), rng.uniform(0, np.pi), 0.1)
    cytoplasm = inside(outline, 0.7)
    # The cell has shrunk away from its neighbours, more on one side than on the other.
    aside = rng.normal(0, 0.8, 2)
    halo = inside(sheet.ellipse((aside[0], aside[1]), (6.6, 6.0), rng.uniform(0, np.pi), 0.08), 1.4)
    halo = np.maximum(halo * rng.uniform(0.35, 0.9), cytoplasm)
    return sheet.sprite(
        domain.scanner.blur_um * rng.uniform(1.0, 1.5),
        keep_h=1 - 0.95 * halo,
        add_h=rng.uniform(1.2, 1.75) * globules + 0.08 * cytoplasm,
        keep_e=1 - 0.95 * halo,
        add_e=(rng.uniform(0.42, 0.68) + 0.04 * sheet.grain(1.0)) * cytoplasm * (1 - 0.5 * globules),
        chromatin=globules,
    )


def _pyknotic(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    sheet = Sheet(rng, 10.0, domain.mpp)
    radius = rng.uniform(2.0, 3.3)
    return _dying(
        sheet,
        domain,
        inside(sheet.ellipse((0, 0), (radius, radius * rng.uniform(0.75, 1)), rng.uniform(0, np.pi), 0.05), 0.35),
        rng,
    )


def _apoptotic(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    sheet = Sheet(rng, 10.0, domain.mpp)
    globules = np.zeros_like(sheet.x)
    for _ in range(rng.integers(3, 7)):
        away, around, radius = rng.uniform(0.5, 3.2), rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.6)
        disc = sheet.ellipse((away * np.cos(around), away * np.sin(around)), (radius, radius))
        globules = np.maximum(globules, inside(disc, 0.35))
    return _dying(sheet, domain, globules, rng)


def _hyperchromatic(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    long, short = rng.uniform(4.2, 6.8), rng.uniform(1.9, 2.9)
    sheet = Sheet(rng, long + 3, domain.mpp)
    outline = sheet.ellipse((0, 0), (long, short), rng.uniform(0, np.pi), rng.uniform(0.05, 0.18))
    body = inside(outline, 0.4)
    return sheet.sprite(
        domain.scanner.blur_um,
        keep_h=1 - body,
        add_h=body
        * np.clip(rng.uniform(0.95, 1.4) + 0.1 * sheet.grain(1.2), 0.5, 2)
        * (0.85 + 0.15 * inside(-outline - 0.6)),
        keep_e=1 - 0.3 * body,
        add_e=0.1 * body,
        chromatin=body,
    )


def _smudged(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    radius = rng.uniform(3.2, 4.6)
    sheet = Sheet(rng, radius + 5, domain.mpp)
    body = inside(sheet.ellipse((0, 0), (radius, radius * rng.uniform(0.6, 0.95)), rng.uniform(0, np.pi), 0.1), 1.5)
    return sheet.sprite(
        domain.scanner.blur_um + rng.uniform(0.7, 1.1),
        keep_h=1 - body,
        add_h=body * rng.uniform(1.0, 1.4),
        keep_e=1 - 0.4 * body,
        add_e=0.1 * body,
        chromatin=body,
    )


def _pigment(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    sheet = Sheet(rng, 9.0, domain.mpp)
    grains = np.zeros_like(sheet.x)
    spread = rng.uniform(1.2, 2.4)
    for x, y, radius in zip(*rng.normal(0, spread, (2, 30)), rng.uniform(0.25, 0.7, 30), strict=True):
        grains = np.maximum(grains, inside(sheet.ellipse((x, y), (radius, radius)), 0.3))
    return sheet.sprite(domain.scanner.blur_um, add_h=1.6 * grains, add_e=1.1 * grains, chromatin=grains)


def _dark_lymphocyte(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    radius = rng.uniform(2.9, 3.5)
    sheet = Sheet(rng, radius + 3, domain.mpp)
    outline = sheet.ellipse((0, 0), (radius, radius * rng.uniform(0.88, 1)), rng.uniform(0, np.pi), 0.02)
    body = inside(outline, 0.35)
    return sheet.sprite(
        domain.scanner.blur_um,
        keep_h=1 - inside(outline - 0.6, 0.8),
        add_h=body * np.clip(rng.uniform(1.1, 1.4) + 0.2 * sheet.grain(1.1), 0.6, 1.8),
        keep_e=1 - 0.7 * inside(outline - 0.9, 0.8),
        add_e=0.1 * body,
        chromatin=body,
    )


IMPOSTERS: Final[dict[str, Callable[[np.random.Generator, PhantomDomain], Sprite]]] = {
    "pyknotic": _pyknotic,
    "apoptotic": _apoptotic,
    "hyperchromatic": _hyperchromatic,
    "smudged": _smudged,
    "pigment": _pigment,
    "lymphocyte": _dark_lymphocyte,
}
SHARES: Final = (0.2, 0.2, 0.25, 0.15, 0.08, 0.12)


def imposter(rng: np.random.Generator, domain: PhantomDomain, form: str) -> Sprite:
    """An imposter of a form named in `IMPOSTERS`."""
    return IMPOSTERS[form](rng, domain)
