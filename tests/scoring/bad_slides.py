"""Slides that are wrong in one way each, made from a sound one."""

import shutil
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def corrupt_tiles(path: Path, tiles: list[int]) -> None:
    """Overwrite the bytes of those level-0 tiles with noise that no JPEG decoder takes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        spans = [(page.dataoffsets[tile], page.databytecounts[tile]) for tile in tiles]
    with path.open("r+b") as file:
        for offset, size in spans:
            file.seek(offset)
            file.write(bytes(np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)))


def make_bad_slides(folder: Path, sound: Path) -> dict[str, str]:
    """Write the bad slides; returns the error by which each must be named."""
    Image.new("RGB", (500, 400), "pink").save(folder / "photo.jpg")
    (folder / "photo.jpg").rename(folder / "photo.svs")
    (folder / "empty.svs").touch()
    content = sound.read_bytes()
    (folder / "truncated.svs").write_bytes(content[: len(content) // 2])
    pixels = np.full((512, 512, 3), 200, np.uint8)
    tifffile.imwrite(folder / "unknown.tif", pixels, tile=(256, 256), compression="jpeg", photometric="rgb")
    shutil.copy(sound, folder / "corrupt.svs")
    return {
        "missing": "SlideNotFound",
        "empty": "EmptySlide",
        "photo": "NotASlide",
        "truncated": "TruncatedSlide",
        "unknown": "UnknownResolution",
    }


def write_glass(path: Path) -> None:
    """A slide of nothing but glass, 0.25 µm/px."""
    pixels = np.full((1024, 1024, 3), 243, np.uint8)
    description = "Aperio Image Library v1|AppMag = 40|MPP = 0.25"
    tifffile.imwrite(
        path, pixels, tile=(256, 256), compression="jpeg", photometric="rgb", description=description, metadata=None
    )
