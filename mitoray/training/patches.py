"""Labelled patches, and the random views of them that a training step sees."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Batch:
    """images: uint8 (n, 3, v, v). centres_px: float32 (n, k, 2), figures as (x, y), NaN where fewer than k."""

    images: torch.Tensor
    centres_px: torch.Tensor


class Source(Protocol):
    """Somewhere views come from."""

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Batch:
        """`n` random views of `view_px` by `view_px`."""
        ...


@dataclass(frozen=True, eq=False)
class Patches:
    """Square patches held in memory: images uint8 (n, 3, s, s) and centres_px as in `Batch`."""

    images: torch.Tensor
    centres_px: torch.Tensor

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Batch:
        """Views at random places of random patches, so that a figure stands anywhere, or beyond the view."""
        chosen = rng.integers(len(self.images), size=n)
        left, top = rng.integers(self.images.shape[-1] - view_px + 1, size=(2, n))
        images = torch.stack(
            [self.images[i, :, y : y + view_px, x : x + view_px] for i, x, y in zip(chosen, left, top, strict=True)]
        )
        shift = torch.from_numpy(np.stack([left, top], axis=1)).float()[:, None]
        return Batch(images, self.centres_px[torch.from_numpy(chosen)] - shift)


class Tissue:
    """A large image without any figure; views of it prefer the places where the network was wrong."""

    def __init__(self, image: torch.Tensor) -> None:
        """`image` is uint8 (3, h, w)."""
        self.image = image
        self.mistakes_px = np.empty((0, 2), np.float32)

    def views(self, n: int, view_px: int, rng: np.random.Generator) -> Batch:
        """Half of the views from anywhere, half around a mistake, as soon as there are any."""
        limit = np.array([self.image.shape[2], self.image.shape[1]]) - view_px
        corners = rng.integers(limit + 1, size=(n, 2))
        if len(self.mistakes_px):
            half = n // 2
            around = self.mistakes_px[rng.integers(len(self.mistakes_px), size=half)]
            corners[:half] = np.clip(around - rng.integers(view_px, size=(half, 2)), 0, limit)
        images = torch.stack([self.image[:, y : y + view_px, x : x + view_px] for x, y in corners])
        return Batch(images, torch.full((n, 1, 2), torch.nan))


def mixed(parts: list[tuple[Source, int]], view_px: int, rng: np.random.Generator) -> Batch:
    """One batch with the stated number of views from each source."""
    batches = [source.views(n, view_px, rng) for source, n in parts]
    most = max(b.centres_px.shape[1] for b in batches)
    centres = [
        torch.cat([b.centres_px, torch.full((len(b.images), most - b.centres_px.shape[1], 2), torch.nan)], dim=1)
        for b in batches
    ]
    return Batch(torch.cat([b.images for b in batches]), torch.cat(centres))
