"""What every detector promises, and the points it gives."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption

SUPPRESSION_RADIUS_UM: Final = 9.0
"""Points nearer than this are one figure.

Of the 11,937 figures labelled in MIDOG++ 26 have another within 9 µm, 70 within 10 µm, and none within the 6.25 µm in
which a detection matches a label; but the two plates of an anaphase or telophase may both be found, a little farther
apart than that. On crops held out from training F1 grows up to here, and hardly beyond.
"""


@dataclass(frozen=True, eq=False)
class Points:
    """Scored points of one image.

    xy_px: (n, 2) float32, image px as (x, y); the centre of the top-left pixel is (0, 0).
    scores: (n,) float32 in [0, 1], falling.
    """

    xy_px: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds mitotic figures in images of one resolution."""

    @property
    def mpp(self) -> float:
        """µm per pixel of the images that `detect` takes."""
        ...

    @property
    def halo_um(self) -> float:
        """Image context beyond a figure's centre, in µm, that gives the answer of the whole slide."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network stands; images from elsewhere are moved there."""
        ...

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:
        """Points that score at least `threshold`, one entry per image, one point per figure.

        images: uint8 (n, 3, h, w), RGB, of any h and w. Only points leave the device. On a GPU called by two threads at
        a time, each with a CUDA stream of its own.
        Raises BadOption for another shape or dtype, or a threshold outside [0, 1].
        """
        ...


def checked_images(images: torch.Tensor, threshold: float) -> None:
    """Raises BadOption unless images and threshold are what `Detector.detect` takes."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise BadOption(
            f"images are {images.dtype} {tuple(images.shape)}; a detector takes uint8 (n, 3, h, w), RGB, not empty"
        )
    if not 0.0 <= threshold <= 1.0:
        raise BadOption(f"threshold {threshold} is outside [0, 1]")


def suppress(xy_px: NDArray[np.float32], scores: NDArray[np.float32], radius_px: float) -> Points:
    """Keep the best of all points within `radius_px` of each other, greedily, best first.

    xy_px: (n, 2) float32; scores: (n,) float32. Equal scores go by their order. Lowering the scores' threshold only
    ever adds points to the result.
    """
    order = np.argsort(-scores, kind="stable")
    xy_px, scores = xy_px[order], scores[order]
    alive = np.ones(len(scores), bool)
    if len(scores) > 1:
        for first, second in sorted(cKDTree(xy_px).query_pairs(radius_px)):
            if alive[first]:
                alive[second] = False
    return Points(xy_px[alive], scores[alive])
