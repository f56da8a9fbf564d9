import copy

import numpy as np
import pytest
import torch
from dark_spots import MEAN, STD, dark_spots, trained

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Normalisation, Training, load_bundle, save_bundle
from mitoray.models.architectures import ARCHITECTURES, built
from mitoray.models.boxes import BoxDetector
from mitoray.models.detector import SUPPRESSION_RADIUS_UM
from mitoray.training.patches import Patches
from mitoray.training.validation import validated

BOXES = ["retinanet", "fcos"]


def network_of(architecture, **settings):
    torch.manual_seed(0)
    return built(architecture, {"channels": 32, **settings})


def detector_of(network, mpp=0.25):
    return BoxDetector(copy.deepcopy(network), mpp=mpp, mean=MEAN, std=STD, device=torch.device("cpu"))


def apart(xy_px, others):
    """Distances (n, m)."""
    return np.linalg.norm(np.asarray(xy_px)[:, None] - np.asarray(others)[None], axis=2)


@pytest.fixture(scope="module", params=BOXES)
def learned(request):
    """An architecture's name, a network that was trained for seconds, and its losses."""
    network = network_of(request.param)
    losses = trained(network, 24)
    return request.param, network, losses


def test_a_short_training_lowers_the_loss(learned):
    _, _, losses = learned
    assert np.isfinite(losses).all()
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_points_lie_at_the_figures(learned):
    _, network, _ = learned
    images, centres = dark_spots(6, 128, 192, 4, np.random.default_rng(5))
    detector = detector_of(network)
    found = validated(detector, Patches(images, centres))
    assert found.average_precision > 0.9
    distances = [
        apart(points.xy_px, figures).min(axis=0)
        for points, figures in zip(detector.detect(images, found.threshold), centres, strict=True)
    ]
    assert np.median(distances) < 6


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BOXES)
@pytest.mark.parametrize("level", [3, 5])
def test_points_lie_at_the_figures_at_other_levels(architecture, level):
    network = network_of(architecture, level=level)
    trained(network, 200, size_px=128)
    images, centres = dark_spots(6, 128, 192, 4, np.random.default_rng(5))
    assert validated(detector_of(network), Patches(images, centres)).average_precision > 0.9


def test_bands_of_a_tall_image_give_the_points_of_the_whole(learned, monkeypatch):
    _, network, _ = learned
    detector = detector_of(network)
    images, _ = dark_spots(1, 900, 130, 14, np.random.default_rng(2))
    (whole,) = detector.detect(images, 0.05)
    monkeypatch.setattr(detector._pass, "pixels", 130 * 128)
    heights = []
    hook = detector._network.register_forward_pre_hook(lambda _, given: heights.append(given[0].shape[2]))
    (banded,) = detector.detect(images, 0.05)
    hook.remove()
    assert len(heights) == 8
    assert max(heights) <= 128 + 2 * 160
    assert len(whole) >= 8
    assert len(banded) == len(whole)
    np.testing.assert_allclose(banded.scores, whole.scores, atol=2e-3)
    assert apart(banded.xy_px, whole.xy_px).min(axis=0).max() < 0.1


def test_glass_further_away_than_the_context_changes_no_score(learned):
    _, network, _ = learned
    detector = detector_of(network)
    images, _ = dark_spots(1, 400, 130, 6, np.random.default_rng(3))
    glass = torch.full((1, 3, 1600, 130), 245, dtype=torch.uint8)
    (alone,), (beside,) = (detector.detect(x, 0.05) for x in (images, torch.cat([images, glass], dim=2)))
    inside = 400 - 160
    alone_there, beside_there = (points.scores[points.xy_px[:, 1] < inside] for points in (alone, beside))
    assert len(alone_there) >= 2
    np.testing.assert_allclose(beside_there, alone_there, atol=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (70, 97), (128, 20)])
def test_images_of_any_size_are_taken_and_points_lie_in_them(learned, size):
    _, network, _ = learned
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = detector_of(network).detect(images, 0.0)
    assert len(found) == 2
    for points in found:
        assert len(points) >= (size != (1, 1))
        assert (points.xy_px >= -0.5).all()
        assert (points.xy_px < np.array(size[::-1]) - 0.5).all()
        assert points.xy_px.dtype == points.scores.dtype == np.float32
        assert (np.diff(points.scores) <= 0).all()
        nearest_px = apart(points.xy_px, points.xy_px)[~np.eye(len(points), dtype=bool)].min(initial=99)
        assert nearest_px > SUPPRESSION_RADIUS_UM / 0.25


def test_no_images_give_no_points_and_other_arrays_are_refused(learned):
    _, network, _ = learned
    detector = detector_of(network)
    assert detector.detect(torch.empty(0, 3, 64, 64, dtype=torch.uint8), 0.5) == []
    with pytest.raises(BadOption, match="a detector takes uint8"):
        detector.detect(torch.zeros(1, 3, 64, 64), 0.5)
    with pytest.raises(BadOption, match="outside"):
        detector.detect(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 1.5)


