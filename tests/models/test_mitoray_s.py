import numpy as np
import pytest
import torch
from PIL import Image

from mitoray.evaluation.matching import f1_score, match
from mitoray.models import load_bundle
from mitoray.models.sources import SHIPPED
from mitoray.phantom import DOMAINS, draw_patches

SEED = 424_242
"""Phantoms that training never drew."""


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("mitoray-s")


def test_the_shipped_detector_finds_the_figures_of_every_phantom_domain(bundle):
    detector = bundle.detector()
    counts = {}
    for name, domain in DOMAINS.items():
        side = round(800 * detector.mpp / domain.mpp)
        (image,), labels = draw_patches(name, n=1, size_px=side, seed=SEED)
        pixels = np.asarray(Image.fromarray(image).resize((800, 800)))
        (points,) = detector.detect(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], bundle.threshold)
        figures = labels.filter(np.array(labels["kind"].to_pylist()) == "mitotic_figure")
        xy_px = np.column_stack([figures["x_px"], figures["y_px"]]) * domain.mpp / detector.mpp
        counts[name] = match(points.xy_px, points.scores, xy_px, 6.25 / detector.mpp).counts()
    assert f1_score(*np.sum(list(counts.values()), axis=0)) >= 0.85, counts
    assert min(f1_score(*count) for count in counts.values()) >= 0.6, counts


def test_the_shipped_bundle_is_small_and_says_what_it_is(bundle):
    assert (SHIPPED / "mitoray-s" / "weights.safetensors").stat().st_size <= 4 * 2**20
    assert bundle.mpp == 0.25
    assert "not for diagnosis" in " ".join(bundle.training.notes)
    assert "MIT" in bundle.training.licence
    assert {metric.data for metric in bundle.metrics} == {"phantom", "real crops", "real tissue"}
