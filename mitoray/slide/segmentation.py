"""Where the tissue is on an overview image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects

BLACK: Final = 60
"""Grey values of 255 below which nothing at overview resolution is tissue: scanner borders, marker, slide label."""
GLASS_BRIGHTNESS: Final = 200
GLASS_CHROMA: Final = 16
CHROMA_FLOOR: Final = 10.0
"""Grey values: noise and JPEG colour of clean glass stay below. Keeps an empty slide empty."""
CHROMA_CEILING: Final = 18.0
"""Grey values: the palest stain lies above. Keeps a slide without glass whole, where Otsu would halve it."""
OBJECT_UM2: Final = 20_000.0
"""Margin included: a fragment of 0.1 mm stays, dust goes."""
HOLE_UM2: Final = 50_000.0
MARGIN_UM: Final = 40.0
"""So that a figure at the very edge of the tissue is kept."""


def segment_tissue(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Stained tissue on an overview of 2 to 32 µm/px.

    rgb: (h, w, 3) uint8. Returns (h, w) bool. Tissue is what has colour, by Otsu's threshold on chroma within bounds
    (no glass, or nothing but glass, has no second mode to split), less what stains never make: black, and ink, which
    is bluer or greener than red, or pure red. A margin is added, small objects go, small holes are filled.
    """
    black = rgb.max(axis=2) < BLACK
    balanced = ndimage.gaussian_filter(_white_balanced(rgb, ~black), (1, 1, 0))
    chroma = balanced.max(axis=2) - balanced.min(axis=2)
    # Around black and ink, JPEG and anti-aliasing mix colours that no stain has.
    excluded = _grown(black | _ink(balanced), 4)
    usable = chroma[~excluded]
    if usable.size == 0 or usable.max() == usable.min():
        threshold = CHROMA_CEILING
    else:
        otsu = threshold_otsu(usable)  # type: ignore[no-untyped-call]
        threshold = float(np.clip(otsu, CHROMA_FLOOR, CHROMA_CEILING))
    # The margin comes before the sieve: strands of loose tissue join, lone specks do not.
    mask = _grown((chroma > threshold) & ~excluded, MARGIN_UM / mpp)
    mask = remove_small_objects(mask, max_size=int(OBJECT_UM2 / mpp**2))
    # A hole has tissue all around; the glass in a corner of the slide has not.
    enclosed = ndimage.binary_fill_holes(mask) & ~mask
    small_holes = enclosed & ~remove_small_objects(enclosed, max_size=int(HOLE_UM2 / mpp**2))
    tissue: NDArray[np.bool_] = (mask | small_holes) & ~black
    return tissue


def _white_balanced(rgb: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Grey values 0 to 255 as if the glass were white; unchanged where no glass is in sight."""
    brightness = rgb.min(axis=2)
    spread = rgb.max(axis=2) - brightness
    glass = usable & (brightness > GLASS_BRIGHTNESS) & (spread < GLASS_CHROMA)
    if glass.sum() < 0.005 * glass.size:
        return rgb.astype(np.float32)
    white = np.median(rgb[glass], axis=0).astype(np.float32)
    balanced: NDArray[np.float32] = np.minimum(rgb / white, np.float32(1)) * 255
    return balanced


def _ink(balanced: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Marker pens. Haematoxylin, eosin and DAB all let red pass best or nearly so; blue and green ink absorb it.

    Red ink passes red alone, where eosin and blood still pass some blue.
    """
    red, green, blue = np.moveaxis(balanced, 2, 0)
    absorbs_red = (green - red > 12) & (np.maximum(green, blue) - red > 25)
    pure_red = (red > 120) & (green < 0.45 * red) & (blue < 0.5 * red) & (np.abs(green - blue) < 35)
    return absorbs_red | pure_red  # type: ignore[no-any-return]


def _grown(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) <= radius_px  # type: ignore[no-any-return]
