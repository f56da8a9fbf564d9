"""Nuclei between divisions, and the other small things of tissue: the crowd in which mitotic figures hide."""

import numpy as np

from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.sprites import Sheet, Sprite, inside


def tumour_nucleus(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    """An interphase nucleus: membrane, chromatin, nucleoli."""
    tumour = domain.tumour
    diameter = tumour.nucleus_um * np.exp(rng.normal(0, tumour.nucleus_spread))
    ratio = 1 + (tumour.elongation - 1) * rng.gamma(4, 0.25)
    long, short = diameter / 2 * np.sqrt(ratio), diameter / 2 / np.sqrt(ratio)
    sheet = Sheet(rng, long * 1.25 + 1.5, domain.mpp)
    angle = rng.uniform(0, np.pi)
    outline = sheet.ellipse((0, 0), (long, short), angle, wobble=rng.uniform(0.02, 0.09))
    vesicular = np.clip(tumour.vesicular + rng.normal(0, 0.15), 0, 1)
    body = inside(outline, 0.5)
    clumps = np.clip(0.9 * sheet.grain(rng.uniform(0.6, 1.0)) + 0.6 * sheet.grain(1.8), -1.7, 2.4)
    density = (0.64 - 0.28 * vesicular) * (1 + (0.27 + 0.3 * vesicular) * clumps)
    rim = np.exp(-(((outline + 0.3) / 0.38) ** 2)) * (0.28 + 0.3 * vesicular) * np.clip(1 + 0.4 * clumps, 0.3, 2)
    nucleoli = np.zeros_like(body)
    for _ in range(rng.poisson(0.6 + 1.2 * vesicular)):
        away, towards = long * 0.5 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(0.45, 0.7 + 0.5 * vesicular)
        spot = sheet.ellipse((away * np.cos(towards), away * np.sin(towards)), (radius, radius * 0.9), towards, 0.1)
        nucleoli = np.maximum(nucleoli, inside(spot, 0.6) * rng.uniform(0.4, 0.7))
    tint = np.exp(rng.normal(0, 0.16))
    return sheet.sprite(
        domain.scanner.blur_um * rng.uniform(1.0, 1.5),
        keep_h=1 - 0.8 * body,
        add_h=((np.clip(density, 0.1, None) + nucleoli) * body + rim) * tint,
        keep_e=1 - 0.4 * body,
        add_e=0.1 * body + 0.2 * nucleoli,
    )


def lymphocyte(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    """A small, round, dark nucleus with coarse clumps."""
    radius = rng.normal(3.0, 0.25)
    sheet = Sheet(rng, radius + 2, domain.mpp)
    outline = sheet.ellipse((0, 0), (radius, radius * rng.uniform(0.85, 1)), rng.uniform(0, np.pi), 0.03)
    body = inside(outline, 0.4)
    return sheet.sprite(
        domain.scanner.blur_um,
        keep_h=1 - body,
        add_h=body * np.clip(rng.uniform(0.85, 1.1) + 0.16 * sheet.grain(1.0), 0.4, 1.5),
        keep_e=1 - 0.7 * inside(outline - 0.7, 0.8),
        add_e=0.1 * body,
    )


def fibroblast(rng: np.random.Generator, domain: PhantomDomain, angle: float) -> Sprite:
    """A thin spindle nucleus that lies along `angle` (radians, from x towards y)."""
    long, short = rng.uniform(4.0, 8.5), rng.uniform(0.8, 2.0)
    sheet = Sheet(rng, long + 1.5, domain.mpp)
    outline = sheet.ellipse((0, 0), (long, short), angle, 0.06)
    body = inside(outline, 0.6)
    return sheet.sprite(
        domain.scanner.blur_um,
        keep_h=1 - body,
        add_h=body * np.clip(rng.uniform(0.55, 0.85) + 0.14 * sheet.grain(0.8), 0.2, 1.3),
        keep_e=1 - 0.5 * body,
    )


def red_blood_cell(rng: np.random.Generator, domain: PhantomDomain) -> Sprite:
    """An eosinophilic disc without a nucleus, paler at its centre."""
    radius = rng.uniform(2.6, 3.3)
    sheet = Sheet(rng, radius + 1.5, domain.mpp)
    outline = sheet.ellipse((0, 0), (radius, radius * rng.uniform(0.75, 1)), rng.uniform(0, np.pi), 0.05)
    body = inside(outline, 0.5)
    dome = np.clip(-outline / radius, 0, 1)
    return sheet.sprite(domain.scanner.blur_um, keep_h=1 - body, keep_e=1 - body, add_e=body * (0.95 - 0.35 * dome))
