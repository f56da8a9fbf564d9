import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mitoray.models import cpu_inference, heatmap, load_bundle
from mitoray.models.architectures import built
from mitoray.models.cpu_inference import TOLERANCE, IntegerHeatmapNet, integer_network
from mitoray.models.heatmap import HeatmapDetector, HeatmapNet
from mitoray.models.integers import IntegerConv, supported
from mitoray.phantom import DOMAINS, draw_phantom

needs_integers = pytest.mark.skipif(not supported(), reason="needs a CPU with AVX512-VNNI instructions")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("mitoray-s")


def network_of(bundle):
    network = built(bundle.architecture, bundle.settings)
    network.load_state_dict(dict(bundle.weights))
    return network


def detector_of(bundle, **options):
    normalisation = bundle.normalisation
    return HeatmapDetector(
        network_of(bundle), mpp=bundle.mpp, mean=normalisation.mean, std=normalisation.std, device=CPU, **options
    )


@pytest.fixture(scope="module")
def in_integers(bundle):
    return detector_of(bundle)


@pytest.fixture(scope="module")
def in_float32(bundle):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmap, "inference_dtype", lambda device: torch.float32)
        return detector_of(bundle, integers=False)


@pytest.fixture(scope="module")
def phantoms(bundle):
    """One of 256 px from each domain, crowded with figures, at the detector's µm/px."""
    images = []
    for seed, domain in enumerate(DOMAINS.values()):
        crowded = replace(domain, tumour=replace(domain.tumour, figures_per_mm2=800, imposters_per_mm2=500))
        side_px = round(256 * bundle.mpp / domain.mpp)
        drawn = Image.fromarray(draw_phantom(crowded, seed=seed, width_px=side_px, height_px=side_px).image)
        images.append(torch.from_numpy(np.array(drawn.resize((256, 256), Image.Resampling.BOX))))
    return torch.stack(images).permute(0, 3, 1, 2)


@needs_integers
def test_the_shipped_detector_runs_in_integers_and_scores_within_the_tolerance(in_integers, in_float32, phantoms):
    assert isinstance(in_integers._network, IntegerHeatmapNet)
    exact = in_float32.heatmap(phantoms)
    apart = (in_integers.heatmap(phantoms) - exact).abs()
    assert exact.max() > 0.5
    assert 0 < apart.max() <= TOLERANCE


@needs_integers
def test_integers_find_what_float32_finds_but_for_scores_at_the_threshold(bundle, in_integers, in_float32, phantoms):
    found = in_integers.detect(phantoms, bundle.threshold - TOLERANCE)
    expected = in_float32.detect(phantoms, bundle.threshold - TOLERANCE)
    cell_px = 4
    n_sure = 0
    for ones, others in [*zip(found, expected, strict=True), *zip(expected, found, strict=True)]:
        sure = ones.xy_px[ones.scores >= bundle.threshold]
        n_sure += len(sure)
        if len(sure):
            distances = np.abs(sure[:, None] - others.xy_px[None]).max(axis=2)
            assert distances.min(axis=1).max() <= cell_px
    assert n_sure >= 100


@needs_integers
def test_integers_answer_the_same_in_bands_in_batches_and_alone(in_integers, phantoms, monkeypatch):
    image = torch.cat(list(phantoms), dim=1)[:, :1100, :250]
    # Sums are exact; the sigmoid alone may differ, in its last bit.
    whole = in_integers.heatmap(image[None])
    torch.testing.assert_close(in_integers.heatmap(torch.stack([image, image.flip(2)]))[:1], whole, rtol=0, atol=1e-7)
    monkeypatch.setattr(in_integers._pass, "pixels", 250 * 200)
    torch.testing.assert_close(in_integers.heatmap(image[None]), whole, rtol=0, atol=1e-7)


@needs_integers
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (65, 97), (127, 31)])
def test_the_border_of_an_image_of_any_size_is_that_of_float32(in_integers, in_float32, phantoms, size):
    image = phantoms[:1, :, 100 : 100 + size[0], 100 : 100 + size[1]]
    np.testing.assert_allclose(in_integers.heatmap(image), in_float32.heatmap(image), rtol=0, atol=TOLERANCE)


@needs_integers
def test_a_planar_image_scores_like_an_interleaved_one(in_integers, phantoms):
    interleaved = phantoms[:2].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        in_integers.heatmap(phantoms[:2].contiguous()), in_integers.heatmap(interleaved), rtol=0, atol=1e-7
    )


@needs_integers
@pytest.mark.parametrize(("zero_in", "relu"), [(0, True), (128, False)])
def test_a_convolution_of_integers_is_that_of_the_numbers_they_stand_for(zero_in, relu):
    torch.manual_seed(1)
    conv = nn.Conv2d(24, 40, 3, stride=2, padding=1).requires_grad_(False)
    q = torch.randint(0, 256, (2, 24, 19, 23), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    step_in, step_out = torch.rand(24) / 50 + 0.01, torch.rand(40) / 50 + 0.02
    expected = conv((q.float() - zero_in) * step_in.view(1, -1, 1, 1))
    before = torch.randint(0, 256, expected.shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    integers = IntegerConv(conv, step_in, step_out, relu=relu, zero_in=zero_in, zero_out=128)
    step, zero = step_out.view(1, -1, 1, 1), 128

    def rounded(values):
        return (values / step + zero).round().clamp(0, 255)

    activated = expected.relu() if relu else expected
    assert (integers(q).float() - rounded(activated)).abs().max() <= 2
    summed = expected + 0.5 * (before.float() - zero) * step
    summed = summed.relu() if relu else summed
    assert (integers.add_to(before.clone(), q, 0.5).float() - rounded(summed)).abs().max() <= 2
    assert rounded(summed).std() > 10


def test_a_cpu_without_the_instructions_does_not_use_integers(bundle, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    assert not supported()
    assert isinstance(detector_of(bundle)._network, HeatmapNet)
    monkeypatch.delattr(torch.cpu, "_is_vnni_supported")
    assert not supported()


@needs_integers
def test_integers_can_be_declined(bundle):
    assert isinstance(detector_of(bundle, integers=False)._network, HeatmapNet)


@needs_integers
def test_a_network_whose_batch_norms_belong_to_other_weights_stays_as_it_is(bundle, caplog):
    network = network_of(bundle)
    with torch.no_grad():
        network.fine[1].norm.running_var.mul_(1e-4)  # its outputs are a hundred times what its norm believes
    cpu_inference._announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="mitoray.models.cpu_inference"):
        network = network.for_inference(torch.float32)
        normalisation = bundle.normalisation
        assert integer_network(network, normalisation.mean, normalisation.std) is None
        assert integer_network(network, normalisation.mean, normalisation.std) is None
    assert [record.getMessage() for record in caplog.records] == [
        "heat-map network on the CPU: 8-bit integers are not used: they differ from float32"
    ]


@needs_integers
def test_a_version_of_torch_without_the_operations_stays_with_floats(bundle, monkeypatch):
    def refuses(*arguments):
        raise RuntimeError("unknown schema")

    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", refuses)
    assert isinstance(detector_of(bundle)._network, HeatmapNet)
