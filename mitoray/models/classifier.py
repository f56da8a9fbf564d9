"""What every classifier of candidates promises, and what it says of them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mitoray.errors import BadOption

PADDING: int = 255
"""Grey of what a patch shows beyond the slide's edge: white, as glass, in training and in scoring alike."""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What classifiers say of n candidates.

    members: float32 (n, m), each member's probability of a mitotic figure. atypical: float32 (n,), probability that the
    figure, if it is one, is atypical; NaN where no member has a subtype head.
    """

    members: NDArray[np.float32]
    atypical: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.members)


class Classifier(Protocol):
    """Tells mitotic figures from look-alikes, and atypical from normal ones, in patches centred on candidates."""

    @property
    def mpp(self) -> float:
        """µm per pixel of the patches."""
        ...

    @property
    def patch_px(self) -> int:
        """Side of a patch, px."""
        ...

    @property
    def has_subtypes(self) -> bool:
        """Whether it tells atypical from normal figures."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the networks stand; patches from elsewhere are moved there."""
        ...

    def classify(self, patches: torch.Tensor) -> Verdicts:
        """patches: uint8 (n, 3, patch_px, patch_px), RGB, n may be 0. Raises BadOption for another shape or dtype."""
        ...


def checked_patches(patches: torch.Tensor, patch_px: int) -> None:
    """Raises BadOption unless the patches are what `Classifier.classify` takes."""
    if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1:] != (3, patch_px, patch_px):
        raise BadOption(
            f"patches are {patches.dtype} {tuple(patches.shape)}; the classifier takes uint8 (n, 3, {patch_px}, "
            f"{patch_px}), RGB"
        )
