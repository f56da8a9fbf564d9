"""A codec alone: a native tile decoded from memory, and nothing done with it."""

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from mitoray.errors import BadOption
from mitoray.slide import RegionBytes
from mitoray.slide.reduction import decode_reduced
from mitoray.slide.tiles import JPEG, JPEG2000


def codec_name(region: RegionBytes) -> str:
    """What the bare codec is called. Raises BadOption for tiles that are neither JPEG nor JPEG2000."""
    compression = region.tile_format.compression
    if compression == JPEG:
        return "libjpeg-turbo alone"
    if compression in JPEG2000:
        return "OpenJPEG alone"
    raise BadOption(f"{region.name} has tiles of compression {compression}; JPEG and JPEG2000 are measured.")


def decode_bare(data: bytes, region: RegionBytes, memory: NDArray[np.uint8]) -> None:
    """Decode one tile of a region, to the size that the region wants; an empty one costs nothing.

    memory: of `tile_memory`, where JPEG tiles are put one after the other: nothing is quicker.
    """
    form, reduction = region.tile_format, region.window.reduction
    if not data:
        return
    if reduction:
        decode_reduced(data, form, reduction, form.width_px >> reduction, form.height_px >> reduction, memory)
    elif form.compression == JPEG:
        colour, out_colour = tifffile.tifffile.jpeg_decode_colorspace(form.photometric, 1, (), form.jfif)
        out = memory.reshape(form.height_px, form.width_px, form.samples)
        imagecodecs.jpeg8_decode(data, tables=form.jpeg_tables, colorspace=colour, outcolorspace=out_colour, out=out)
    else:
        imagecodecs.jpeg2k_decode(data)
