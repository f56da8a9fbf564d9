"""What a training is fed with, and how patches are chosen from labelled slides."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import pyarrow as pa

from mitoray.errors import BadOption
from mitoray.models import Detector
from mitoray.training.patches import Patches
from mitoray.training.sampling import sample_ccmct, sample_fick, sample_midog
from mitoray.training.slides import TrainingSlide

Batch = tuple[Patches, int]
"""Patches, and how many more could not be read."""

MINED: Final = "mined"
"""The data set that false positives of a model are labelled with; their kind is imposter."""


class Feed(Protocol):
    """Where a training's patches come from. Sent to every worker, so small and without open files."""

    def steps_per_epoch(self, workers: int) -> int:
        """Batches that each worker gets per epoch."""
        ...

    def epochs(self, first: int, last: int, rank: int, workers: int) -> Iterator[Iterable[Batch]]:
        """A worker's batches of the epochs `first` to `last` - 1, each the same in every attempt."""
        ...

    def validation(self) -> Patches:
        """The patches that each epoch is judged on, the same in every attempt."""
        ...

    def mine(self, detector: Detector) -> int:
        """Find the detector's false positives in what is trained on, and serve more of them; returns their number."""
        ...


@dataclass(frozen=True)
class Sampling:
    """Which patches a training sees.

    Args:
        scheme: midog (Aubreville 2023: slides evenly, half of the patches around figures), ccmct (Bertram 2019: 50 %
            hold a figure, 40 % an imposter), or fick (Fick 2024: domains by weight, half of the patches with a figure).
        patch_px: side of a patch, px at the model's µm/px.
        patches: patches per epoch, of all workers.
        validation_patches: patches that each epoch is judged on, drawn in the same way.
        hard_share: share of patches that hold an imposter, or a mined false positive, in the scheme midog.
        domain_weights: share of each domain, or group of domains, in the scheme fick; none weighs all domains alike.
        domain_groups: domains by name of their group, which share its weight evenly.
    """

    scheme: Literal["midog", "ccmct", "fick"] = "midog"
    patch_px: int = 512
    patches: int = 1000
    validation_patches: int = 250
    hard_share: float = 0.0
    domain_weights: dict[str, float] | None = None
    domain_groups: dict[str, list[str]] | None = None

    def __post_init__(self) -> None:
        if self.patch_px < 32 or self.patch_px % 32:
            raise BadOption(f"patch_px must be a multiple of 32, at least 32, not {self.patch_px}.")
        for name in ("patches", "validation_patches"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.hard_share <= 1:
            raise BadOption(f"hard_share must lie between 0 and 1, not {self.hard_share}.")
        if (self.domain_weights or self.domain_groups) and self.scheme != "fick":
            raise BadOption("domain_weights and domain_groups go with the scheme fick only.")

    def check_mining(self, mine_at: Sequence[float]) -> None:
        """Raises BadOption where false positives would be looked for (at these shares) that no patch then shows."""
        if mine_at and self.scheme == "midog" and not self.hard_share:
            raise BadOption("mine_at finds false positives, but the scheme midog shows none of them: give hard_share.")

    def places(
        self, slides: Sequence[TrainingSlide], labels: pa.Table, n: int, mpp: float, rng: np.random.Generator
    ) -> pa.Table:
        """`n` places of schema `PLACES`, drawn by the scheme. Raises BadOption, BadLabels."""
        patch_um = self.patch_px * mpp
        match self.scheme:
            case "midog":
                return sample_midog(slides, labels, n, patch_um, rng, hard_share=self.hard_share)
            case "ccmct":
                return sample_ccmct(slides, labels, n, patch_um, rng)
            case "fick":
                return sample_fick(
                    slides, labels, n, patch_um, rng, weights=self.domain_weights, groups=self.domain_groups
                )
