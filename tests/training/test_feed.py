from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.training.feed import Sampling
from mitoray.training.slides import TrainingSlide


@pytest.fixture
def slides():
    return [TrainingSlide(f"s{i}", "u", f"c{i}", "ab"[i % 2], 0.25, 4000, 4000) for i in range(4)]


@pytest.fixture
def labels():
    rows = []
    for i in range(4):
        for j in range(20):
            kind = ("mitotic_figure", "imposter")[j % 2]
            rows.append({"slide_id": f"s{i}", "x_px": 190 * j + 50, "y_px": 2000, "kind": kind, "dataset": "people"})
    return pa.Table.from_pylist(rows, schema=LABELS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_px": 0}, "patch_px must be a multiple of 32, at least 32, not 0"),
        ({"patch_px": -32}, "at least 32, not -32"),
        ({"patch_px": 100}, "multiple of 32"),
        ({"patches": 0}, "patches must be at least 1, not 0"),
        ({"validation_patches": 0}, "validation_patches must be at least 1"),
        ({"hard_share": 1.1}, r"hard_share must lie between 0 and 1, not 1\.1"),
        ({"hard_share": float("nan")}, "hard_share must lie between 0 and 1"),
        ({"domain_weights": {"a": 1.0}}, "go with the scheme fick only"),
        ({"domain_groups": {"all": ["a"]}, "scheme": "ccmct"}, "go with the scheme fick only"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(BadOption, match=message):
        Sampling(**settings)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling("midog"), {"mitotic_figure": 0.5, "random": 0.5}),
        (Sampling("midog", hard_share=0.4), {"imposter": 0.4, "mitotic_figure": 0.3, "random": 0.3}),
        (Sampling("ccmct"), {"mitotic_figure": 0.5, "imposter": 0.4, "random": 0.1}),
        (Sampling("fick"), {"mitotic_figure": 0.5, "imposter": 0.25, "random": 0.25}),
    ],
    ids=["midog", "midog with hard negatives", "ccmct", "fick"],
)
def test_each_scheme_gives_its_published_shares(slides, labels, sampling, expected):
    places = sampling.places(slides, labels, 2000, 0.25, np.random.default_rng(0))
    shares = {reason: n / 2000 for reason, n in Counter(places["reason"].to_pylist()).items()}
    assert shares == pytest.approx(expected, abs=0.04)


def test_domains_are_sampled_by_their_weights(slides, labels):
    sampling = Sampling("fick", domain_weights={"a": 3.0, "b": 1.0})
    places = sampling.places(slides, labels, 400, 0.25, np.random.default_rng(0))
    of_a = np.isin(places["slide_id"].to_pylist(), ["s0", "s2"])
    assert of_a.mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_patches_are_as_wide_as_the_models_pixels_make_them(slides, labels, mpp):
    places = Sampling(patch_px=128).places(slides, labels, 10, mpp, np.random.default_rng(0))
    assert set(places["side_px"].to_pylist()) == {round(128 * mpp / 0.25)}
