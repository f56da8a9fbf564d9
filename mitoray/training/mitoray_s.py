"""How the shipped detector is made: its material, its schedule, its threshold, and what its bundle says of it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mitoray.errors import BadOption
from mitoray.models import Bundle, Detector, Normalisation
from mitoray.models import Training as Origin
from mitoray.phantom import DOMAINS
from mitoray.training.augment import Augmentation, augment
from mitoray.training.feed import Batch
from mitoray.training.fitting import Fitting
from mitoray.training.material import NATIVE_MPP, RealMaterial, at_mpp, patches_at_mpp, phantom_patches, read_real
from mitoray.training.patches import Patches, Tissue, joined, mixed
from mitoray.training.quality import FLOOR, crop_matchings, f1_at, phantom_matchings, threshold_at

log = logging.getLogger(__name__)

PATCH_PX: Final = 128
MISTAKE_SCORE: Final = 0.1
VALIDATION_SEED: Final = 5000
"""Of the phantoms that validate. Training draws its patches from the training's own seed, far below."""
TEST_SEED: Final = 9000
"""Of the phantom slides that the bundle's metrics come from."""
SIGMA_UM: Final = 1.5
"""Of the bump around a figure."""
VIEWS: Final = 4
"""Of each held-out crop, as other scanners might show it, that choose the threshold: those that the detector
will meet are others than those it was trained on, and figures score lower there."""
TOLERATED: Final = 0.02
"""Of F1 on validation material, for a lower threshold: on scanners never seen, figures score lower."""
MOST_FALSE_PER_MM2: Final = 1.0
BLANK_PX: Final = 512
BLANK_GREYS: Final = (0, 60, 128, 200, 243, 255)
"""Black borders and glass."""

NORMALISATION: Final = Normalisation(mean=(172.0, 102.0, 176.0), std=(49.0, 54.0, 40.0))
"""Over crops of haematoxylin and eosin from many scanners."""

DATA: Final = (
    "AtNorM-Br: 128 px crops of mitotic figures in TCGA-BRCA, MIT",
    "AtNorM-MD: 128 px crops of mitotic figures in MIDOG++, MIT",
    "Canine mammary tissue without mitotic figures, one region, MIT",
    "Phantoms of mitoray, drawn by procedure, Apache-2.0",
)
LICENCE: Final = "Apache-2.0; trained on data under MIT and on drawings"
NOTES: Final = (
    "A baseline for research, not for diagnosis.",
    "Figures marked 'phantom' come from drawn slides and say nothing about patients' slides.",
    "Real crops were collected around known figures, and the real tissue without figures comes from one canine mammary "
    "slide, mostly stroma: expect more false positives in cellular tumours, inflammation and necrosis.",
    "Training saw nine tenths of the AtNorM crops, the left three quarters of one region, and phantoms. The rest of "
    "these validated: best epoch and threshold. The figures come from AMi-Br, another region of that slide, CMU-1 and "
    "other phantoms; the kinds of augmentation and the resolution were chosen with AMi-Br and CMU-1 in sight.",
    "Crops trained on that show any of a crop that validates were left out; none overlaps with AMi-Br.",
    "No real look-alikes were labelled in training; no stain but haematoxylin and eosin was seen.",
)

STRONG: Final = Augmentation(
    affine_probability=0.8,
    rotation_degrees=20.0,
    scale=(0.8, 1.6),
    exchange_probability=0.6,
    stain_scale=(0.7, 1.35),
    density_probability=0.5,
    saturation_probability=0.3,
    crosstalk_probability=0.3,
    gamma_probability=0.3,
    gamma=(0.75, 1.35),
    fringe_probability=0.2,
    blur_sigma_px=(0.4, 1.2),
    sharpen_probability=0.45,
    sharpen_amount=(0.3, 2.5),
    low_resolution_probability=0.1,
    low_resolution_factor=(0.55, 0.95),
    half_resolution_share=0.0,
    jpeg_probability=0.4,
    jpeg_quality=(25, 95),
)
"""So that the stain, sharpening and compression of scanners never seen are no news. px are those of the network.

Exchanged stains count most: the tissue without figures is of one slide, and without exchange its brown tone alone spoke
against a figure, so that scanners of that tone went unheard. Giant cells hold figures half again as large as usual."""

BORDER_SHARE: Final = 0.1
"""Of the views: those with a black border, as scanners leave beyond the field of view."""


@dataclass(frozen=True)
class Recipe:
    """What the network is, how much of what it sees, and for how long.

    mpp: µm/px of its input; width, stride: of `HeatmapNet`. crops, tissue, phantoms: views per batch from each.
    view_px: side of a view at 0.25 µm/px. steps: per epoch. phantom_patches: patches drawn of each phantom domain.
    """

    mpp: float = 0.5
    width: float = 1.5
    stride: int = 4
    crops: int = 28
    tissue: int = 20
    phantoms: int = 16
    view_px: int = 96
    steps: int = 200
    phantom_patches: int = 400
    fitting: Fitting = field(
        default_factory=lambda: Fitting(
            epochs=24,
            learning_rate=4e-3,
            body_learning_rate=4e-3,
            weight_decay=0.02,
            mine_at=(0.25, 0.4, 0.55, 0.7, 0.85),
        )
    )
    augmentation: Augmentation = STRONG

    @property
    def output_px(self) -> int:
        """Side of a view as the network sees it."""
        px = self.view_px * NATIVE_MPP / self.mpp
        if px != round(px):
            raise BadOption(f"view_px {self.view_px} makes {px:g} px at {self.mpp:g} µm/px; take whole ones")
        return round(px)

    @property
    def settings(self) -> dict[str, bool | int | float | str]:
        """Of the architecture."""
        return {"width": self.width, "stride": self.stride, "sigma_cells": SIGMA_UM / (self.mpp * self.stride)}


