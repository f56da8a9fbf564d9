"""How the shipped detector is made: its material, its schedule, its threshold, and what its bundle says of it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from mitoray.models import Bundle, Detector, Normalisation, Training, save_bundle
from mitoray.models.heatmap import HeatmapNet
from mitoray.phantom import DOMAINS
from mitoray.training.heatmap import MEAN, STD, Schedule, detector_of, train_heatmap
from mitoray.training.material import RealMaterial, phantom_patches, read_real
from mitoray.training.patches import Patches, Tissue, joined, mixed
from mitoray.training.quality import f1_at, metrics, phantom_matchings, threshold_at

log = logging.getLogger(__name__)

MPP: Final = 0.25
PATCH_PX: Final = 128
MISTAKE_SCORE: Final = 0.1
VALIDATION_SEED: Final = 5000
"""Of the phantom slides that choose the threshold. Training draws its patches from the training's own seed."""
TEST_SEED: Final = 9000
"""Of the phantom slides that the bundle's metrics come from."""

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
    "Unreliable on real scans at 0.5 µm/px: over a hundred detections per mm² in one (CMU-1) without known figures.",
    "No real look-alikes were labelled in training; no stain but haematoxylin and eosin was seen.",
)


@dataclass(frozen=True)
class Recipe:
    """How much of what a training sees.

    crops, tissue, phantoms: views per batch from each. phantom_patches: patches drawn of each phantom domain.
    """

    schedule: Schedule
    crops: int = 28
    tissue: int = 14
    phantoms: int = 28
    phantom_patches: int = 500


def make_mitoray_s(data_dir: Path, output: Path, recipe: Recipe) -> Bundle:
    """Train on the material in `data_dir`, judge, and write the bundle to `output`."""
    real = read_real(data_dir)
    sources = Sources(real, recipe)
    network, _ = train_heatmap(sources.draw, recipe.schedule, at_pause=sources.mine)
    detector = detector_of(network, MPP)
    threshold = choose_threshold(detector, real.tissue)
    log.info("threshold %g; judging", threshold)
    bundle = Bundle(
        name="mitoray-s",
        architecture="mitoray-s",
        mpp=MPP,
        threshold=threshold,
        thresholds={},
        normalisation=Normalisation(mean=MEAN, std=STD),
        training=Training(data=DATA, licence=LICENCE, notes=NOTES),
        metrics=tuple(
            metrics(
                detector,
                threshold,
                phantom_seed=TEST_SEED,
                crops={"held-out crops": real.held_out_crops, "AMi-Br MIDOG21 crops": real.evaluation_crops},
                tissue=real.held_out_tissue,
            )
        ),
    )
    save_bundle(bundle, network.state_dict(), output)
    return bundle


class Sources:
    """Where the views of a batch come from."""

    def __init__(self, real: RealMaterial, recipe: Recipe) -> None:
        self._recipe = recipe
        self._crops = real.crops
        self._tissue = Tissue(real.tissue)
        self._phantoms = joined(
            [phantom_patches(d, recipe.phantom_patches, PATCH_PX, MPP, recipe.schedule.seed) for d in DOMAINS]
        )

    def draw(self, rng: np.random.Generator, view_px: int) -> Patches:
        """One batch."""
        shares = (self._recipe.crops, self._recipe.tissue, self._recipe.phantoms)
        return mixed((self._crops, self._tissue, self._phantoms), shares, view_px, rng)

    def mine(self, network: HeatmapNet) -> None:
        """Look for the network's mistakes in the tissue without figures."""
        (points,) = detector_of(network, MPP).detect(self._tissue.image[None], MISTAKE_SCORE)
        self._tissue.mistakes_px = points.xy_px
        log.info("%d mistakes in the tissue without figures", len(points))


def choose_threshold(detector: Detector, tissue: torch.Tensor) -> float:
    """The lowest threshold, in hundredths, that is within 0.01 of the best F1 on validation phantoms, of those that
    allow at most one false positive per mm² in the `tissue` trained on.
    """
    matchings = [m for of_domain in phantom_matchings(detector, VALIDATION_SEED).values() for m in of_domain]
    false_scores = detector.detect(tissue[None], MISTAKE_SCORE)[0].scores
    area_mm2 = tissue.shape[1] * tissue.shape[2] * MPP**2 / 1e6
    lowest = max(MISTAKE_SCORE, threshold_at(false_scores, area_mm2, 1.0))
    thresholds = np.arange(np.ceil(lowest * 100), 96) / 100
    f1 = np.array([f1_at(matchings, threshold) for threshold in thresholds])
    return float(thresholds[np.argmax(f1 >= f1.max() - 0.01)])
