"""Pictures of a registration: both scans as a chequerboard, its quality by place, and figures side by side."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from mitoray.curation.contact_sheet import contact_sheet
from mitoray.curation.registration import Registration
from mitoray.slide.reader import Slide
from mitoray.training.crop_extraction import crop_around

_SIDE_PX: Final = 1000
_FIELDS: Final = 10
_GAP_PX: Final = 4
CROP_PX: Final = 96
CROP_MPP: Final = 0.25


def overlay(original: Slide, rescan: Slide, registration: Registration) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The original's overview, (h, w, 3) uint8, and what the rescan shows of the same places."""
    mpp = max(original.width_px, original.height_px) * original.mpp / _SIDE_PX
    seen, other = (slide.thumbnail(max(mpp, slide.mpp)) for slide in (original, rescan))
    rows, columns = seen.shape[:2]
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    places = np.column_stack([x.ravel() * original.width_px, y.ravel() * original.height_px]) - 0.5
    there = (registration.to_rescan(places) + 0.5) / (rescan.width_px, rescan.height_px)
    at = [there[:, 1] * other.shape[0] - 0.5, there[:, 0] * other.shape[1] - 0.5]
    warped = [
        ndimage.map_coordinates(other[..., channel].astype(np.float32), at, order=1, cval=255.0) for channel in range(3)
    ]
    return seen, np.stack(warped, axis=-1).clip(0, 255).astype(np.uint8).reshape(rows, columns, 3)


def registration_picture(seen: NDArray[np.uint8], warped: NDArray[np.uint8], found: Registration, title: str) -> bytes:
    """PNG: the two scans as a chequerboard, and the original with the quality of each square.

    seen, warped: as `overlay`. Where the chequers show seams, the map is wrong.
    """
    rows, columns = seen.shape[:2]
    field = max(1, max(rows, columns) // _FIELDS)
    y, x = np.mgrid[:rows, :columns] // field
    chequered = np.where(((x + y) % 2 == 0)[..., None], seen, warped)
    figure = Figure(figsize=(13, 6.5))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(chequered)
    left.set_title("original and rescan, by turns", fontsize=10)
    right.imshow(seen, alpha=0.45)
    colours = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "viridis"),
        ax=right,
        fraction=0.046,
        label="quality (correlation, 0 to 1); grey: too little to compare",
    )
    per_um = columns / (found.original.width_px * found.original.mpp)
    for node in found.leaves:
        colour = (0.5, 0.5, 0.5, 0.3) if node.quality is None else (*colours.cmap(node.quality)[:3], 0.55)
        corner = node.left_um * per_um, node.top_um * per_um
        right.add_patch(Rectangle(corner, node.side_um * per_um, node.side_um * per_um, facecolor=colour, lw=0))
    right.set_xlim(-0.5, columns - 0.5)
    right.set_ylim(rows - 0.5, -0.5)
    right.set_title(f"quality of the squares, {found.quality:.2f} over all", fontsize=10)
    for axis in (left, right):
        axis.set_axis_off()
    # Names in titles are untrusted: a dollar sign would be read as mathematics.
    figure.suptitle(title.replace("$", r"\$"), fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, bbox_inches="tight")
    return picture.getvalue()


def examples_sheet(original: Slide, rescan: Slide, rows: Iterable[Mapping[str, Any]], title: str) -> bytes:
    """PNG: figures on the original and, right of it, on the rescan, under their state and score.

    rows: of `mitoray.curation.rescans.with_states`.
    """
    images: list[NDArray[np.uint8]] = []
    captions = []
    for row in rows:
        pair = [
            crop_around(original, row["original_x_px"], row["original_y_px"], CROP_MPP, CROP_PX),
            np.full((CROP_PX, _GAP_PX, 3), 255, np.uint8),
            crop_around(rescan, row["x_px"], row["y_px"], CROP_MPP, CROP_PX),
        ]
        images.append(np.concatenate(pair, axis=1))
        captions.append(f"{row['state']} {row['score']:.2f}" if row["score"] is not None else row["state"])
    return contact_sheet(images, captions, title, columns=6, aspect=2.0)


def some_of(rows: Sequence[Mapping[str, Any]], each: int, seed: int = 0) -> list[Mapping[str, Any]]:
    """At most `each` rows of every state at random, states apart, by score within."""
    rng = np.random.default_rng(seed)
    chosen: list[Mapping[str, Any]] = []
    for state in sorted({row["state"] for row in rows}):
        own = [row for row in rows if row["state"] == state]
        picked = [own[i] for i in rng.permutation(len(own))[:each]]
        chosen += sorted(picked, key=lambda row: -(row["score"] or 0))
    return chosen
