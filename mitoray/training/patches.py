"""Labelled patches, and the random views of them that a training step sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mitoray.slide import segment_tissue

_LOOK_PX: Final = 32
"""Pixels that become one where tissue is looked for: 8 µm at 0.25 µm/px."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Square images with their figures.

    images: uint8 (n, 3, s, s), RGB. centres_px: float32 (n, k, 2), figures as (x, y), NaN where fewer than k.
    targets: float32 (n, 2), what a classifier is to say of the cell in the middle: 1 for a mitotic figure, 0 for none;
    of a figure 1 for atypical, 0 for normal; NaN for what is unknown. None where detectors are trained.
    """

    images: torch.Tensor
    centres_px: torch.Tensor
    targets: torch.Tensor | None = None

    def taken(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Patches":
        """The chosen ones."""
        index = torch.from_numpy(chosen)
        return Patches(
            self.images[index], self.centres_px[index], None if self.targets is None else self.targets[index]
        )

    def to(self, device: torch.device) -> "Patches":
        """The same on a device."""
        targets = None if self.targets is None else self.targets.to(device)
        return Patches(self.images.to(device), self.centres_px.to(device), targets)

    @property
    def known(self) -> torch.Tensor:
        """What a loss takes: the targets where there are any, else the figures."""
        return self.centres_px if self.targets is None else self.targets

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> "Patches":
        """Views at random places of random patches, so that a figure stands anywhere, or beyond the view."""
        chosen = rng.integers(len(self.images), size=n)
        corners = rng.integers(self.images.shape[-1] - view_px + 1, size=(n, 2))
        images = [
            self.images[i, :, y : y + view_px, x : x + view_px] for i, (x, y) in zip(chosen, corners, strict=True)
        ]
        of_chosen = torch.from_numpy(chosen)
        centres_px = self.centres_px[of_chosen] - torch.from_numpy(corners).float()[:, None]
        return Patches(torch.stack(images), centres_px, None if self.targets is None else self.targets[of_chosen])


def joined(parts: Sequence[Patches]) -> Patches:
    """Patches of equal size in one; those without targets have unknown ones beside others that have some."""
    most = max(part.centres_px.shape[1] for part in parts)
    centres = [
        torch.nn.functional.pad(p.centres_px, (0, 0, 0, most - p.centres_px.shape[1]), value=torch.nan) for p in parts
    ]
    targets = None
    if any(part.targets is not None for part in parts):
        unknown = (torch.full((len(p.images), 2), torch.nan) if p.targets is None else p.targets for p in parts)
        targets = torch.cat(list(unknown))
    return Patches(torch.cat([part.images for part in parts]), torch.cat(centres), targets)


def centred(images: torch.Tensor, side_px: int) -> torch.Tensor:
    """The middle of square images (n, 3, s, s), (n, 3, side_px, side_px); a view, not a copy."""
    start = (images.shape[-1] - side_px) // 2
    return images[:, :, start : start + side_px, start : start + side_px]


class Source(Protocol):
    """Somewhere views come from."""

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Patches:
        """`n` random views of `view_px` by `view_px`."""
        ...


class Tissue:
    """A large image without any figure; views of it hold tissue, and prefer the places where the network was wrong."""

    def __init__(self, image: torch.Tensor, mpp: float) -> None:
        """`image` is uint8 (3, h, w) at `mpp` µm/px."""
        self.image = image
        self.mistakes_px = np.empty((0, 2), np.float32)
        small = F.avg_pool2d(image.float()[None], _LOOK_PX, ceil_mode=True)[0].permute(1, 2, 0)
        mask = segment_tissue(small.numpy().astype(np.uint8), mpp * _LOOK_PX)
        self._tissue_px = np.argwhere(mask | ~mask.any())[:, ::-1] * _LOOK_PX + _LOOK_PX // 2

    def places(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Random places (n, 2) on tissue, px of the image as (x, y)."""
        return self._tissue_px[rng.integers(len(self._tissue_px), size=n)].astype(float)

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Patches:
        """Half of the views around a mistake, as soon as there are any; the others around any tissue."""
        limit = np.array([self.image.shape[2], self.image.shape[1]]) - view_px
        around = self.places(n, rng)
        if len(self.mistakes_px):
            half = n // 2
            around[:half] = self.mistakes_px[rng.integers(len(self.mistakes_px), size=half)]
        corners = np.clip(around - rng.integers(view_px, size=(n, 2)), 0, limit).astype(np.int64)
        images = torch.stack([self.image[:, y : y + view_px, x : x + view_px] for x, y in corners])
        return Patches(images, torch.full((n, 1, 2), torch.nan))


def mixed(sources: Sequence[Source], numbers: Sequence[int], view_px: int, rng: np.random.Generator) -> Patches:
    """One batch with the stated number of views from each source."""
    return joined([source.views(n, view_px, rng) for source, n in zip(sources, numbers, strict=True)])
