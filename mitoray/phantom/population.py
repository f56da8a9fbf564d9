"""Who lives on the slide: dividing cells, those that only look so, and the crowd around them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.phantom import imposters, mitoses, nuclei
from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.sprites import Sprite
from mitoray.phantom.tissue import Tissue

MARGIN_UM: Final = 12.0
"""Labelled cells keep this distance from the edges of the image."""
SEPARATION_UM: Final = 16.0
"""Labelled cells keep this distance from each other, more than any matching radius in use."""


@dataclass(frozen=True)
class LabelledCell:
    """A figure or an imposter and where it lies."""

    sprite: Sprite
    x_um: float
    y_um: float
    kind: str
    subtype: str | None


def divide(rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue) -> list[LabelledCell]:
    """Choose the cells that divide (clustered, as in hotspots) and those that only look so (anywhere in the nests)."""
    tumour = domain.tumour
    height, width = tissue.extent_um
    cells = tissue.cells_um
    inner = ((cells > MARGIN_UM) & (cells < (width - MARGIN_UM, height - MARGIN_UM))).all(axis=1)
    cells = cells[inner & tissue.filled(cells, 9.0) & (tissue.at(tissue.nest, cells) > 0)]
    n_figures = rng.poisson(tumour.figures_per_mm2 * tissue.area_mm2)
    n_imposters = rng.poisson(tumour.imposters_per_mm2 * tissue.area_mm2)
    heat = np.exp(tissue.at(tissue.heat, cells) * 0.9)
    order = np.argsort(rng.exponential(size=len(cells)) / heat)
    figures = _apart(cells[order], np.empty((0, 2)), n_figures)
    looks_alike = _apart(cells[rng.permutation(len(cells))], figures, n_imposters)
    labelled = []
    for x, y in figures:
        atypical = rng.random() < tumour.atypical_share
        phase = str(
            rng.choice(list(mitoses.ATYPICAL))
            if atypical
            else rng.choice(list(mitoses.NORMAL), p=mitoses.NORMAL_SHARES)
        )
        sprite = mitoses.mitotic_figure(rng, domain, phase)
        labelled.append(LabelledCell(sprite, x, y, "mitotic_figure", "atypical" if atypical else "normal"))
    for x, y in looks_alike:
        sprite = imposters.imposter(rng, domain, str(rng.choice(list(imposters.IMPOSTERS), p=imposters.SHARES)))
        labelled.append(LabelledCell(sprite, x, y, "imposter", None))
    return labelled


def _apart(ordered: NDArray[np.float64], taken: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The first n of the (m, 2) points that keep `SEPARATION_UM` from those `taken` and from each other."""
    chosen: list[NDArray[np.float64]] = []
    for point in ordered:
        if len(chosen) == n:
            break
        near = np.concatenate([taken, np.reshape(chosen, (-1, 2))])
        if not len(near) or np.hypot(*(near - point).T).min() > SEPARATION_UM:
            chosen.append(point)
    return np.reshape(chosen, (-1, 2))


def crowd(
    rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue, labelled: list[LabelledCell]
) -> Iterator[tuple[NDArray[np.float64], list[Sprite], int]]:
    """All other cells, layer by layer: places in µm, sprites to choose from, and in how many poses (8, or 1 as is)."""
    height, width = tissue.extent_um
    slots = [(cell.x_um, cell.y_um) for cell in labelled]

    def scatter(per_mm2: float, *, nest: bool) -> NDArray[np.float64]:
        xy = rng.uniform((0, 0), (width, height), (rng.poisson(per_mm2 * width * height / 1e6), 2))
        keep = tissue.filled(xy, 3.0) & ((tissue.at(tissue.nest, xy) > 0) == nest)
        return _away(xy[keep], slots, 8.0)

    def bank(draw: Callable[[np.random.Generator, PhantomDomain], Sprite], size: int) -> list[Sprite]:
        return [draw(rng, domain) for _ in range(size)]

    stroma = scatter(1900, nest=False)
    slant_x, slant_y = (tissue.at(slant, stroma) for slant in tissue.slant)
    angle = np.arctan2(-slant_x, 1 + slant_y)
    for step in range(12):
        towards = np.pi * step / 12
        aligned = np.abs((angle - towards + np.pi / 2) % np.pi - np.pi / 2) <= np.pi / 24
        sprites = [nuclei.fibroblast(rng, domain, towards) for _ in range(3)]
        yield stroma[aligned], sprites, 1
    yield scatter(250, nest=False), bank(nuclei.red_blood_cell, 6), 8
    lymphocytes = scatter(domain.tumour.lymphocytes_per_mm2 * 3, nest=False)
    yield lymphocytes[tissue.at(tissue.heat, lymphocytes) > 0.4], bank(nuclei.lymphocyte, 12), 8
    cells = tissue.cells_um + rng.normal(0, 0.6, tissue.cells_um.shape)
    keep = tissue.filled(cells, 3.5) & (tissue.at(tissue.nest, tissue.cells_um) > 0)
    yield _away(cells[keep], slots, 9.0), bank(nuclei.tumour_nucleus, 72), 8


def _away(xy_um: NDArray[np.float64], slots: list[tuple[float, float]], distance_um: float) -> NDArray[np.float64]:
    if not slots:
        return xy_um
    far = np.asarray(cKDTree(slots).query(xy_um)[0]) > distance_um
    return xy_um[far]
