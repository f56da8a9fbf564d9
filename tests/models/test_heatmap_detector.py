from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mitoray.errors import BadOption
from mitoray.models import heatmap, load_bundle
from mitoray.models.detector import SUPPRESSION_RADIUS_UM, suppress
from mitoray.models.heatmap import HeatmapDetector, HeatmapNet
from mitoray.models.placement import inference_dtype
from mitoray.phantom import DOMAINS, draw_phantom


@pytest.fixture(scope="module")
def shipped():
    return load_bundle("mitoray-s")


@pytest.fixture(scope="module")
def detector(shipped):
    return shipped.detector()


@pytest.fixture(scope="module")
def images(detector):
    """Two of 512 px at the detector's µm/px."""
    domain = DOMAINS["phantom-lymphoma-a"]
    crowded = replace(domain, tumour=replace(domain.tumour, figures_per_mm2=1500))
    width_px, height_px = (round(side * detector.mpp / domain.mpp) for side in (1024, 512))
    drawn = Image.fromarray(draw_phantom(crowded, seed=77, width_px=width_px, height_px=height_px).image)
    image = torch.from_numpy(np.array(drawn.resize((1024, 512), Image.Resampling.BOX)))
    return torch.stack([image[:, :512], image[:, 512:]]).permute(0, 3, 1, 2)


@pytest.fixture
def plain():
    """A detector with batch norms that are far from the identity."""
    torch.manual_seed(0)
    network = HeatmapNet().train()
    for _ in range(3):
        network(torch.rand(4, 3, 64, 64) * 3)
    return network.eval()


def around(points, low, high):
    inside = ((points.xy_px >= low) & (points.xy_px < high)).all(axis=1)
    order = np.lexsort(points.xy_px[inside].T)
    return points.xy_px[inside][order], points.scores[inside][order]


def test_fused_convolutions_give_the_heat_map_of_the_unfused(plain, images):
    x = images.float() / 255
    with torch.inference_mode():
        unfused = plain(x)
        fused = plain.for_inference(torch.float32)(x)
    assert unfused.std() > 0.01
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    np.testing.assert_allclose(fused, unfused, rtol=0, atol=1e-4)


def test_bfloat16_finds_what_float32_finds(shipped, images, monkeypatch):
    found = {}
    monkeypatch.setattr(heatmap, "integer_network", lambda *network: None)
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(heatmap, "inference_dtype", lambda device, dtype=dtype: dtype)
        detector = shipped.detector()
        found[dtype] = [*detector.detect(images, 0.05), *detector.detect(images[:, :, 3:, 5:], 0.05)]
        assert next(detector._network.fine.parameters()).dtype == dtype
        assert detector.heatmap(images).dtype == torch.float32
    tolerance = 0.02
    for fast, exact in zip(*found.values(), strict=True):
        assert len(exact) > 10
        for one, other in ((fast, exact), (exact, fast)):
            distances = np.linalg.norm(one.xy_px[:, None] - other.xy_px[None], axis=2)
            sure = one.scores > 0.05 + tolerance
            assert distances.min(axis=1)[sure].max() <= 4
            nearest = other.scores[distances.argmin(axis=1)]
            assert np.abs(nearest - one.scores)[sure].max() < tolerance


def test_a_cpu_without_bfloat16_instructions_stays_with_float32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert inference_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert inference_dtype(torch.device("cpu")) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert inference_dtype(torch.device("cpu")) == torch.float32


def test_a_shift_of_the_image_shifts_the_points(detector, images):
    # 16 px are a step of the coarsest features, so the answer is the same; 4 px are a cell of the heat-map.
    here = detector.detect(images[:, :, 16:, 16:], 0.3)[0]
    for shift, tolerance_px, tolerance in ((16, 0, 0.01), (4, 6, 0.25)):
        moved = detector.detect(images[:, :, 16 - shift :, 16 - shift :], 0.3 - tolerance)[0]
        moved_xy, moved_scores = moved.xy_px - shift, moved.scores
        xy, scores = around(here, 128, 368)
        assert len(xy) >= 3
        distances = np.linalg.norm(xy[:, None] - moved_xy[None], axis=2)
        assert distances.min(axis=1).max() <= tolerance_px
        np.testing.assert_allclose(moved_scores[distances.argmin(axis=1)], scores, atol=tolerance)


