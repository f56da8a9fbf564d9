"""Where everything lies: the outline of the tissue, nests of cells, stroma, fat and holes."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.noise import Field, enlarge, periodic_noise, sample, smooth_field

GRID_UM: Final = 0.5
"""The ground of the tissue is drawn at this µm per sample, whatever the scanner's µm per pixel."""
MAP_UM: Final = 4.0
"""µm per sample of what changes slowly: the waves that decide where nests, stroma, fat and glass lie."""

_BAND: Final = 256
_TEXTURE_PX: Final = 1024


@dataclass(frozen=True)
class Tissue:
    """The ground that cells are laid on, all maps over the same extent.

    haematoxylin, eosin: amounts of stain (float32). solid: 1 where tissue is, 0 on glass and in holes. nest: above 0 in
    tumour. heat: how readily cells divide (mean 0, sd 1). slant: rise of the fibres' phase along x and y, µm per µm.
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

    def filled(self, xy_um: NDArray[np.float64], radius_um: float) -> NDArray[np.bool_]:
        """Which of the (n, 2) points have tissue all around them, out to `radius_um`."""
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        ring = radius_um * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        around = [self.at(self.solid, xy_um + step) > 0.9 for step in (np.zeros(2), *ring)]
        return np.asarray(np.all(around, axis=0))

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
    map_shape = (round(extent_um[0] / MAP_UM), round(extent_um[1] / MAP_UM))

    def waves(scale_um: float) -> Field:
        return enlarge(smooth_field(rng, extent_um, scale_um), map_shape)

    short = min(extent_um)
    scale = min(130.0, short * 0.6)
    nest = waves(scale)
    nest = nest - np.quantile(nest, 1 - tumour.nest_share)
    phase_um = 25 * nest + 55 * waves(scale * 1.3)
    heat = waves(scale * 1.6)
    nest = nest + 0.2 * waves(40)
    ripple_um = 5 * waves(50) + waves(14)
    phase = enlarge(phase_um + ripple_um, shape)
    bundles, splits = _collagen(rng)

    cells, owner, border_um = _cells(rng, extent_um, shape, float(np.sqrt(1e6 / tumour.nuclei_per_mm2)))
    # A cell belongs to the nest or to the stroma as a whole, so that nests end at cell borders.
    is_tumour = (sample(nest, cells, extent_um) > 0).astype(np.float32)
    tones = rng.standard_normal(len(cells), dtype=np.float32)
    openness = enlarge(np.clip(0.55 + 0.45 * waves(30), 0.1, 1), shape)

    fatty = waves(min(200.0, short * 0.5))
    fatty = fatty - np.quantile(fatty, 1 - tumour.fat_share) - 2 * np.clip(nest, -0.15, 1) - 0.1
    vacuoles, vacuole, wall_um = _cells(rng, extent_um, shape, 42.0)
    is_fat = (sample(fatty, vacuoles, extent_um) > 0).astype(np.float32)
    lumina = waves(60)
    lumina = enlarge(12 * (lumina - np.quantile(lumina, 0.985) - np.clip(0.5 - nest, 0, 1)), shape)
    outline = np.ones(shape, dtype=np.float32)
    if glass:
        outside = _reach(map_shape) - 0.07 * waves(short / 3) - 4 / short * waves(25)
        outline = np.clip(enlarge((0.88 - outside) * (short / 4), shape), 0, 1)
    looseness = enlarge(np.clip(0.8 + 0.25 * waves(90), 0.35, 1.1), shape)
    thickness = enlarge(1 + 0.07 * waves(180), shape)

    haematoxylin, eosin, solid = np.empty((3, *shape), dtype=np.float32)
    for top in range(
        0, shape[0], _BAND
    ):  # in bands, because arrays of the full size cost more to allocate than to fill
        rows = slice(top, top + _BAND)
        in_nest, tone = is_tumour[owner[rows]], tones[owner[rows]]
        fibre, gap = _along(bundles, phase[rows], top), _along(splits, phase[rows], top)
        seam = np.clip(1.25 - border_um[rows] / tumour.cleft_um, 0, 1) * openness[rows]
        fat = is_fat[vacuole[rows]]
        wall = fat * np.clip(1.4 - wall_um[rows] / 1.2, 0, 1)
        filled = outline[rows] * (1 - np.maximum(fat - wall, np.clip(lumina[rows], 0, 1)))
        body = in_nest * (1 - 0.85 * seam)
        in_stroma = (1 - in_nest) * (1 - gap)
        collagen = in_stroma * looseness[rows] * (0.36 + 0.14 * fibre)
        stained = filled * thickness[rows]
        haematoxylin[rows] = stained * (body * (0.15 + 0.035 * tone) + 0.03 * in_stroma)
        eosin[rows] = np.maximum(stained * (body * (0.27 + 0.045 * tone) + collagen), 0.3 * outline[rows] * wall)
        solid[rows] = filled * (1 - 0.8 * gap * (1 - in_nest))
    slant = (np.gradient(phase_um, axis=1) / MAP_UM, np.gradient(phase_um, axis=0) / MAP_UM)
    return Tissue(extent_um, haematoxylin, eosin, solid, nest, heat, slant, cells)


def _reach(shape: tuple[int, int]) -> Field:
    """How far out each sample lies: 0 in the middle, 1 on a rounded square that touches the edges."""
    v = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    u = np.linspace(-1, 1, shape[1], dtype=np.float32)
    return np.asarray((np.abs(u) ** 3 + np.abs(v) ** 3) ** (1 / 3), dtype=np.float32)


def _cells(
    rng: np.random.Generator, extent_um: tuple[float, float], shape: tuple[int, int], pitch_um: float
) -> tuple[NDArray[np.float64], NDArray[np.int32], Field]:
    """Cells as the Voronoi regions of a jittered hexagonal grid (Worley 1996).

    Returns their centres ((n, 2) float64, µm), the index of the cell that each sample of the ground belongs to, and its
    distance from the nearest border in µm (float32).
    """
    rows, columns = (int(np.ceil(length / pitch_um)) + 4 for length in extent_um)
    jitter = rng.uniform(-0.4, 0.4, (2, rows, columns))
    stagger = (np.arange(rows) % 2 * 0.5)[:, None]
    centre_x = ((np.arange(columns) - 1.5 + stagger + jitter[0]) * pitch_um).astype(np.float32)
    centre_y = ((np.arange(rows)[:, None] - 1.5 + jitter[1]) * pitch_um).astype(np.float32)
    y = ((np.arange(shape[0]) + 0.5) * extent_um[0] / shape[0]).astype(np.float32)
    x = ((np.arange(shape[1]) + 0.5) * extent_um[1] / shape[1]).astype(np.float32)
    # The borders of real cells are curved: each sample looks for its cell from a place slightly aside.
    aside = 0.09 * pitch_um * enlarge(smooth_field(rng, extent_um, 0.6 * pitch_um), shape)
    of_row = (y / pitch_um).astype(int) + 2
    owner, border_um = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
    for row in np.unique(of_row):
        band = slice(*np.searchsorted(of_row, [row, row + 1]))
        place_x, place_y = x + aside[band], y[band, None] - aside[band]
        nearest = np.full(place_x.shape, 1e9, dtype=np.float32)
        second = nearest.copy()
        for near_row in (row - 1, row, row + 1):
            home = (x / pitch_um - stagger[near_row]).astype(int) + 2
            for column in (home - 1, home, home + 1):
                distance = (place_x - centre_x[near_row, column]) ** 2 + (place_y - centre_y[near_row, column]) ** 2
                np.copyto(owner[band], near_row * columns + column, where=distance < nearest)
                np.minimum(second, np.maximum(distance, nearest), out=second)
                np.minimum(nearest, distance, out=nearest)
        border_um[band] = (np.sqrt(second) - np.sqrt(nearest)) / 2
    return np.stack([centre_x, centre_y], axis=-1).reshape(-1, 2).astype(np.float64), owner, border_um


def _collagen(rng: np.random.Generator) -> tuple[Field, Field]:
    """Two textures that tile, with fibres along x: their density (about 0), and the gaps between bundles (0 to 1)."""
    shape = (_TEXTURE_PX, _TEXTURE_PX)
    bundles = 0.7 * periodic_noise(rng, shape, (1.1, 14)) + 0.8 * periodic_noise(rng, shape, (4, 40))
    splits = periodic_noise(rng, shape, (1.8, 22)) + periodic_noise(rng, shape, (8, 45))
    return bundles, np.clip((splits - 1.9) * 2.0, 0, 1)


def _along(texture: Field, phase_um: Field, top: int) -> Field:
    """The texture, its fibres bent along the contours of y + `phase_um`, for a band of rows that starts at `top`."""
    height, width = phase_um.shape
    down = np.arange(top, top + height, dtype=np.float32)[:, None] + phase_um / np.float32(GRID_UM)
    row = np.floor(down)
    part = down - row
    last = _TEXTURE_PX - 1
    first = (row.astype(np.int32) & last) * _TEXTURE_PX + (np.arange(width, dtype=np.int32) & last)
    second = (first + _TEXTURE_PX) & (texture.size - 1)
    values = texture.ravel()
    return np.asarray(values[first] * (1 - part) + values[second] * part, dtype=np.float32)
