"""How fast slides are read on one core: this reader, the codec alone, and the readers that others use.

Every reader has the whole slide to read. Compressed bytes come from the page cache of the operating system.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from mitoray.benchmark.bare import codec_name, decode_bare
from mitoray.benchmark.rounds import in_turn
from mitoray.benchmark.rows import Row, beside
from mitoray.slide import Rect, open_slide
from mitoray.slide.tiles import tile_memory

REGION_PX: Final = 4096
WINDOW_PX: Final = 512
STEP_PX: Final = 461
"""Windows of 512 px that overlap by a tenth, as patch-wise tools read."""

Work = Callable[[], object]


def reading(path: str, rounds: int) -> list[Row]:
    """Mpx per second of the slide's finest level, by reader; ratios to the bare codec, or of reduced to whole."""
    with open_slide(path, mpp=_mpp(path)) as slide:
        mpx = slide.width_px * slide.height_px / 1e6
    part = f"reading {Path(path).name}"
    codec, kept, name, megabytes = _codec(path)
    whole = {
        name: codec,
        f"{name}, px kept": kept,
        "mitoray, regions": lambda: _regions(path),
        "mitoray, windows": lambda: _windows_ours(path),
    }
    seconds = in_turn(whole | _others(path), rounds)
    rows = [
        Row(part, what, mpx / s, "Mpx/s", note=f"{megabytes / s:.0f} MB/s compressed") for what, s in seconds.items()
    ]
    halves = in_turn(
        {"decoded whole, at half": lambda: _halved(path, False), "decoded at half": lambda: _halved(path, True)}, rounds
    )
    reduced = [Row(part, what, mpx / s, "Mpx/s", note="px of the finest level") for what, s in halves.items()]
    return beside(rows, name) + beside(reduced, "decoded whole, at half")


def _mpp(path: str) -> float | None:
    """A slide without µm/px is read as one of 0.25: its resolution does not matter here."""
    try:
        open_slide(path).close()
    except Exception:
        return 0.25
    return None


def _codec(path: str) -> tuple[Work, Work, str, float]:
    """Decoding each native tile once from memory, with the codec alone, without and with keeping the px.

    Also the codec's name, and the compressed MB.
    """
    with open_slide(path, mpp=_mpp(path)) as slide:
        whole = slide.fetch_region(Rect(0, 0, slide.width_px, slide.height_px), slide.mpp)

    def decode_all() -> None:
        memory = tile_memory(whole.tile_format)
        for data in whole.tiles:
            decode_bare(data, whole, memory)

    def keep_all() -> None:
        kept = []
        for data in whole.tiles:
            kept.append(tile_memory(whole.tile_format))
            decode_bare(data, whole, kept[-1])

    return decode_all, keep_all, codec_name(whole), sum(map(len, whole.tiles)) / 1e6


def _regions(path: str) -> None:
    with open_slide(path, mpp=_mpp(path)) as slide:
        for y in range(0, slide.height_px, REGION_PX):
            for x in range(0, slide.width_px, REGION_PX):
                width, height = min(REGION_PX, slide.width_px - x), min(REGION_PX, slide.height_px - y)
                slide.read_region(Rect(x, y, width, height), slide.mpp)


def _halved(path: str, reduced: bool) -> None:
    """Regions at twice the finest level's µm/px, as if no level of the slide were that coarse."""
    with open_slide(path, mpp=_mpp(path), reduced_decode=reduced) as slide:
        slide.levels = slide.levels[:1]
        for y in range(0, slide.height_px, REGION_PX):
            for x in range(0, slide.width_px, REGION_PX):
                width, height = min(REGION_PX, slide.width_px - x), min(REGION_PX, slide.height_px - y)
                slide.read_region(Rect(x, y, width, height), slide.mpp * 2)


def _windows(width_px: int, height_px: int) -> Iterator[tuple[int, int]]:
    for y in range(0, height_px - WINDOW_PX + 1, STEP_PX):
        for x in range(0, width_px - WINDOW_PX + 1, STEP_PX):
            yield x, y


def _windows_ours(path: str) -> None:
    with open_slide(path, mpp=_mpp(path)) as slide:
        for x, y in _windows(slide.width_px, slide.height_px):
            slide.read_region(Rect(x, y, WINDOW_PX, WINDOW_PX), slide.mpp)


def _others(path: str) -> dict[str, Work]:
    """tiffslide and, where it is installed, OpenSlide, each with one thread."""
    os.environ["TIFFSLIDE_NUM_DECODE_THREADS"] = "1"
    import tiffslide

    def by_tiffslide() -> None:
        with tiffslide.TiffSlide(path) as slide:
            for place in _windows(*slide.dimensions):
                slide.read_region(place, 0, (WINDOW_PX, WINDOW_PX), as_array=True)

    works: dict[str, Work] = {"tiffslide, windows": by_tiffslide}
    try:
        import openslide
    except ImportError:
        return works

    def by_openslide() -> None:
        with openslide.OpenSlide(path) as slide:
            for place in _windows(*slide.dimensions):
                np.asarray(slide.read_region(place, 0, (WINDOW_PX, WINDOW_PX)).convert("RGB"))

    def regions_by_openslide() -> None:
        with openslide.OpenSlide(path) as slide:
            width_px, height_px = slide.dimensions
            for y in range(0, height_px, REGION_PX):
                for x in range(0, width_px, REGION_PX):
                    size = min(REGION_PX, width_px - x), min(REGION_PX, height_px - y)
                    np.asarray(slide.read_region((x, y), 0, size).convert("RGB"))

    return works | {"OpenSlide, windows": by_openslide, "OpenSlide, regions": regions_by_openslide}
