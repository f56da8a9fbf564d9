"""Rectangles in level-0 pixels, and the way between them and the images read from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in level-0 px, origin top-left; it may reach past the slide's edges.

    Coordinates of points name pixel centres: the pixel in column 0 spans -0.5 to 0.5.
    """

    x_px: int
    y_px: int
    width_px: int
    height_px: int

    def expanded(self, halo_px: int) -> "Rect":
        """The rectangle grown by `halo_px` on each of its four sides."""
        return Rect(self.x_px - halo_px, self.y_px - halo_px, self.width_px + 2 * halo_px, self.height_px + 2 * halo_px)

    def contains(self, xy_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each of (n, 2) level-0 points lies inside: (n,) bool.

        Half-open, so of rectangles that share an edge exactly one contains a point on it.
        """
        x, y = np.asarray(xy_px, np.float64).reshape(-1, 2).T + 0.5
        inside_x = (self.x_px <= x) & (x < self.x_px + self.width_px)
        inside: NDArray[np.bool_] = inside_x & (self.y_px <= y) & (y < self.y_px + self.height_px)
        return inside

    def to_level0(self, xy_px: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Points of an image read from this rectangle, as points of the slide.

        xy_px: (n, 2) px of an image of `shape` (height, width). Returns (n, 2) float64 level-0 px.
        """
        scale = np.array([self.width_px / shape[1], self.height_px / shape[0]])
        origin = np.array([self.x_px, self.y_px])
        level0: NDArray[np.float64] = origin + (np.asarray(xy_px, np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
        return level0
