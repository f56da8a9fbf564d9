import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadLabels, BadOption
from mitoray.training.crop_sampling import (
    CropSampling,
    check_crops,
    sample_figures_and_negatives,
    sample_subtypes,
    warn_of_giveaways,
)
from mitoray.training.crops import CROPS


def crops_of(*groups):
    """Crops as told: how many, kind, and any other column."""
    rows = []
    for n, kind, *rest in groups:
        other = rest[0] if rest else {}
        rows += [
            {
                "crop_id": str(len(rows) + i),
                "slide_id": "s",
                "case_id": "s",
                "kind": kind,
                "mpp": 0.25,
                "image": b"",
                **other,
            }
            for i in range(n)
        ]
    return pa.Table.from_pylist(rows, schema=CROPS)


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(crops, rows, column):
    return np.array(crops[column].to_pylist(), object)[rows]


FEW = crops_of(
    (3, "mitotic_figure", {"domain": "a", "subtype": "normal"}),
    (2, "mitotic_figure", {"domain": "b", "subtype": "atypical"}),
    (20, "imposter", {"domain": "a"}),
    (30, "mined", {"domain": "b"}),
    (4, "uncertain", {"domain": "a"}),
)


@given(st.integers(1, 200), st.integers(2, 30))
def test_any_stretch_of_an_epoch_is_half_figures_half_negatives(n, batch):
    figures = drawn(FEW, sample_figures_and_negatives(FEW, n, rng(), CropSampling()), "kind") == "mitotic_figure"
    assert len(figures) == n
    for start in range(0, n - batch + 1, batch):
        assert abs(2 * figures[start : start + batch].sum() - batch) <= 1


def test_the_minority_is_drawn_again_and_each_crop_equally_often():
    rows = sample_figures_and_negatives(FEW, 400, rng(), CropSampling())
    times = Counter(rows.tolist())
    assert max(times[i] for i in range(3)) - min(times[i] for i in range(3)) <= 1  # 100 of domain a, of 3 crops
    assert {times[i] for i in (3, 4)} == {50}
    assert {times[i] for i in range(5, 25)} == {5}
    assert max(times[i] for i in range(25, 55)) == 4
    assert min(times[i] for i in range(25, 55)) == 3


def test_domains_come_by_their_weights_in_each_half():
    sampling = CropSampling(domain_weights={"a": 3.0, "b": 1.0})
    rows = sample_figures_and_negatives(FEW, 400, rng(), sampling)
    kinds, domains = drawn(FEW, rows, "kind"), drawn(FEW, rows, "domain")
    for half in (kinds == "mitotic_figure", kinds != "mitotic_figure"):
        assert Counter(domains[half]) == {"a": 150, "b": 50}


def test_imposters_and_false_positives_are_one_to_the_sampling():
    crops = crops_of((1, "mitotic_figure"), (10, "imposter"), (30, "mined"))
    kinds = Counter(drawn(crops, sample_figures_and_negatives(crops, 80, rng(), CropSampling()), "kind"))
    assert kinds == {"mitotic_figure": 40, "imposter": 10, "mined": 30}


@pytest.mark.parametrize(("ambiguous", "as_figure"), [("positive", True), ("negative", False)])
def test_uncertain_labels_count_as_told(ambiguous, as_figure):
    rows = sample_figures_and_negatives(FEW, 2000, rng(), CropSampling(ambiguous=ambiguous))
    places = np.flatnonzero(drawn(FEW, rows, "kind") == "uncertain")
    assert len(places)
    assert set((places % 2 == 0).tolist()) == {as_figure}  # figures stand at even places


def test_masked_labels_are_never_drawn():
    for seed in range(20):
        rows = sample_figures_and_negatives(FEW, 300, rng(seed), CropSampling())
        assert "uncertain" not in drawn(FEW, rows, "kind")
        assert "uncertain" not in drawn(FEW, sample_subtypes(FEW, 300, rng(seed)), "kind")


def test_the_subtype_loader_takes_figures_only_normal_and_atypical_in_turn():
    subtypes = drawn(FEW, sample_subtypes(FEW, 31, rng()), "subtype")
    assert subtypes[::2].tolist() == ["normal"] * 16
    assert subtypes[1::2].tolist() == ["atypical"] * 15


