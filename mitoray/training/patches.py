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
    """

    images: torch.Tensor
    centres_px: torch.Tensor

    def taken(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Patches":
        """The chosen ones."""
        index = torch.from_numpy(chosen)
        return Patches(self.images[index], self.centres_px[index])

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> "Patches":
        """Views at random places of random patches, so that a figure stands anywhere, or beyond the view."""
        chosen = rng.integers(len(self.images), size=n)
        corners = rng.integers(self.images.shape[-1] - view_px + 1, size=(n, 2))
        images = [
            self.images[i, :, y : y + view_px, x : x + view_px] for i, (x, y) in zip(chosen, corners, strict=True)
        ]
        centres_px = self.centres_px[torch.from_numpy(chosen)] - torch.from_numpy(corners).float()[:, None]
        return Patches(torch.stack(images), centres_px)


def joined(parts: Sequence[Patches]) -> Patches:
    """Patches of equal size in one."""
    most = max(part.centres_px.shape[1] for part in parts)
    centres = [
        torch.nn.functional.pad(p.centres_px, (0, 0, 0, most - p.centres_px.shape[1]), value=torch.nan) for p in parts
    ]
    return Patches(torch.cat([part.images for part in parts]), torch.cat(centres))


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

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Patches:
        """Half of the views around a mistake, as soon as there are any; the others around any tissue."""
        limit = np.array([self.image.shape[2], self.image.shape[1]]) - view_px
        around = self._tissue_px[rng.integers(len(self._tissue_px), size=n)].astype(float)
        if len(self.mistakes_px):
            half = n // 2
            around[:half] = self.mistakes_px[rng.integers(len(self.mistakes_px), size=half)]
        corners = np.clip(around - rng.integers(view_px, size=(n, 2)), 0, limit).astype(np.int64)
        images = torch.stack([self.image[:, y : y + view_px, x : x + view_px] for x, y in corners])
        return Patches(images, torch.full((n, 1, 2), torch.nan))


def mixed(sources: Sequence[Source], numbers: Sequence[int], view_px: int, rng: np.random.Generator) -> Patches:
    """One batch with the stated number of views from each source."""
    return joined([source.views(n, view_px, rng) for source, n in zip(sources, numbers, strict=True)])
