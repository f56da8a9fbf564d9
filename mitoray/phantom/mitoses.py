"""Mitotic figures, drawn chromosome by chromosome, phase by phase.

The phases and the atypical forms follow Donovan et al. (2021), "Mitotic Figures—Normal, Atypical, and Mimics: A Guide
to Identification", Veterinary Pathology 58(2), 243–257.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.noise import Field
from mitoray.phantom.sprites import Sheet, Sprite, inside

Rods = NDArray[np.float64]
"""(n, 5) float64: x0, y0, x1, y1, thickness of chromosome arms in µm, before the figure is turned."""


def _arms(rng: np.random.Generator, xy: NDArray[np.float64], length: float, thickness: float) -> Rods:
    """Short rods in all directions, centred at the (n, 2) points."""
    angle = rng.uniform(0, np.pi, len(xy))
    reach = (length * rng.uniform(0.6, 1.2, len(xy)) / 2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.column_stack([xy - reach, xy + reach, thickness * rng.uniform(0.8, 1.25, len(xy))])


def _plate(
    rng: np.random.Generator,
    length: float,
    thickness: float,
    *,
    at: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    bend: float = 0.0,
) -> Rods:
    """A dense bar of parallel arms along y, with ragged flanks; `bend` moves its ends by so many µm along x."""
    place = np.linspace(-1, 1, max(5, int(length / 0.55)))
    arm = thickness * rng.uniform(0.55, 1.15, len(place)) * (1 - 0.25 * place**2)
    slant = rng.normal(0, 0.25, len(place))
    x = bend * place**2 + rng.normal(0, 0.1, len(place)) * thickness
    y = place * length / 2
    ends = np.stack([x - arm / 2, y - slant * arm, x + arm / 2, y + slant * arm], axis=1).reshape(-1, 2, 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([(ends @ turn + at).reshape(-1, 4), rng.uniform(0.9, 1.25, len(place))])


def _late_prophase(rng: np.random.Generator) -> Rods:
    radius = rng.uniform(3.8, 4.8)
    away, around = radius * np.sqrt(rng.random(34)), rng.uniform(0, 2 * np.pi, 34)
    return _arms(rng, np.stack([away * np.cos(around), away * 0.85 * np.sin(around)], axis=1), 1.9, 0.75)


def _prometaphase(rng: np.random.Generator) -> Rods:
    away, around = rng.normal(2.4, 0.9, 26), rng.uniform(0, 2 * np.pi, 26)
    squeeze = rng.uniform(0.65, 1.0)
    return _arms(rng, np.stack([away * np.cos(around), away * squeeze * np.sin(around)], axis=1), 2.4, 1.05)


def _metaphase(rng: np.random.Generator) -> Rods:
    return _plate(rng, rng.uniform(8.0, 11.5), rng.uniform(2.0, 3.0), bend=rng.uniform(-0.8, 0.8))


def _metaphase_ring(rng: np.random.Generator) -> Rods:
    around = np.linspace(0, 2 * np.pi, 22, endpoint=False) + rng.normal(0, 0.08, 22)
    away = rng.uniform(2.7, 3.4) + rng.normal(0, 0.25, 22)
    squeeze = rng.uniform(0.75, 1.0)
    ends = [
        (away + out)[:, None] * np.stack([np.cos(around), squeeze * np.sin(around)], axis=1)
        for out in (-0.5, rng.uniform(0.4, 1.4, 22))
    ]
    return np.column_stack([*ends, rng.uniform(0.85, 1.2, 22)])


def _anaphase(rng: np.random.Generator, gap: float | None = None, shares: tuple[float, float] = (1, 1)) -> Rods:
    half = (gap or rng.uniform(4.0, 6.5)) / 2
    length, bend = rng.uniform(6.5, 8.5), rng.uniform(0.3, 1.2)
    return np.concatenate(
        [
            _plate(
                rng,
                length * share**0.5,
                1.7 * share**0.5,
                at=(side * half, 0),
                bend=side * bend,
                angle=rng.normal(0, 0.08),
            )
            for side, share in zip((-1, 1), shares, strict=True)
        ]
    )


def _telophase(rng: np.random.Generator) -> Rods:
    half, length = rng.uniform(4.2, 5.4), rng.uniform(4.8, 6.2)
    return np.concatenate(
        [_plate(rng, length, 1.5, at=(side * half, 0), bend=-side * 0.3, angle=rng.normal(0, 0.12)) for side in (-1, 1)]
    )


def _multipolar(rng: np.random.Generator) -> Rods:
    poles = int(rng.choice([3, 3, 4]))
    start = rng.uniform(0, 2 * np.pi)
    angles = start + np.arange(poles) * 2 * np.pi / poles + rng.normal(0, 0.15, poles)
    away = 2.6
    return np.concatenate(
        [_plate(rng, 5.0, 1.9, at=(away * np.cos(a), away * np.sin(a)), angle=a - np.pi / 2) for a in angles]
    )


def _asymmetric(rng: np.random.Generator) -> Rods:
    return _anaphase(rng, gap=rng.uniform(4.5, 6.5), shares=(1.25, rng.uniform(0.25, 0.4)))


def _bridging(rng: np.random.Generator) -> Rods:
    gap = rng.uniform(4.5, 6.5)
    y = rng.uniform(-2.5, 2.5, rng.integers(1, 4))
    strands = np.stack([np.full_like(y, -gap / 2), y, np.full_like(y, gap / 2), y + rng.normal(0, 0.5, len(y))], axis=1)
    return np.concatenate([_anaphase(rng, gap), np.column_stack([strands, rng.uniform(0.5, 0.8, len(y))])])


def _lagging(rng: np.random.Generator) -> Rods:
    n = rng.integers(2, 5)
    between = np.stack([rng.normal(0, 0.5, n), rng.uniform(-3, 3, n)], axis=1)
    return np.concatenate([_anaphase(rng, rng.uniform(5.5, 7.0)), _arms(rng, between, 1.3, 0.9)])


def _polar(rng: np.random.Generator) -> Rods:
    n = rng.integers(2, 5)
    aside = np.stack([rng.choice([-1, 1], n) * rng.uniform(3.2, 4.8, n), rng.uniform(-2.0, 2.0, n)], axis=1)
    return np.concatenate([_metaphase(rng), _arms(rng, aside, 1.3, 1.0)])


NORMAL: Final[dict[str, Callable[[np.random.Generator], Rods]]] = {
    "late prophase": _late_prophase,
    "prometaphase": _prometaphase,
    "metaphase": _metaphase,
    "metaphase, end-on": _metaphase_ring,
    "anaphase": _anaphase,
    "telophase": _telophase,
}
NORMAL_SHARES: Final = (0.1, 0.2, 0.34, 0.1, 0.16, 0.1)
ATYPICAL: Final[dict[str, Callable[[np.random.Generator], Rods]]] = {
    "multipolar": _multipolar,
    "asymmetric": _asymmetric,
    "bridging": _bridging,
    "lagging": _lagging,
    "polar": _polar,
}


def mitotic_figure(rng: np.random.Generator, domain: PhantomDomain, phase: str) -> Sprite:
    """A mitotic figure in a phase named in `NORMAL` or `ATYPICAL`, in its cleared cell; no nuclear membrane."""
    rods = (NORMAL | ATYPICAL)[phase](rng)
    rods = rods * min(1.0, domain.tumour.nucleus_um / 8.5) ** 0.5
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ends = (rods[:, :4].reshape(-1, 2, 2) @ turn).reshape(-1, 4)
    sheet = Sheet(rng, 12.0, domain.mpp)
    # Arms that touch melt together; what sticks out stays ragged.
    distance = ndimage.gaussian_filter(sheet.rods(ends, rods[:, 4]), 0.22 / domain.mpp)
    distance += 0.16 * sheet.grain(0.7)
    chromatin = inside(distance, 0.6)
    fuzz = 0.2 * np.exp(-np.clip(distance, 0, None) / 0.45)
    density = rng.uniform(1.2, 1.75)
    cell = _cell(sheet, rng, angle, split=phase == "telophase")
    cytoplasm = inside(cell, 1.2)
    pale = rng.uniform(0.3, 0.6)
    return sheet.sprite(
        domain.scanner.blur_um * rng.uniform(1.0, 1.5),
        keep_h=1 - 0.85 * cytoplasm,
        add_h=chromatin * density * np.clip(1 + 0.09 * sheet.grain(0.9), 0.7, 1.3) + fuzz + 0.04 * cytoplasm,
        keep_e=(1 - cytoplasm) * (1 - 0.5 * np.exp(-((cell / 0.6) ** 2))),
        add_e=(0.27 * (1 - pale) + 0.035 * sheet.grain(0.9) + 0.06 * np.exp(-(((cell + 0.9) / 0.6) ** 2))) * cytoplasm,
        chromatin=chromatin,
    )


def _cell(sheet: Sheet, rng: np.random.Generator, angle: float, *, split: bool) -> Field:
    """Distance from the outline of the rounded cell; in telophase it has two lobes with a furrow between them."""
    if not split:
        return sheet.ellipse((0, 0), (rng.uniform(7.2, 8.8), rng.uniform(6.4, 7.6)), angle, 0.04)
    axis = np.array([np.cos(angle), np.sin(angle)]) * 4.4
    lobes = [sheet.ellipse((side * axis[0], side * axis[1]), (5.3, 5.3), wobble=0.03) for side in (-1, 1)]
    return np.minimum(*lobes)
