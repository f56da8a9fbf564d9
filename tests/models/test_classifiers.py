import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from small_classifiers import NORMALISATION, SMALL, classifier_bundle, patches_of, seen

from mitoray.errors import BadModel, BadOption
from mitoray.models import classifiers, load_bundle, save_bundle
from mitoray.models.architectures import built
from mitoray.models.bundle import classifier_around
from mitoray.models.classifiers import CLASSIFIERS, mitoray_c
from mitoray.models.combination import Combination

CPU = torch.device("cpu")
FEATURES = {"resnet18": 512, "resnet50": 2048, "densenet201": 1920, "efficientnet_b4": 1792}


@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_every_classifier_gives_one_logit_a_task_and_groups_each_weight_once(architecture):
    network = built(architecture, {}).eval()
    mitosis, subtype = network(torch.rand(2, 3, 64, 64))
    assert mitosis.shape == subtype.shape == (2,)
    assert len(network.layer_groups) == 3
    grouped = [id(p) for group in network.layer_groups for module in group for p in module.parameters()]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    assert all(any(list(module.parameters()) for module in group) for group in network.layer_groups)


@pytest.mark.parametrize("architecture", FEATURES)
def test_encoders_are_torchvisions_with_the_classification_layer_cut_off(architecture):
    network = built(architecture, {})
    assert network.mitosis.in_features == FEATURES[architecture]
    from torchvision import models

    theirs = getattr(models, architecture)(weights=None)
    kept = {name: t.shape for name, t in theirs.state_dict().items() if not name.startswith(("fc.", "classifier."))}
    ours = {n.removeprefix("encoder."): t.shape for n, t in network.state_dict().items() if n.startswith("encoder.")}
    assert ours == kept


def test_the_small_network_is_small():
    network = mitoray_c().eval()
    assert 0.3e6 <= sum(p.numel() for p in network.parameters()) <= 1e6
    operations = 0

    def count(module, _, output):
        nonlocal operations
        operations += 2 * output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 64, 64))
    assert 10e6 < operations <= 40e6


def test_without_subtypes_there_is_no_such_head_and_its_probability_is_unknown():
    network = seen("mitoray-c", {**SMALL, "subtypes": False})
    assert network.subtype is None
    assert network(torch.rand(1, 3, 32, 32))[1] is None
    classifier = classifier_around("mitoray-c", network, 0.25, NORMALISATION, CPU)
    assert not classifier.has_subtypes
    verdicts = classifier.classify(patches_of(3, 32))
    assert verdicts.members.shape == (3, 1)
    assert np.isnan(verdicts.atypical).all()


targets = st.sampled_from([0.0, 1.0, float("nan")])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(targets, targets), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_the_loss_is_the_mean_cross_entropy_of_what_is_known_summed_over_the_tasks(rows, seed):
    network = seen("mitoray-c", SMALL)
    x = torch.rand(len(rows), 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 4 - 2
    with torch.no_grad():
        given_loss = network.loss(x, torch.tensor(rows)).item()
        probabilities = [logit.sigmoid().double().numpy() for logit in network(x)]
    expected = 0.0
    for truth, probability in zip(np.array(rows).T, probabilities, strict=True):
        known = ~np.isnan(truth)
        expected += log_loss(truth[known], probability[known], labels=[0, 1]) if known.any() else 0.0
    assert given_loss == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_targets_that_are_all_unknown_give_a_loss_of_zero_with_gradients_of_zero():
    network = mitoray_c(**SMALL)
    network.loss(torch.rand(4, 3, 32, 32), torch.full((4, 2), torch.nan)).backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


def test_training_the_subtype_alone_leaves_the_rest_bit_for_bit_as_it_was():
    network = seen("mitoray-c", SMALL).subtype_only().train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    body, head = network.layer_groups
    assert body == (network.encoder, network.mitosis)
    assert head == (network.subtype,)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    x, subtype = torch.rand(8, 3, 32, 32), torch.tensor([0.0, 1.0] * 4)
    for _ in range(3):
        loss = network.loss(x, torch.stack([torch.full((8,), torch.nan), subtype], dim=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    changed = {name for name, t in network.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"subtype.weight", "subtype.bias"}


def test_the_mitosis_target_has_no_say_once_the_subtype_is_alone():
    network = seen("mitoray-c", SMALL)
    x, subtype = torch.rand(4, 3, 32, 32), torch.tensor([0.0, 1.0, 1.0, torch.nan])
    both = [torch.stack([torch.full((4,), mitosis), subtype], dim=1) for mitosis in (0.0, 1.0)]
    assert network.loss(x, both[0]) != network.loss(x, both[1])
    network.subtype_only()
    assert network.loss(x, both[0]) == network.loss(x, both[1])


def test_a_subtype_head_that_is_not_there_cannot_be_trained():
    with pytest.raises(BadOption, match="no subtype head to train"):
        mitoray_c(subtypes=False).subtype_only()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_px": 30}, "patch_px 30 must be a multiple of 16"),
        ({"patch_px": 512}, "from 32 to 256"),
        ({"width": 9.0}, "width 9.0 lies outside"),
        ({"subtypes": 1}, "subtypes must be bool, not 1"),
        ({"depth": 2}, "has no setting 'depth'; it has patch_px, subtypes, width"),
    ],
)
def test_settings_outside_their_range_are_a_bad_option(given, message):
    with pytest.raises(BadOption, match=message):
        built("mitoray-c", given)


@pytest.mark.parametrize(("architecture", "given"), [("mitoray-c", SMALL), ("resnet18", {"patch_px": 64})])
def test_a_classifier_gives_the_networks_own_probabilities(architecture, given):
    network = seen(architecture, given)
    patches = patches_of(5, network.patch_px)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (NORMALISATION.mean, NORMALISATION.std))
    with torch.inference_mode():
        mitosis, subtype = network((patches.float() - mean) / std)
    expected = mitosis.sigmoid().numpy(), subtype.sigmoid().numpy()
    verdicts = classifier_around(architecture, network, 0.5, NORMALISATION, CPU).classify(patches)
    assert expected[0].std() > 0.003
    np.testing.assert_allclose(verdicts.members[:, 0], expected[0], atol=1e-5)
    np.testing.assert_allclose(verdicts.atypical, expected[1], atol=1e-5)
    assert verdicts.members.dtype == verdicts.atypical.dtype == np.float32


