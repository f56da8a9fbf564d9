"""Cells in rows on one picture, each under its caption."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_INCH: Final = 1.15


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str], title: str, *, columns: int = 10, aspect: float = 1.0
) -> bytes:
    """PNG of cells, uint8 (h, w, 3) each, in rows in their order. aspect: their width over their height."""
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(columns * _INCH * aspect, rows * (_INCH + 0.45) + 0.5))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image)
        # Names in captions are untrusted: a dollar sign would be read as mathematics.
        axis.set_title(caption.replace("$", r"\$"), fontsize=6, y=-0.32)
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150)
    return picture.getvalue()
