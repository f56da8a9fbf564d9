"""Labelled patches, and the random views of them that a training step sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


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
    """A large image without any figure; views of it prefer the places where the network was wrong."""

    def __init__(self, image: torch.Tensor) -> None:
        """`image` is uint8 (3, h, w)."""
        self.image = image
        self.mistakes_px = np.empty((0, 2), np.float32)

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Patches:
        """Half of the views around a mistake, as soon as there are any; the others from anywhere."""
        limit = np.array([self.image.shape[2], self.image.shape[1]]) - view_px
        corners = rng.integers(limit + 1, size=(n, 2))
        if len(self.mistakes_px):
            half = n // 2
            around = self.mistakes_px[rng.integers(len(self.mistakes_px), size=half)]
            corners[:half] = np.clip(around - rng.integers(view_px, size=(half, 2)), 0, limit)
        images = torch.stack([self.image[:, y : y + view_px, x : x + view_px] for x, y in corners])
        return Patches(images, torch.full((n, 1, 2), torch.nan))


def mixed(sources: Sequence[Source], numbers: Sequence[int], view_px: int, rng: np.random.Generator) -> Patches:
    """One batch with the stated number of views from each source."""
    return joined([source.views(n, view_px, rng) for source, n in zip(sources, numbers, strict=True)])
