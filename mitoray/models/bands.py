"""Horizontal bands of a large image, each with the context its pixels see, so that it fits in memory."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """Rows `top` to `bottom` of an image are this band's own; rows `start` to `stop` are what it must look at."""

    top: int
    bottom: int
    start: int
    stop: int


def bands(height_px: int, width_px: int, pixels: int, multiple_px: int, context_px: int) -> Iterator[Band]:
    """Bands of about so many pixels that together own each row once; all but the last begin at multiples.

    context_px: what a band sees beyond its own rows, as far as the image goes; a multiple of `multiple_px`, so that
    strided features of a band lie where those of the whole image do.
    """
    step = max(multiple_px, pixels // width_px // multiple_px * multiple_px)
    for top in range(0, height_px, step):
        bottom = min(height_px, top + step)
        yield Band(top, bottom, max(0, top - context_px), min(height_px, bottom + context_px))