def test_phases_come_equally_often_within_each_subtype():
    crops = crops_of(
        (90, "mitotic_figure", {"subtype": "normal", "phase": "metaphase"}),
        (10, "mitotic_figure", {"subtype": "normal", "phase": "anaphase"}),
        (5, "mitotic_figure", {"subtype": "atypical", "phase": "anaphase"}),
        (1, "mitotic_figure", {"subtype": "atypical", "phase": "prometaphase"}),
    )
    rows = sample_subtypes(crops, 400, rng())
    both = Counter(zip(drawn(crops, rows, "subtype"), drawn(crops, rows, "phase"), strict=True))
    assert set(both.values()) == {100}


def test_figures_of_unknown_phase_come_as_often_as_they_are():
    crops = crops_of(
        (60, "mitotic_figure", {"subtype": "normal"}),
        (30, "mitotic_figure", {"subtype": "normal", "phase": "metaphase"}),
        (10, "mitotic_figure", {"subtype": "normal", "phase": "anaphase"}),
        (1, "mitotic_figure", {"subtype": "atypical"}),
    )
    rows = sample_subtypes(crops, 400, rng())
    normal = drawn(crops, rows, "subtype") == "normal"
    assert Counter(drawn(crops, rows, "phase")[normal]) == {None: 120, "metaphase": 40, "anaphase": 40}


def test_the_same_seed_draws_the_same():
    first, again = (sample_figures_and_negatives(FEW, 64, rng(5), CropSampling()) for _ in range(2))
    assert (first == again).all()
    assert (first != sample_figures_and_negatives(FEW, 64, rng(6), CropSampling())).any()


@pytest.mark.parametrize(
    ("crops", "sampling", "message"),
    [
        (crops_of((3, "imposter")), {}, "hold no mitotic figure. Give labelled slides"),
        (crops_of((3, "mitotic_figure"), (2, "uncertain")), {}, "hold no negatives. Label imposters"),
        (FEW, {"domain_weights": {"a": 1.0, "c": 1.0}}, "domain 'c' has no mitotic figure .* come from: a"),
        (crops_of((3, "mitotic_figure", {"subtype": "normal"}), (2, "mined")), {}, "no figure labelled atypical"),
        (crops_of((3, "mitotic_figure"), (2, "mined")), {}, "set subtype_task to false"),
    ],
)
def test_what_cannot_be_sampled_is_told_with_the_remedy(crops, sampling, message):
    with pytest.raises(BadLabels, match=message):
        check_crops(crops, CropSampling(**sampling), "train on")


def test_without_the_subtype_task_no_subtype_is_needed():
    check_crops(crops_of((3, "mitotic_figure"), (2, "mined")), CropSampling(subtype_task=False), "train on")


def test_negatives_of_domains_without_weight_do_not_help():
    crops = crops_of((3, "mitotic_figure", {"domain": "a"}), (2, "mined", {"domain": "b"}))
    with pytest.raises(BadLabels, match="no negatives"):
        check_crops(crops, CropSampling(subtype_task=False, domain_weights={"a": 1.0}), "train on")


def test_a_domain_that_gives_its_class_away_is_warned_of(caplog):
    crops = crops_of((3, "mitotic_figure", {"domain": "a"}), (2, "mined", {"domain": "b"}))
    with caplog.at_level(logging.WARNING, logger="mitoray"):
        warn_of_giveaways(crops, CropSampling())
    assert "Domain a has no negative" in caplog.text
    assert "Domain b has no mitotic figure" in caplog.text
    caplog.clear()
    warn_of_giveaways(FEW, CropSampling())
    assert not caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches": 0}, "patches must be at least 1"),
        ({"subtype_batch_size": 0}, "subtype_batch_size must be at least 1"),
        ({"shift_um": 11.0}, "shift_um must lie between 0 and 10"),
        ({"domain_weights": {"a": -1.0}}, "domain_weights must be 0 or more"),
        ({"domain_weights": {"a": 0.0}}, "one above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(BadOption, match=message):
        CropSampling(**settings)