@dataclass(frozen=True, eq=False)
class MaterialFeed:
    """Feeds a training from crops, tissue without figures, and phantoms; see `mitoray.training.feed.Feed`."""

    data_dir: Path
    recipe: Recipe

    def steps_per_epoch(self, workers: int) -> int:  # noqa: ARG002
        """As the recipe says, for any number of workers."""
        return self.recipe.steps

    def epochs(self, first: int, last: int, rank: int, workers: int) -> Iterator[Iterable[Batch]]:  # noqa: ARG002
        """A worker's batches, drawn anew in each epoch."""
        for epoch in range(first, last):
            yield self._batches(np.random.default_rng([self.recipe.fitting.seed, epoch, rank]))

    def validation(self) -> Patches:
        """Held-out crops, held-out tissue, and phantoms of other seeds."""
        rng = np.random.default_rng(VALIDATION_SEED)
        tissue = Tissue(self._real.held_out_tissue, NATIVE_MPP).views(300, PATCH_PX, rng)
        drawn = [phantom_patches(d, 24, PATCH_PX, NATIVE_MPP, VALIDATION_SEED) for d in DOMAINS]
        return patches_at_mpp(joined([self._real.held_out_crops, tissue, *drawn]), self.recipe.mpp)

    def mine(self, detector: Detector) -> int:
        """Look for the detector's mistakes in the tissue without figures."""
        _, tissue, _ = self._sources
        (points,) = detector.detect(at_mpp(tissue.image, detector.mpp)[None], MISTAKE_SCORE)
        tissue.mistakes_px = (points.xy_px + 0.5) * detector.mpp / NATIVE_MPP - 0.5
        return len(points)

    def _batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        shares = (self.recipe.crops, self.recipe.tissue, self.recipe.phantoms)
        for _ in range(self.recipe.steps):
            yield bordered(mixed(self._sources, shares, self.recipe.view_px, rng), rng), 0

    @cached_property
    def _real(self) -> RealMaterial:
        return read_real(self.data_dir)

    @cached_property
    def _sources(self) -> tuple[Patches, Tissue, Patches]:
        n, seed = self.recipe.phantom_patches, self.recipe.fitting.seed
        phantoms = joined([phantom_patches(d, n, PATCH_PX, NATIVE_MPP, seed) for d in DOMAINS])
        return self._real.crops, Tissue(self._real.tissue, NATIVE_MPP), phantoms

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: each worker reads its own."""
        return {"data_dir": self.data_dir, "recipe": self.recipe}


def bordered(patches: Patches, rng: np.random.Generator) -> Patches:
    """The patches, `BORDER_SHARE` of them with one side black, up to half of it; figures under the black are gone."""
    images, centres_px = patches.images.clone(), patches.centres_px.clone()
    side = images.shape[-1]
    for i in np.flatnonzero(rng.random(len(images)) < BORDER_SHARE):
        depth, axis, far = int(rng.integers(1, side // 2)), int(rng.integers(2)), bool(rng.integers(2))
        black = slice(side - depth, side) if far else slice(0, depth)
        images[(i, slice(None), slice(None), black) if axis == 0 else (i, slice(None), black)] = 0
        place = centres_px[i, :, axis]
        hidden = place > side - depth - 0.5 if far else place < depth - 0.5
        centres_px[i, hidden] = torch.nan
    return replace(patches, images=images, centres_px=centres_px)


def choose_threshold(detector: Detector, real: RealMaterial, augmentation: Augmentation) -> float:
    """The lowest threshold, in hundredths, that costs at most `TOLERATED` of the best F1 on validation material.

    F1 is the mean of that on held-out crops, as other scanners might show them, and that on phantoms. None is taken at
    which held-out tissue has more than one false positive per mm², or an evenly grey image any.
    """
    rng = np.random.default_rng(VALIDATION_SEED)
    crops = patches_at_mpp(real.held_out_crops, detector.mpp)
    matchings = [m for _ in range(VIEWS) for m in crop_matchings(detector, augment(crops, rng, augmentation))]
    phantoms = [m for of_domain in phantom_matchings(detector, VALIDATION_SEED).values() for m in of_domain]
    tissue = at_mpp(real.held_out_tissue, detector.mpp)
    false_scores = detector.detect(tissue[None], FLOOR)[0].scores
    area_mm2 = tissue.shape[1] * tissue.shape[2] * detector.mpp**2 / 1e6
    blank = torch.stack([torch.full((3, BLANK_PX, BLANK_PX), grey, dtype=torch.uint8) for grey in BLANK_GREYS])
    in_blank = max((float(points.scores.max(initial=0)) for points in detector.detect(blank, FLOOR)), default=0.0)
    lowest = max(MISTAKE_SCORE, in_blank, threshold_at(false_scores, area_mm2, MOST_FALSE_PER_MM2))
    thresholds = np.arange(np.ceil(lowest * 100), 96) / 100
    f1 = np.array([(f1_at(matchings, t) + f1_at(phantoms, t)) / 2 for t in thresholds])
    return float(thresholds[int(np.argmax(f1 >= f1.max() - TOLERATED))])


def shipped_bundle(recipe: Recipe, weights: Mapping[str, torch.Tensor], threshold: float) -> Bundle:
    """The bundle, still without metrics."""
    return Bundle(
        name="mitoray-s",
        architecture="mitoray-s",
        settings=recipe.settings,
        mpp=recipe.mpp,
        threshold=threshold,
        thresholds={},
        normalisation=NORMALISATION,
        training=Origin(data=DATA, licence=LICENCE, notes=NOTES),
        metrics=(),
        weights=weights,
    )
