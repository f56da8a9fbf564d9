"""Where everything lies: the outline of the tissue, nests of cells, stroma, fat and holes."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.phantom.domains import PhantomDomain, Tumour
from mitoray.phantom.noise import Field, enlarge, periodic_noise, sample, smooth_field

GRID_UM: Final = 0.5
"""The ground of the tissue is drawn at this µm per sample, whatever the scanner's µm per pixel."""


@dataclass(frozen=True)
class Tissue:
    """The ground that cells are laid on, all maps over the same extent.

    haematoxylin, eosin: amounts of stain (float32). solid: 1 where tissue is, 0 on glass and in holes. nest: above 0 in
    tumour. heat: how readily cells divide (mean 0, sd 1). slant: rise of the fibres' phase along x and y.
    cells_um: (n, 2) float64 centres of tumour cells, (x, y) in µm.
    """

    extent_um: tuple[float, float]
    haematoxylin: Field
    eosin: Field
    solid: Field
    nest: Field
    heat: Field
    slant: tuple[Field, Field]
    cells_um: NDArray[np.float64]

    def at(self, field: Field, xy_um: NDArray[np.float64]) -> Field:
        """Values of one of the maps at (n, 2) points in µm."""
        return sample(field, xy_um, self.extent_um)

    @property
    def area_mm2(self) -> float:
        """Area of tissue without glass and holes."""
        return float(self.solid.mean(dtype=np.float64)) * self.extent_um[0] * self.extent_um[1] / 1e6


def lay_tissue(
    rng: np.random.Generator, domain: PhantomDomain, extent_um: tuple[float, float], *, glass: bool = True
) -> Tissue:
    """Tissue of the domain on `extent_um` = (height, width); with `glass` all around it, or filling the field."""
    tumour = domain.tumour
    shape = (round(extent_um[0] / GRID_UM), round(extent_um[1] / GRID_UM))
    scale = min(260.0, min(extent_um) * 0.6)
    nest_map = smooth_field(rng, extent_um, scale)
    nest_map -= np.quantile(nest_map, 1 - tumour.nest_share)
    bend_map = smooth_field(rng, extent_um, scale * 1.3)
    heat = smooth_field(rng, extent_um, scale * 1.6)
    nest = enlarge(nest_map, shape) + 0.16 * enlarge(smooth_field(rng, extent_um, 45.0), shape)

    outline = _outline(rng, extent_um, shape) if glass else np.ones(shape, dtype=np.float32)
    hole, fat_wall = _holes(rng, tumour, extent_um, shape, nest)
    cells, seam, tone = _cells(rng, extent_um, shape, np.sqrt(1e6 / tumour.nuclei_per_mm2), tumour.cleft_um)

    phase_map = 70.0 * enlarge(nest_map, bend_map.shape) + 90.0 * bend_map
    fibre, gap = _fibres(rng, enlarge(phase_map, shape))
    in_nest = np.clip(nest * 12 + 0.5, 0, 1)
    in_stroma = (1 - in_nest) * (1 - gap)
    solid = outline * (1 - hole)
    body = in_nest * (1 - 0.9 * seam)
    return Tissue(
        extent_um,
        solid * (body * (0.115 + 0.03 * tone) + 0.03 * in_stroma),
        np.maximum(
            solid * (body * (0.30 + 0.05 * tone) + in_stroma * (0.42 + 0.13 * fibre)), 0.35 * outline * fat_wall
        ),
        solid * (in_nest + (1 - in_nest) * (1 - 0.8 * gap)),
        nest,
        heat,
        _slant(phase_map, extent_um),
        cells,
    )


def _outline(rng: np.random.Generator, extent_um: tuple[float, float], shape: tuple[int, int]) -> Field:
    """1 on the tissue, 0 on the glass around it, with a frayed edge."""
    short = min(extent_um)
    v = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    u = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    reach = (np.abs(u) ** 3 + np.abs(v) ** 3) ** np.float32(1 / 3)
    wave = enlarge(smooth_field(rng, extent_um, short / 3), shape) * 0.07
    fray = enlarge(smooth_field(rng, extent_um, 25.0), shape) * (4.0 / short)
    return np.asarray(np.clip((0.88 - reach + wave + fray) * short / 4, 0, 1), dtype=np.float32)


