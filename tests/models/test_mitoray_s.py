from dataclasses import replace

import pytest

from mitoray.models import load_bundle
from mitoray.models.sources import SHIPPED
from mitoray.phantom import DOMAINS, draw_phantom
from mitoray.training.quality import f1_at, match_phantom

SEED = 424_242
"""Of phantoms that training never drew."""


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("mitoray-s")


def test_the_shipped_detector_finds_the_figures_of_every_phantom_domain_at_one_threshold(bundle):
    detector = bundle.detector()
    matchings = {}
    for name, domain in DOMAINS.items():
        crowded = replace(domain, tumour=replace(domain.tumour, figures_per_mm2=200, imposters_per_mm2=200))
        side_px = round(300 / domain.mpp)
        matchings[name] = match_phantom(detector, draw_phantom(crowded, seed=SEED, width_px=side_px, height_px=side_px))
    assert sum(len(matching.label_detection) for matching in matchings.values()) >= 50
    assert f1_at(list(matchings.values()), bundle.threshold) >= 0.85
    assert min(f1_at([matching], bundle.threshold) for matching in matchings.values()) >= 0.6


def test_the_shipped_bundle_is_small_and_says_what_it_is(bundle):
    assert (SHIPPED / "mitoray-s" / "weights.safetensors").stat().st_size <= 5 * 2**20
    assert bundle.mpp == 0.5
    assert "not for diagnosis" in " ".join(bundle.training.notes)
    assert "MIT" in bundle.training.licence
    assert {metric.data for metric in bundle.metrics} == {"phantom", "real crops", "real tissue"}