def test_the_halo_is_context_enough(detector, images):
    halo_px = round(detector.halo_um / detector.mpp)
    whole = detector.heatmap(images)[:, 256 // 4 - 16 : 256 // 4 + 16, 256 // 4 - 16 : 256 // 4 + 16]
    cut = slice(192 - halo_px, 320 + halo_px)
    part = detector.heatmap(images[:, :, cut, cut])[:, halo_px // 4 : -halo_px // 4, halo_px // 4 : -halo_px // 4]
    assert (whole - part).abs().max() < 0.02


def test_an_image_scores_the_same_alone_and_in_a_batch(detector, images):
    together = detector.detect(images, 0.1)
    for image, points in zip(images, together, strict=True):
        (alone,) = detector.detect(image[None], 0.1)
        np.testing.assert_array_equal(alone.xy_px, points.xy_px)
        np.testing.assert_allclose(alone.scores, points.scores, atol=1e-5)
        assert len(points) > 3


def test_bands_of_a_large_image_give_the_heat_map_of_the_whole(detector, images, monkeypatch):
    whole = detector.heatmap(images)
    monkeypatch.setattr(detector._pass, "pixels", 2 * 512 * 100)
    heights = []
    hook = detector._network.register_forward_pre_hook(lambda _, given: heights.append(given[0].shape[2]))
    np.testing.assert_allclose(detector.heatmap(images), whole, rtol=0, atol=1e-5)
    hook.remove()
    assert len(heights) == 6
    assert max(heights) < 512


def test_blank_glass_and_darkness_have_no_figures(detector):
    for grey in (0, 243, 255):
        image = torch.full((1, 3, 300, 200), grey, dtype=torch.uint8)
        (points,) = detector.detect(image, load_bundle("mitoray-s").threshold)
        assert len(points) == 0
        assert points.xy_px.shape == (0, 2)


def test_no_images_give_no_points(detector):
    assert detector.detect(torch.empty(0, 3, 64, 64, dtype=torch.uint8), 0.5) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (65, 97), (128, 31)])
def test_images_of_any_size_are_taken(detector, size):
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert detector.heatmap(image).shape == (1, -(-size[0] // 4), -(-size[1] // 4))
    (points,) = detector.detect(image, 0.0)
    assert len(points) >= 1
    assert (points.xy_px <= np.array(size[::-1]) - 1).all()


def test_a_higher_threshold_keeps_exactly_the_points_above_it(detector, images):
    all_points = detector.detect(images, 0.0)[0]
    for threshold in (0.05, 0.3, 0.6):
        points = detector.detect(images, threshold)[0]
        kept = all_points.scores >= threshold
        np.testing.assert_array_equal(points.xy_px, all_points.xy_px[kept])
        assert 0 < kept.sum() < len(kept)


def test_points_are_typed_ranked_and_apart(detector, images):
    points = detector.detect(images, 0.0)[0]
    assert points.xy_px.dtype == points.scores.dtype == np.float32
    assert (np.diff(points.scores) <= 0).all()
    assert points.scores.min() >= 0
    assert points.scores.max() <= 1
    distances = np.linalg.norm(points.xy_px[:, None] - points.xy_px[None], axis=2)
    assert distances[~np.eye(len(points), dtype=bool)].min() > SUPPRESSION_RADIUS_UM / detector.mpp


def test_a_lone_bright_cell_is_reported_at_its_pixel():
    class Spot(HeatmapNet):
        def forward(self, x):
            logits = torch.full((len(x), 1, 16, 16), -5.0)
            logits[:, :, 3, 7] = 2.0
            return logits

    cpu = torch.device("cpu")
    spot = HeatmapDetector(Spot(), mpp=0.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), device=cpu)
    (points,) = spot.detect(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 0.5)
    assert points.xy_px.tolist() == [[28.0, 12.0]]
    assert points.scores == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)],
    ids=["float", "one image", "channels last"],
)
def test_other_arrays_are_a_bad_option(detector, images):
    with pytest.raises(BadOption, match="a detector takes uint8"):
        detector.detect(images, 0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_its_range_is_a_bad_option(detector, threshold):
    with pytest.raises(BadOption, match="outside"):
        detector.detect(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), threshold)


@given(st.data())
def test_suppression_keeps_the_best_of_every_neighbourhood(data):
    n = data.draw(st.integers(0, 30))
    xy = data.draw(arrays(np.float32, (n, 2), elements=st.integers(0, 60).map(float)))
    scores = data.draw(arrays(np.float32, n, elements=st.sampled_from([0.1, 0.2, 0.5, 0.9])))
    kept = suppress(xy, scores, 10.0)
    apart = np.linalg.norm(kept.xy_px[:, None] - kept.xy_px[None], axis=2) + 1e9 * np.eye(len(kept))
    assert (apart > 10).all()
    for point, score in zip(xy, scores, strict=True):
        assert kept.scores[np.linalg.norm(kept.xy_px - point, axis=1) <= 10].max() >= score
