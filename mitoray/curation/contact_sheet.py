"""The cells whose labels are most at odds with their neighbours', on one picture."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_COLUMNS: Final = 10
_INCH: Final = 1.15


def contact_sheet(images: Sequence[NDArray[np.uint8]], captions: Sequence[str], title: str) -> bytes:
    """PNG of cells, uint8 (s, s, 3) each, in rows of ten in their order, each under its caption."""
    rows = max(1, -(-len(images) // _COLUMNS))
    figure = Figure(figsize=(_COLUMNS * _INCH, rows * (_INCH + 0.45) + 0.5))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
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
