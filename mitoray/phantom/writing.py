"""Write phantoms as slide files that OpenSlide and tiffslide read as Aperio's."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mitoray.phantom.drawing import Phantom

_SMALLEST_LEVEL_PX: Final = 1024
_STEP: Final = 4


def write_slide(phantom: Phantom, path: Path | str) -> None:
    """Write a tiled, pyramidal TIFF as Aperio scanners do (use the suffix `.svs` or `.tif`).

    Levels are 4, 16, ... times smaller than the image, each the mean of the level below. Tiles are JPEG or JPEG2000
    (Aperio's compression 33005), as the domain's scanner writes them.
    """
    scanner = phantom.domain.scanner
    options: dict[str, Any] = {"tile": (scanner.tile_px, scanner.tile_px), "photometric": "rgb", "metadata": None}
    if scanner.codec == "jpeg":
        options |= {
            "compression": "jpeg",
            "subsampling": (2, 2),
            "compressionargs": {"level": scanner.jpeg_quality},
        }
    else:
        options |= {
            "compression": "aperio_jp2000_rgb",
            "compressionargs": {"level": scanner.jpeg_quality / 2, "codecformat": "j2k", "reversible": False},
        }
    height, width = phantom.image.shape[:2]
    about = f"Aperio Phantom\r\n{width}x{height}|AppMag = {_magnification(phantom.mpp)}|MPP = {phantom.mpp:g}"
    per_cm = 1e4 / phantom.mpp
    with tifffile.TiffWriter(path) as file:
        level = phantom.image
        file.write(level, description=about, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", **options)
        # Readers of Aperio files take the second page for a thumbnail, whatever it holds.
        thumbnail = _thumbnail(level)
        file.write(thumbnail, description=about, photometric="rgb", compression="jpeg", rowsperstrip=16, metadata=None)
        while max(level.shape) > _SMALLEST_LEVEL_PX and min(level.shape[:2]) >= _STEP:
            level = _shrink(level)
            file.write(level, description=about, **options)


def _magnification(mpp: float) -> int:
    return 40 if mpp < 0.35 else 20


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    picture.thumbnail((_SMALLEST_LEVEL_PX, _SMALLEST_LEVEL_PX), Image.Resampling.BILINEAR, reducing_gap=2)
    return np.asarray(picture)


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of blocks of 4 × 4 px; the last rows and columns that fill no block are left out."""
    height, width = image.shape[0] // _STEP, image.shape[1] // _STEP
    blocks = image[: height * _STEP, : width * _STEP].reshape(height, _STEP, width, _STEP, 3)
    rows = blocks.sum(axis=1, dtype=np.uint16)
    return np.asarray((rows.sum(axis=2, dtype=np.uint16) + _STEP**2 // 2) // _STEP**2, dtype=np.uint8)
