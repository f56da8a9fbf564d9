"""The tissue of a slide: a coarse mask in the slide's own coordinates."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mitoray.errors import BadTissueMask, SlideError
from mitoray.slide.geometry import Rect
from mitoray.slide.reader import Slide
from mitoray.slide.segmentation import segment_tissue
from mitoray.slide.storage import SlideFile

OVERVIEW_MPP: Final = 16.0
MASK_PX_MAX: Final = 1 << 24
"""Of a mask that is found here, 65 mm square; of larger slides it is coarser than OVERVIEW_MPP."""
GIVEN_PX_MAX: Final = 100_000_000
MASK_BYTES_MAX: Final = 1 << 28
_MASK_FORMATS: Final = ("PNG", "TIFF", "JPEG", "BMP", "GIF", "WEBP", "PPM")
_MASK_REMEDY: Final = "Give a PNG or TIFF of at most 10,000 × 10,000 px."
ASPECT_TOLERANCE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Tissue:
    """Where a slide has tissue.

    `mask`: (rows, columns) bool over the whole slide, no finer than its level 0; `mpp`: µm per level-0 px.
    """

    mask: NDArray[np.bool_]
    width_px: int
    height_px: int
    mpp: float

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue, mm²."""
        return float(self.mask.mean()) * self.width_px * self.height_px * self.mpp**2 / 1e6

    def contains(self, xy_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each of (n, 2) level-0 points lies on tissue: (n,) bool. False outside the slide."""
        x, y = np.asarray(xy_px, np.float64).reshape(-1, 2).T + 0.5
        inside = (x >= 0) & (x < self.width_px) & (y >= 0) & (y < self.height_px)
        rows, columns = self.mask.shape
        found = np.zeros(len(x), bool)
        found[inside] = self.mask[
            np.floor(y[inside] * rows / self.height_px).astype(int),
            np.floor(x[inside] * columns / self.width_px).astype(int),
        ]
        return found

    def area_mm2(self, rect: Rect) -> float:
        """Area of the tissue within a rectangle of level-0 px, mm²; mask px count whole, by their centres."""
        rows, columns = self.mask.shape
        y = (np.arange(rows) + 0.5) * self.height_px / rows - 0.5
        x = (np.arange(columns) + 0.5) * self.width_px / columns - 0.5
        inside = self.mask[
            np.ix_(
                (y >= rect.y_px) & (y < rect.y_px + rect.height_px), (x >= rect.x_px) & (x < rect.x_px + rect.width_px)
            )
        ]
        return self.tissue_mm2 * float(inside.sum()) / max(float(self.mask.sum()), 1.0)

    def to_png(self) -> bytes:
        """The mask as a PNG of one bit per px."""
        buffer = io.BytesIO()
        Image.fromarray(self.mask).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    @classmethod
    def from_png(cls, png: bytes, width_px: int, height_px: int, mpp: float) -> "Tissue":
        """The inverse of `to_png`, or any image of the slide's aspect ratio, nonzero where tissue is.

        Errors: BadTissueMask.
        """
        return cls(_mask_of(png, "the tissue mask", width_px, height_px, mpp), width_px, height_px, mpp)


def find_tissue(
    slide: Slide, tissue_uri: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> Tissue:
    """The tissue given by the image at `tissue_uri`, or else found on the slide's overview.

    A given image (PNG, TIFF, ...; any size of the slide's aspect ratio within 2 %) is tissue where it is nonzero.
    Errors: BadTissueMask, and those of `Slide.thumbnail`.
    """
    if tissue_uri is None:
        mpp = max(OVERVIEW_MPP, slide.mpp, slide.mpp * math.sqrt(slide.width_px * slide.height_px / MASK_PX_MAX))
        return Tissue(segment_tissue(slide.thumbnail(mpp), mpp), slide.width_px, slide.height_px, slide.mpp)
    try:
        file = SlideFile(tissue_uri, storage_options)
        if file.size_bytes > MASK_BYTES_MAX:
            raise BadTissueMask(f"{file.name} has {file.size_bytes >> 20} MiB. {_MASK_REMEDY}")
        encoded = file.read_ranges([(0, file.size_bytes)])[0]
    except BadTissueMask:
        raise
    except SlideError as exc:
        raise BadTissueMask(f"the tissue mask cannot be read: {exc}") from None
    mask = _mask_of(encoded, file.name, slide.width_px, slide.height_px, slide.mpp)
    return Tissue(mask, slide.width_px, slide.height_px, slide.mpp)


def _mask_of(encoded: bytes, name: str, width_px: int, height_px: int, mpp: float) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(encoded), formats=_MASK_FORMATS) as image:
            if image.width * image.height > GIVEN_PX_MAX:
                raise BadTissueMask(f"{name} has {image.width} × {image.height} px. {_MASK_REMEDY}")
            pixels = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise BadTissueMask(f"{name} is no image that can be read ({exc}). {_MASK_REMEDY}") from exc
    mask = pixels != 0 if pixels.ndim == 2 else (pixels[..., :3] != 0).any(axis=2)
    rows, columns = mask.shape
    aspect = (columns / rows) / (width_px / height_px)
    # A small or narrow mask cannot come nearer to the slide's shape than whole px allow.
    rounded = abs(rows - columns * height_px / width_px) <= 1 or abs(columns - rows * width_px / height_px) <= 1
    if abs(aspect - 1) > ASPECT_TOLERANCE and not rounded:
        raise BadTissueMask(
            f"{name} has {mask.shape[1]} × {mask.shape[0]} px, the slide {width_px} × {height_px}: "
            "the aspect ratios differ by more than 2 %. Give a mask of the whole slide."
        )
    # A finer mask than the overview costs memory and gains nothing; tissue in any of its px is kept.
    factor = max(1, int(OVERVIEW_MPP / (mpp * width_px / mask.shape[1])))
    return _any_of_blocks(mask, factor)


def _any_of_blocks(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """The mask about `factor` times smaller, true where any of the px below is."""
    if factor == 1:
        return mask
    for _ in range(2):
        count = math.ceil(len(mask) / factor)
        edges = np.arange(count + 1) * len(mask) / count
        spans = zip(np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int), strict=True)
        mask = np.stack([mask[start:stop].any(axis=0) for start, stop in spans]).T
    return mask
