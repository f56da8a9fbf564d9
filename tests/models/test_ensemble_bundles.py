import json

import numpy as np
import pytest
import torch
from small_classifiers import SMALL, classifier_bundle, patches_of

from mitoray.errors import BadModel
from mitoray.models import Combination, Normalisation, ensemble_of, load_bundle, save_bundle

LEVELS = {"threshold": 0.4, "thresholds": {"breast": 0.3}}
OTHER = Normalisation(mean=(200.0, 200.0, 200.0), std=(60.0, 60.0, 60.0))


@pytest.fixture(scope="module")
def members():
    """Three unlike ones; the second has no subtype head."""
    return [
        classifier_bundle(seed=1),
        classifier_bundle(seed=2, settings={**SMALL, "subtypes": False, "width": 0.5}, normalisation=OTHER),
        classifier_bundle("resnet18", {"patch_px": 32}, seed=3, candidate_threshold=0.15),
    ]


@pytest.fixture(scope="module")
def patches():
    return patches_of(6, 32)


def saved(folder, members, *given, **settings):
    bundle, weights = ensemble_of(members, *given, name="three", **{**LEVELS, **settings})
    save_bundle(bundle, weights, folder)
    return load_bundle(str(folder))


def test_an_ensemble_comes_back_from_its_folder_and_gives_each_members_own_verdict(members, patches, tmp_path):
    bundle = saved(tmp_path, members, Combination(weights=(2.0, 1.0, 1.0), detector_weight=0.5))
    assert [member.name for member in bundle.members] == [member.name for member in members]
    assert (bundle.threshold, bundle.thresholds, bundle.candidate_threshold) == (0.4, {"breast": 0.3}, 0.15)
    assert bundle.training.data == ("seed 1", "seed 2", "seed 3")
    found = bundle.classifier().classify(patches)
    alone = [member.classifier().classify(patches) for member in members]
    np.testing.assert_allclose(found.members, np.hstack([one.members for one in alone]), atol=1e-6)
    assert np.ptp(found.members, axis=1).min() > 0.001


def test_the_final_score_is_the_weighted_mean_by_hand(members, patches, tmp_path):
    bundle = saved(tmp_path, members, Combination(weights=(2.0, 1.0, 0.0), detector_weight=1.0))
    found = bundle.classifier().classify(patches)
    detector = np.linspace(0.1, 0.9, len(patches))
    expected = [(2 * m[0] + m[1] + d) / 4 for m, d in zip(found.members.astype(float), detector, strict=True)]
    np.testing.assert_allclose(bundle.combining.scores(detector, found.members), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "of_subtypes"), [((2.0, 1.0, 1.0), (2, 1)), ((1.0, 0.0, 0.0), (1, 0)), ((0.0, 1.0, 0.0), (1, 1))]
)
def test_the_atypical_probability_is_the_weighted_mean_of_those_with_that_head(members, patches, weights, of_subtypes):
    bundle, _ = ensemble_of(members, Combination(weights=weights), name="three", **LEVELS)
    first, last = (member.classifier().classify(patches).atypical for member in (members[0], members[2]))
    expected = (of_subtypes[0] * first + of_subtypes[1] * last) / sum(of_subtypes)
    atypical = bundle.classifier().classify(patches).atypical
    assert atypical.dtype == np.float32
    np.testing.assert_allclose(atypical, expected, atol=1e-6)


def test_without_weights_all_members_count_alike(members, tmp_path):
    assert saved(tmp_path, members).combination == Combination(weights=(1.0, 1.0, 1.0))


def test_an_ensemble_of_members_without_the_head_knows_no_subtypes(members, patches):
    bundle, _ = ensemble_of([members[1], members[1]], name="two", **LEVELS)
    assert not bundle.has_subtypes
    assert np.isnan(bundle.classifier().classify(patches).atypical).all()
    assert bundle.classifier().classify(patches_of(0, 32)).members.shape == (0, 2)


def test_members_of_unlike_resolution_are_refused_by_name(members):
    coarse = classifier_bundle(seed=9, mpp=0.5)
    with pytest.raises(BadModel, match=r"mitoray-c-1 takes 0\.25 µm/px and mitoray-c-9 0\.5"):
        ensemble_of([members[0], coarse], name="two", **LEVELS)


def test_members_of_unlike_patches_are_refused(members):
    wide = classifier_bundle(seed=9, settings={"width": 0.25, "patch_px": 64})
    with pytest.raises(BadModel, match="mitoray-c-1 takes patches of 32 px and mitoray-c-9 takes patches of 64 px"):
        ensemble_of([members[0], wide], name="two", **LEVELS)


def test_what_is_no_single_classifier_is_refused_as_a_member(members):
    with pytest.raises(BadModel, match="mitoray-s is a detector"):
        ensemble_of([members[0], load_bundle("mitoray-s")], name="two", **LEVELS)
    inner, _ = ensemble_of(members[:2], name="inner", **LEVELS)
    with pytest.raises(BadModel, match="inner is an ensemble itself"):
        ensemble_of([members[0], inner], name="two", **LEVELS)
    with pytest.raises(BadModel, match="has no members"):
        ensemble_of([], name="none", **LEVELS)


def test_a_weight_too_many_is_refused(members):
    with pytest.raises(BadModel, match="3 weights for 2 members"):
        ensemble_of(members[:2], Combination(weights=(1.0, 1.0, 1.0)), name="two", **LEVELS)


def edited(folder, edit):
    card = json.loads((folder / "bundle.json").read_text())
    edit(card)
    (folder / "bundle.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda card: card.update(members=[]), "an ensemble, and nothing else, has members"),
        (lambda card: card.update(settings={"width": 1.0}), "settings of its own it has none"),
        (lambda card: card.update(architecture="resnet18"), "an ensemble, and nothing else, has members"),
        (lambda card: card["members"].pop(), "weighs 3 classifiers and it holds 2"),
        (lambda card: card["members"][0].update(architecture="mitoray-s"), "is no classifier; members are mitoray-c"),
        (lambda card: card["members"][0].update(architecture="ensemble"), "is no classifier"),
        (lambda card: card["members"][0]["settings"].update(patch_px=64), "patches of 32 and 64 px"),
        (lambda card: card["members"].reverse(), "do not fit architecture 'ensemble'"),
        (lambda card: card["members"][0].update(mpp=0.5), "members.0.mpp: Extra inputs"),
    ],
    ids=["no members", "settings", "no ensemble", "one lost", "detector", "nested", "patches", "order", "mpp"],
)
def test_an_ensembles_card_that_cannot_be_is_refused(members, tmp_path, edit, message):
    saved(tmp_path, members)
    edited(tmp_path, edit)
    with pytest.raises(BadModel, match=message):
        load_bundle(str(tmp_path))


def test_a_members_lost_weights_are_named_with_its_place(members, tmp_path):
    bundle, weights = ensemble_of(members, name="three", **LEVELS)
    del weights["1.mitosis.bias"]
    with pytest.raises(BadModel, match=r"1 tensors differ, first '1\.mitosis\.bias'"):
        save_bundle(bundle, weights, tmp_path)
    weights["1.mitosis.bias"] = torch.full((1,), torch.nan)
    with pytest.raises(BadModel, match=r"NaN or infinity, first in '1\.mitosis\.bias'"):
        save_bundle(bundle, weights, tmp_path)