def test_many_patches_are_classified_in_bounded_batches(monkeypatch):
    classifier = classifier_bundle().classifier()
    patches = patches_of(23, 32)
    whole = classifier.classify(patches)
    monkeypatch.setitem(classifiers._PIXELS, "cpu", 4 * 32 * 32)
    sizes = []
    hook = classifier._network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    parts = classifier.classify(patches)
    hook.remove()
    assert sizes == [4, 4, 4, 4, 4, 3]
    np.testing.assert_allclose(parts.members, whole.members, atol=1e-5)
    np.testing.assert_allclose(parts.atypical, whole.atypical, atol=1e-5)


def test_no_patches_give_no_verdicts():
    verdicts = classifier_bundle().classifier().classify(patches_of(0, 32))
    assert verdicts.members.shape == (0, 1)
    assert verdicts.atypical.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (3, 32, 32), (2, 32, 32, 3)])
def test_patches_of_another_shape_are_a_bad_option(shape):
    with pytest.raises(BadOption, match=r"takes uint8 \(n, 3, 32, 32\)"):
        classifier_bundle().classifier().classify(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("given", [SMALL, {**SMALL, "subtypes": False}])
def test_a_classifiers_bundle_comes_back_and_answers_as_before(tmp_path, given):
    bundle = classifier_bundle(settings=given, candidate_threshold=0.2)
    save_bundle(bundle, bundle.weights, tmp_path)
    loaded = load_bundle(str(tmp_path))
    assert loaded.has_subtypes == given.get("subtypes", True) == loaded.classifier().has_subtypes
    assert loaded.candidate_threshold == 0.2
    assert loaded.combining == Combination()
    patches = patches_of(4, 32)
    np.testing.assert_array_equal(
        loaded.classifier().classify(patches).members, bundle.classifier().classify(patches).members
    )


def test_a_detector_does_not_classify_and_a_classifier_does_not_detect():
    with pytest.raises(BadModel, match="mitoray-s finds candidates and cannot classify them"):
        load_bundle("mitoray-s").classifier()
    assert not load_bundle("mitoray-s").has_subtypes
    with pytest.raises(BadModel, match="mitoray-c classifies candidates and finds none"):
        classifier_bundle().detector()
    with pytest.raises(BadOption, match="'mitoray-s' is no classifier"):
        classifier_around("mitoray-s", built("mitoray-s", {}), 0.5, NORMALISATION, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combination": {"weights": [1, 1]}}, "weighs 2 classifiers and it holds 1"),
        ({"combination": {"weights": [0], "detector_weight": 0}}, "all weights are 0"),
        ({"candidate_threshold": 2}, "candidate_threshold"),
        ({"settings": {"width": 0.5, "patch_px": 32}}, "do not fit architecture 'mitoray-c'"),
    ],
)
def test_a_classifiers_card_that_cannot_be_is_refused(tmp_path, changes, message):
    bundle = classifier_bundle()
    save_bundle(bundle, bundle.weights, tmp_path)
    card = json.loads((tmp_path / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps({**card, **changes}))
    with pytest.raises(BadModel, match=message):
        load_bundle(str(tmp_path))
