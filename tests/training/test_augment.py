from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mitoray.errors import BadOption
from mitoray.phantom import draw_patches
from mitoray.training.augment import Augmentation, augment
from mitoray.training.patches import Patches

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
ALWAYS = Augmentation(
    **{field.name: 1.0 for field in fields(Augmentation) if field.name.endswith("_probability")}, randaugment_ops=2
)


@pytest.fixture(scope="module")
def images():
    drawn, _ = draw_patches("phantom-lung-a", n=16, size_px=96, seed=1)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def batch_of(images, device):
    centres = torch.full((len(images), 2, 2), torch.nan)
    centres[:, 0] = 48.0
    return Patches(images.to(device), centres.to(device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", [Augmentation(), ALWAYS], ids=["default", "everything"])
def test_augmented_views_differ_but_are_the_same_for_the_same_dice(images, device, how):
    batch = batch_of(images, device)
    before = batch.images.clone()
    once, twice, other = (augment(batch, np.random.default_rng(seed), how) for seed in (1, 1, 2))
    assert torch.equal(once.images, twice.images)
    assert torch.equal(once.centres_px.nan_to_num(-1), twice.centres_px.nan_to_num(-1))
    assert once.images.dtype == torch.uint8
    assert once.images.shape == batch.images.shape
    assert once.images.device == once.centres_px.device == batch.images.device
    assert once.centres_px.dtype == torch.float32
    assert torch.equal(once.centres_px.isnan(), batch.centres_px.isnan())
    assert all((a != b).float().mean() > 0.2 for a, b in zip(once.images, other.images, strict=True))
    assert torch.equal(batch.images, before)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_changes_where_nothing_is_asked_for(images, device):
    batch = batch_of(images, device)
    after = augment(batch, np.random.default_rng(0), Augmentation.none())
    assert torch.equal(after.images, batch.images)
    assert torch.equal(after.centres_px.nan_to_num(-1), batch.centres_px.nan_to_num(-1))


@pytest.mark.parametrize("field", [f.name for f in fields(Augmentation) if f.name.endswith("_probability")])
def test_each_change_comes_as_often_as_its_probability_says(images, field):
    batch = batch_of(images.repeat(16, 1, 1, 1), "cpu")
    # A quarter of the images, or, of the turns, seven eighths of it, as one turn of eight changes nothing.
    after = augment(batch, np.random.default_rng(0), Augmentation.none(**{field: 0.25}))
    changed = (after.images != batch.images).flatten(1).any(dim=1).float().mean()
    assert 0.12 < changed < 0.36


def test_default_strength_leaves_tissue_recognisable(images):
    batch = batch_of(images.repeat(8, 1, 1, 1), "cpu")
    how = replace(Augmentation(), turn_probability=0.0, affine_probability=0.0)
    after = augment(batch, np.random.default_rng(0), how).images.float()
    both = torch.stack([batch.images.float().mean(1).flatten(1), after.mean(1).flatten(1)], dim=1)
    correlation = torch.stack([torch.corrcoef(pair)[0, 1] for pair in both])
    assert correlation.median() > 0.9
    assert correlation.min() > 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("output_px", [48, 64, 96, 160])
def test_figures_are_found_where_their_centres_went(device, output_px):
    n, side = 64, 96
    rng = np.random.default_rng(0)
    xy = torch.from_numpy(rng.integers(24, side - 24, (n, 2)))
    images = torch.full((n, 3, side, side), 10, dtype=torch.uint8)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            images[torch.arange(n), :, xy[:, 1] + dy, xy[:, 0] + dx] = 250
    batch = Patches(images.to(device), xy.float()[:, None].to(device))
    how = Augmentation.none(
        turn_probability=1.0, affine_probability=1.0, rotation_degrees=180.0, scale=(0.8, 1.25), shear_degrees=15.0
    )
    how = replace(how, randaugment_ops=1, randaugment_magnitude=10.0)
    after = augment(batch, rng, how, output_px=output_px)
    assert after.images.shape == (n, 3, output_px, output_px)
    centres = after.centres_px[:, 0].cpu()
    inside = ((centres > 3) & (centres < output_px - 4)).all(dim=1)
    assert inside.sum() > n // 2
    weight = (after.images.float().mean(1).cpu() - after.images.float().mean(1).cpu().amin((1, 2), keepdim=True)) ** 2
    grid = torch.arange(output_px, dtype=torch.float32)
    # The dot alone, not its mirror image in the margin.
    near = [(grid - centres[:, axis, None]).abs() < 8 for axis in (0, 1)]
    weight = weight * near[1][:, :, None] * near[0][:, None, :]
    total = weight.sum((1, 2))
    found = torch.stack([(weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)], dim=1) / total[:, None]
    assert (found - centres)[inside].abs().max() < 1


def test_another_resolution_moves_centres_by_pixel_areas_not_by_pixel_numbers(images):
    batch = Patches(images[:1], torch.tensor([[[-0.5, 95.5], [47.5, 0.0]]]))
    after = augment(batch, np.random.default_rng(0), Augmentation.none(), output_px=48)
    np.testing.assert_allclose(after.centres_px[0], [[-0.5, 47.5], [23.5, -0.25]], atol=1e-6)
    expected = images[0].float().view(3, 48, 2, 48, 2).mean((2, 4))
    assert (after.images[0].float() - expected).abs().mean() < 6


@pytest.mark.parametrize(
    "settings",
    [
        {"blur_probability": 1.5},
        {"scale": (1.2, 0.8)},
        {"jpeg_quality": (0, 90)},
        {"low_resolution_factor": (0.5, 2.0)},
        {"tint": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(BadOption, match=next(iter(settings))):
        Augmentation(**settings)


def test_a_tiny_output_is_refused(images):
    with pytest.raises(BadOption, match="output_px"):
        augment(batch_of(images, "cpu"), np.random.default_rng(0), output_px=4)
