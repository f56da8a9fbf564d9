"""Pictures that fit into a page: small, as data URIs, and lines as SVG paths."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

QUALITIES: Final = (82, 70, 55, 40, 25)
"""WebP qualities in the order in which they are tried; below the last a picture is made smaller instead."""

_SMALLEST_PX: Final = 32


def data_uri(content: bytes, kind: Literal["webp", "png"]) -> str:
    """The file as the value of an `src`. base64: four characters for three bytes."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def length_as_uri(n_bytes: int) -> int:
    """Characters that a file of so many bytes takes as a data URI."""
    return len("data:image/webp;base64,") + 4 * math.ceil(n_bytes / 3)


def picture_uri(image: NDArray[np.uint8], most: int, qualities: Sequence[int] = QUALITIES) -> str | None:
    """An RGB image (h, w, 3) as WebP in a data URI of at most `most` characters, as good as that allows.

    None where not even a picture of 32 px fits.
    """
    picture = Image.fromarray(image)
    while True:
        for quality in qualities:
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, method=4)
            if length_as_uri(buffer.tell()) <= most:
                return data_uri(buffer.getvalue(), "webp")
        if max(picture.size) <= _SMALLEST_PX:
            return None
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))


def outline_path(mask: NDArray[np.bool_], most: int) -> str:
    """The borders of a mask's true parts as the `d` of an SVG path, in px of the mask, origin at its top left corner.

    Parts and corners are left out from the smallest on until the path has no more than `most` characters.
    """
    framed = np.pad(np.asarray(mask, np.float64), 1)
    # find_contours names px centres and sees the frame as a row and a column of px.
    contours = [contour[:, ::-1] - 0.5 for contour in _contours(framed)]
    contours.sort(key=lambda contour: -float(np.ptp(contour, axis=0).max()))
    tolerance = 0.6
    while contours:
        path = "".join(_closed(_simplified(contour, tolerance)) for contour in contours)
        if len(path) <= most:
            return path
        tolerance *= 1.4
        contours = [contour for contour in contours if np.ptp(contour, axis=0).max() > 2 * tolerance]
    return ""


def _contours(framed: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    found: list[NDArray[np.float64]] = find_contours(framed, 0.5)  # type: ignore[no-untyped-call]
    return found


def _simplified(contour: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    corners: NDArray[np.float64] = approximate_polygon(contour, tolerance)  # type: ignore[no-untyped-call]
    return corners


def _closed(corners: NDArray[np.float64]) -> str:
    if len(corners) < 4:
        return ""
    return "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in corners[:-1]) + "Z"


def dots_path(points: NDArray[np.float64], most: int) -> tuple[str, int]:
    """Points (n, 2) as the `d` of an SVG path to stroke with round ends, and how many of the first ones fit.

    most: characters that the path may have.
    """
    parts: list[str] = []
    length = 0
    for x, y in points:
        part = f"M{x:.0f} {y:.0f}h0"
        if length + len(part) > most:
            break
        parts.append(part)
        length += len(part)
    return "".join(parts), len(parts)
