"""Sprites: what one cell adds to, and leaves of, the stain that lies beneath it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mitoray.phantom.noise import Field


@dataclass(frozen=True)
class Sprite:
    """One cell, to be laid over the stain planes: `plane * keep + add`, for haematoxylin and for eosin.

    layers: (4, side, side) float32: what is kept and added of haematoxylin, what is kept and added of eosin.
    centre_px: (x, y) of the chromatin's centre, from the sprite's top-left corner.
    """

    layers: Field
    centre_px: tuple[float, float] = (0.0, 0.0)

    def turned(self, quarter_turns: int, flipped: bool) -> Field:
        """The layers, turned and mirrored (a view)."""
        layers = np.rot90(self.layers, quarter_turns, axes=(1, 2))
        return layers[:, :, ::-1] if flipped else layers


class Sheet:
    """A square of tissue around a cell, in µm, with the cell's centre at (0, 0)."""

    def __init__(self, rng: np.random.Generator, radius_um: float, mpp: float) -> None:
        self.rng = rng
        self.mpp = mpp
        half = int(np.ceil(radius_um / mpp))
        axis = (np.arange(-half, half + 1) * mpp).astype(np.float32)
        self.x, self.y = np.meshgrid(axis, axis)

    def grain(self, scale_um: float) -> Field:
        """Noise (mean 0, sd 1) with structures of `scale_um`."""
        noise = ndimage.gaussian_filter(
            self.rng.standard_normal(self.x.shape, dtype=np.float32), scale_um / self.mpp / 2
        )
        return np.asarray(noise / (noise.std() + 1e-6), dtype=np.float32)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, wobble: float = 0.0
    ) -> Field:
        """Distance from an ellipse's outline in µm, negative inside; `wobble` bends the outline by that share."""
        dx, dy = self.x - centre[0], self.y - centre[1]
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
        radius = np.hypot(u, v)
        if wobble:
            around = np.arctan2(v, u)
            phases = self.rng.uniform(0, 2 * np.pi, 3)
            radius = radius - sum(wobble / (k + 1) * np.cos((k + 2) * around + phases[k]) for k in range(3))
        return np.asarray((radius - 1) * np.sqrt(radii[0] * radii[1]), dtype=np.float32)

    def rods(self, ends: NDArray[np.float64], thickness_um: NDArray[np.float64] | float) -> Field:
        """Distance from the nearest of n rods in µm, negative inside; ends: (n, 4) as x0, y0, x1, y1 in µm."""
        nearest = np.full(self.x.shape, 99.0, dtype=np.float32)
        for (x0, y0, x1, y1), thickness in zip(ends, np.broadcast_to(thickness_um, len(ends)), strict=True):
            reach = abs(x1 - x0) + abs(y1 - y0) + thickness + 2
            columns = slice(*np.searchsorted(self.x[0], [min(x0, x1) - reach, max(x0, x1) + reach]))
            rows = slice(*np.searchsorted(self.y[:, 0], [min(y0, y1) - reach, max(y0, y1) + reach]))
            dx, dy = self.x[rows, columns] - x0, self.y[rows, columns] - y0
            length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-6
            along = np.clip((dx * (x1 - x0) + dy * (y1 - y0)) / length2, 0, 1)
            distance = np.hypot(dx - along * (x1 - x0), dy - along * (y1 - y0)) - thickness / 2
            np.minimum(nearest[rows, columns], distance, out=nearest[rows, columns])
        return nearest

    def sprite(
        self,
        blur_um: float,
        *,
        keep_h: Field | float = 1.0,
        add_h: Field | float = 0.0,
        keep_e: Field | float = 1.0,
        add_e: Field | float = 0.0,
        chromatin: Field | None = None,
    ) -> Sprite:
        """The four layers as the scanner blurs them; the centre is that of `chromatin`'s mass, if given."""
        sigma = blur_um / self.mpp
        layers = np.stack(
            [
                ndimage.gaussian_filter(np.broadcast_to(np.float32(layer), self.x.shape), sigma, mode="nearest")
                for layer in (keep_h, add_h, keep_e, add_e)
            ]
        ).astype(np.float32)
        if chromatin is None:
            return Sprite(layers)
        row, column = ndimage.center_of_mass(chromatin)
        return Sprite(layers, (column + 0.5, row + 0.5))


def inside(distance: Field, edge_um: float = 0.4) -> Field:
    """1 inside, 0 outside, with a soft edge of `edge_um`."""
    return np.asarray(np.clip(0.5 - distance / edge_um, 0, 1), dtype=np.float32)