def _holes(
    rng: np.random.Generator, tumour: Tumour, extent_um: tuple[float, float], shape: tuple[int, int], nest: Field
) -> tuple[Field, Field]:
    """Empty space (1 inside): fat vacuoles in the stroma, lumina in the nests; and the thin walls between vacuoles."""
    scale = min(200.0, min(extent_um) * 0.5)
    fat_map = smooth_field(rng, extent_um, scale)
    fatty = (
        enlarge(fat_map - np.quantile(fat_map, 1 - min(1.0, 2 * tumour.fat_share)), shape) - np.clip(nest, -0.2, 1) * 2
    )
    _, wall, _ = _cells(rng, extent_um, shape, 42.0, 1.6)
    fat = np.clip(fatty * 6, 0, 1)
    lumen_map = smooth_field(rng, extent_um, 60.0)
    lumen = np.clip((enlarge(lumen_map - np.quantile(lumen_map, 0.985), shape) - np.clip(0.5 - nest, 0, 1)) * 12, 0, 1)
    return np.maximum(fat, lumen), fat * wall


def _cells(
    rng: np.random.Generator, extent_um: tuple[float, float], shape: tuple[int, int], pitch_um: float, seam_um: float
) -> tuple[NDArray[np.float64], Field, Field]:
    """Cells as the Voronoi regions of a jittered grid (Worley 1996).

    Returns their centres ((n, 2) float64, µm), the seams between them (1 on the border, fading over `seam_um`), and a
    tone per cell (mean 0, sd 1).
    """
    rows, columns = (int(np.ceil(length / pitch_um)) + 2 for length in extent_um)
    jitter = rng.uniform(-0.36, 0.36, (2, rows, columns))
    centre_x = ((np.arange(columns) - 0.5 + jitter[0]) * pitch_um).astype(np.float32)
    centre_y = ((np.arange(rows)[:, None] - 0.5 + jitter[1]) * pitch_um).astype(np.float32)
    tones = rng.standard_normal((rows, columns), dtype=np.float32)
    y = ((np.arange(shape[0]) + 0.5) * extent_um[0] / shape[0]).astype(np.float32)
    x = ((np.arange(shape[1]) + 0.5) * extent_um[1] / shape[1]).astype(np.float32)
    of_row = np.clip((y / pitch_um).astype(int) + 1, 1, rows - 2)
    of_column = np.clip((x / pitch_um).astype(int) + 1, 1, columns - 2)
    seam, tone = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    for row in range(1, rows - 1):
        band = slice(*np.searchsorted(of_row, [row, row + 1]))
        if band.start == band.stop:
            continue
        first = np.full((band.stop - band.start, shape[1]), 1e9, dtype=np.float32)
        second = first.copy()
        for near_row in (row - 1, row, row + 1):
            for step in (-1, 0, 1):
                near = of_column + step
                distance = (x - centre_x[near_row, near]) ** 2 + (y[band, None] - centre_y[near_row, near]) ** 2
                closer = distance < first
                np.minimum(second, np.maximum(distance, first), out=second)
                np.minimum(first, distance, out=first)
                np.copyto(tone[band], tones[near_row, near], where=closer)
        border = (np.sqrt(second) - np.sqrt(first)) / 2
        seam[band] = np.clip(1.3 - border / seam_um, 0, 1)
    return np.stack([centre_x, centre_y], axis=-1).reshape(-1, 2).astype(np.float64), seam, tone


def _fibres(rng: np.random.Generator, phase_um: Field) -> tuple[Field, Field]:
    """Collagen that runs along the contours of y + `phase_um`: its density (mean 0, sd 1) and the gaps in it."""
    side = 1024
    bundles = periodic_noise(rng, (side, side), (1.2, 22)) + 0.8 * periodic_noise(rng, (side, side), (4, 60))
    splits = periodic_noise(rng, (side, side), (2.0, 30)) + periodic_noise(rng, (side, side), (9, 50))
    height, width = phase_um.shape
    down = (np.arange(height, dtype=np.float32)[:, None] + phase_um / GRID_UM).astype(np.int32) & (side - 1)
    across = (np.arange(width, dtype=np.int32) & (side - 1))[None, :]
    place = down * side + across
    return bundles.ravel()[place], np.clip((splits - 1.3) * 2.5, 0, 1).ravel()[place]


def _slant(phase_um: Field, extent_um: tuple[float, float]) -> tuple[Field, Field]:
    down, across = np.gradient(phase_um)
    height, width = phase_um.shape
    return across * width / extent_um[1], down * height / extent_um[0]
