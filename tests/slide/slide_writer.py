"""Slides written with tifffile, for the tests of this room."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

REAL_SLIDES = Path(__file__).parents[2] / "../shared/data/slides"


def stained(height, width, seed=0):
    """Smooth pink to purple colour, (height, width, 3) uint8: survives JPEG nearly unchanged."""
    noise = np.random.default_rng(seed).normal(size=(height // 12 + 2, width // 12 + 2, 3))
    coarse = np.clip(noise * 35 + (190, 120, 170), 0, 255).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def halved(image):
    width, height = image.shape[1] // 2, image.shape[0] // 2
    return np.asarray(Image.fromarray(image[: 2 * height, : 2 * width]).reduce(2))


def aperio(image, mpp, tile):
    height, width = image.shape[:2]
    microns = "" if mpp is None else f"|MPP = {mpp}"
    return f"Aperio Image Library v12.0.5\n{width}x{height} ({tile}x{tile}) Q=90|AppMag = 40{microns}"


def write_svs(path, image, *, mpp=0.25, tile=240, levels=1, compression="jpeg", **options):
    """A slide laid out as Aperio's: baseline, thumbnail, coarser levels. Levels halve. Returns the levels' pixels."""
    if compression == "jpeg":
        options.setdefault("compressionargs", {"level": 95})
    pyramid = [image]
    while len(pyramid) < levels:
        pyramid.append(halved(pyramid[-1]))
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(pyramid):
            options_here = {"tile": (tile, tile), "compression": compression, "photometric": "rgb", "metadata": None}
            tiff.write(level, description=aperio(image, mpp, tile), **(options_here | options))
            if number == 0 and levels > 1:
                tiff.write(halved(pyramid[-1]), photometric="rgb", metadata=None, description="Aperio thumbnail")
    return pyramid


def write_tiff(path, image, *, mpp=0.25, **options):
    """A plain TIFF whose resolution stands in its tags."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, metadata=None, **(resolution | options))
    return path


def tile_span(path, level=0, tile=0):
    """Offset and byte count of a native tile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[level].pages[0]
        return page.dataoffsets[tile], page.databytecounts[tile]


def overwrite(path, offset, data):
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(data)
