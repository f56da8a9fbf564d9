"""The count map: how many mitotic figures a field of view holds, wherever on the slide it is laid."""

import io
import math
from dataclasses import dataclass
from typing import Final

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitoray.counting.hotspot import FloatArray, field_size_um
from mitoray.counting.moving_window import Grid, Shape, counts_around
from mitoray.errors import BadOption
from mitoray.slide import Tissue

COLOURS: Final = "viridis"
"""Rises in lightness all along, so that it reads the same to colour-blind people and in grey print. Most figures are
yellow, which stands out from haematoxylin and eosin."""

_FAINTEST: Final = 0.25
"""Opacity of the fewest figures that the map shows, so that one figure is seen and the tissue below it as well."""


@dataclass(frozen=True, eq=False)
class CountMap:
    """Figures in the field of view around each of a grid's centres.

    counts: (rows, columns) int32; the centre of row i and column j lies at ((j + ½) · step_um, (i + ½) · step_um), so
    that each stands for the square of `step_um` around it. width_um, height_um: of the field. extent_um: width and
    height of the slide, which the squares cover, the last ones reaching past its edges.
    """

    counts: NDArray[np.int32]
    step_um: float
    extent_um: tuple[float, float]
    area_mm2: float
    shape: Shape
    width_um: float
    height_um: float

    @property
    def per_mm2(self) -> FloatArray:
        """Figures per mm² of the field: (rows, columns) float64."""
        return self.counts / self.area_mm2

    def image(
        self, highest: int | None = None, opacity: float = 0.8, tissue: Tissue | None = None
    ) -> NDArray[np.uint8]:
        """The map as RGBA, (rows, columns, 4) uint8, one px per centre; clear where the field holds no figure.

        highest: the count with the last colour, so that several slides can share a scale; None takes the map's own.
        opacity: of that count, 0 to 1. tissue: of the same slide; the map is clear where the field's centre lies beside
        it. Raises BadOption for a number out of range.
        """
        top = int(self.counts.max(initial=0)) if highest is None else highest
        if top < 1 and highest is not None:
            raise BadOption(f"highest is the count with the last colour and must be at least 1, not {highest}")
        if not 0 < opacity <= 1:
            raise BadOption(f"opacity must lie above 0 and at most at 1, not {opacity}")
        levels = np.arange(max(top, 1) + 1) / max(top, 1)
        rgba = matplotlib.colormaps[COLOURS](levels)
        rgba[:, 3] = opacity * (_FAINTEST + (1 - _FAINTEST) * levels)
        rgba[0] = 0
        colours = (rgba * 255).round().astype(np.uint8)
        image: NDArray[np.uint8] = colours[np.minimum(self.counts, len(colours) - 1)]
        if tissue is not None:
            centres = (np.indices(self.counts.shape)[::-1].reshape(2, -1).T + np.float64(0.5)) * self.step_um
            image[~tissue.contains(centres / tissue.mpp).reshape(self.counts.shape)] = 0
        return image

    def to_png(self, highest: int | None = None, opacity: float = 0.8, tissue: Tissue | None = None) -> bytes:
        """`image` as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image(highest, opacity, tissue)).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def count_map(
    points_um: FloatArray,
    extent_um: tuple[float, float],
    area_mm2: float = 2.0,
    shape: Shape = "circle",
    step_um: float = 100.0,
    aspect: float = 4 / 3,
) -> CountMap:
    """Count the points in a field of view laid around every centre of a grid: a moving window (Aubreville et al. 2020).

    points_um: (n, 2) float64, µm of the slide, origin top-left. extent_um: width and height of the slide. shape, area
    and aspect (width over height, of rectangles): as in `densest_circle` and `densest_rectangle`, whose count none of
    the map's exceeds. Exact at the centres. Fields reach past the slide's edges where their centre lies near them.
    No points: zero everywhere. Raises BadOption for sizes that are not positive, or more than 100 million centres.
    """
    for name, size in (("extent_um", min(extent_um)), ("step_um", step_um)):
        if not (math.isfinite(size) and size > 0):
            raise BadOption(f"{name} must be a positive number of µm, not {size}")
    width_um, height_um = field_size_um(shape, area_mm2, aspect)
    columns, rows = (math.ceil(side / step_um) for side in extent_um)
    grid = Grid(rows, columns, step_um, step_um, step_um / 2, step_um / 2)
    counts = counts_around(points_um, grid, shape, width_um, height_um)
    return CountMap(counts, step_um, (float(extent_um[0]), float(extent_um[1])), area_mm2, shape, width_um, height_um)