@pytest.mark.parametrize("architecture", BOXES)
@pytest.mark.parametrize("level", [3, 4, 5])
def test_the_level_sets_the_distance_of_anchors(architecture, level):
    network = network_of(architecture, level=level).eval()
    with torch.inference_mode():
        centres, scores = network(torch.zeros(1, 3, 96, 160))
    anchors = {"retinanet": 3, "fcos": 1}[architecture]
    assert scores.shape == (1, anchors * (96 // 2**level) * (160 // 2**level))
    assert centres.shape == (*scores.shape, 2)
    assert ((scores >= 0) & (scores <= 1)).all()
    # Without training boxes are still their anchors, whose middles are cells apart.
    columns = np.sort(np.unique(np.rint(centres[0, :, 0].numpy() / 4)))
    assert np.median(np.diff(columns)) * 4 == pytest.approx(2**level, abs=4)


@pytest.mark.parametrize("architecture", BOXES)
def test_places_are_met_as_exactly_in_16_bits(architecture):
    network = network_of(architecture).eval()
    wide = torch.zeros(1, 3, 32, 4096)
    with torch.inference_mode():
        exact, _ = network(wide)
        with torch.autocast("cpu", torch.bfloat16):
            rounded, _ = network(wide)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.5


@pytest.mark.parametrize("architecture", BOXES)
def test_figures_beyond_the_image_and_none_at_all_are_background(architecture):
    network = network_of(architecture)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    none = torch.full((2, 3, 2), torch.nan)
    beyond = none.clone()
    beyond[0, 0], beyond[1, 1] = torch.tensor([-3.0, 20.0]), torch.tensor([20.0, 64.0])
    within = none.clone()
    within[0, 0] = torch.tensor([30.0, 20.0])
    empty, outside, inside = (network.loss(x, centres).item() for centres in (none, beyond, within))
    assert np.isfinite(empty)
    assert outside == pytest.approx(empty)
    assert inside > empty + 0.1


@pytest.mark.parametrize("architecture", BOXES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 2}, "level 2 is not offered; use 3, 4 or 5"),
        ({"channels": 48}, "channels 48 must be a multiple of 32"),
        ({"channels": 0}, "from 32 to 1024"),
        ({"box_px": 0}, "box_px 0 lies outside 8 to 512"),
        ({"level": 4.0}, "level must be int, not 4.0"),
        ({"depth": 50}, "has no setting 'depth'; it has level, channels, box_px"),
    ],
)
def test_wrong_settings_are_bad_options(architecture, settings, message):
    with pytest.raises(BadOption, match=message):
        built(architecture, settings)


def test_an_unknown_architecture_is_a_bad_option():
    with pytest.raises(BadOption, match="'yolo-99' is unknown; this version knows mitoray-s, retinanet"):
        built("yolo-99", {})


@pytest.mark.parametrize("architecture", BOXES)
def test_layer_groups_hold_each_weight_once(architecture):
    network = network_of(architecture)
    grouped = [id(p) for group in network.layer_groups for module in group for p in module.parameters()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}


def bundle_of(architecture, **settings):
    return Bundle(
        name=f"{architecture}-spots",
        architecture=architecture,
        settings=settings,
        mpp=0.25,
        threshold=0.3,
        thresholds={},
        normalisation=Normalisation(mean=MEAN, std=STD),
        training=Training(data=("dark spots",), licence="MIT", notes=()),
        metrics=(),
    )


def test_a_saved_bundle_detects_the_same_points_again(learned, tmp_path):
    architecture, network, _ = learned
    save_bundle(bundle_of(architecture, channels=32), network.state_dict(), tmp_path)
    again = load_bundle(str(tmp_path)).detector()
    images, _ = dark_spots(2, 120, 150, 4, np.random.default_rng(8))
    for before, after in zip(detector_of(network).detect(images, 0.02), again.detect(images, 0.02), strict=True):
        assert len(before) >= 2
        np.testing.assert_array_equal(before.xy_px, after.xy_px)
        np.testing.assert_array_equal(before.scores, after.scores)
    assert again.mpp == 0.25
    assert again.halo_um == 40


def test_a_bundle_of_other_settings_than_its_weights_is_refused(learned, tmp_path):
    architecture, network, _ = learned
    with pytest.raises(BadModel, match=f"weights do not fit architecture '{architecture}'"):
        save_bundle(bundle_of(architecture, channels=64), network.state_dict(), tmp_path)
    with pytest.raises(BadModel, match="level 7 is not offered"):
        save_bundle(bundle_of(architecture, channels=32, level=7), network.state_dict(), tmp_path)


def test_every_architecture_that_is_trained_here_has_a_loss_and_layer_groups():
    for name in ("mitoray-s", *BOXES):
        network = ARCHITECTURES[name].network()
        assert len(network.layer_groups) == 3
        assert callable(network.loss)
