import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from skimage.color import hed_from_rgb, rgb_from_hed

from mitoray.training.augment_colour import ColourChange, recoloured

N = 3


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(20, 240, (N, 3, 16, 16))).float()


def column(*values):
    return np.array(values, np.float64)[:, None]


def test_stain_jitter_without_jitter_is_the_identity(images):
    same = ColourChange.none(N).stain(np.ones((N, 3)), np.zeros((N, 3)))
    np.testing.assert_allclose(recoloured(images, same), images, rtol=0, atol=0.01)


def test_the_way_into_density_and_back_loses_nothing(images):
    # Gamma 2 and 0.5 in one matrix would cancel before any pixel is seen, so they go one after the other.
    there = recoloured(images, ColourChange.none(N).gamma(np.full((N, 3), 0.5)))
    back = recoloured(there, ColourChange.none(N).gamma(np.full((N, 3), 2.0)))
    np.testing.assert_allclose(back, images, rtol=0, atol=0.01)


def test_stain_jitter_is_that_of_scikit_images_stain_matrices(images):
    rng = np.random.default_rng(1)
    scale, shift = rng.uniform(0.75, 1.3, (N, 3)), rng.uniform(-0.03, 0.03, (N, 3))
    density = -np.log((images.numpy().transpose(0, 2, 3, 1).astype(np.float64) + 1) / 256)
    amounts = (density @ hed_from_rgb) * scale[:, None, None] + shift[:, None, None]
    expected = (256 * np.exp(-(amounts @ rgb_from_hed)) - 1).clip(0, 255).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        recoloured(images, ColourChange.none(N).stain(scale, shift)), expected, rtol=0, atol=0.02
    )


def test_more_haematoxylin_makes_it_bluer_and_darker_and_leaves_glass_white(images):
    images[:, :, 0] = 255
    scale = np.tile([1.5, 1.0, 1.0], (N, 1))
    images[:, :, 1:] = torch.tensor([150.0, 120.0, 190.0]).view(3, 1, 1)
    after = recoloured(images, ColourChange.none(N).stain(scale, np.zeros((N, 3))))
    np.testing.assert_allclose(after[:, :, 0], 255, atol=0.01)
    lost = (images - after)[:, :, 1:].mean((0, 2, 3))
    assert lost[0] > lost[2] > 0


@pytest.mark.parametrize(
    ("enhancer", "method", "tolerance"),
    [
        (ImageEnhance.Brightness, "brightness", 1.0),
        (ImageEnhance.Color, "saturation", 1.1),
    ],
)
def test_factors_mean_what_they_mean_in_pil(images, enhancer, method, tolerance):
    factors = [0.4, 1.0, 1.6]
    after = recoloured(images, getattr(ColourChange.none(N), method)(column(*factors)))
    for image, factor, got in zip(images, factors, after, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
        expected = np.asarray(enhancer(picture).enhance(factor)).transpose(2, 0, 1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_contrast_turns_around_the_mean_as_it_is_by_then(images):
    change = ColourChange.none(N).tint(np.full((N, 3), 7.0)).contrast(column(0.5, 1.0, 1.2)).tint(column(3, 3, 3))
    x = images + 7
    mean = x.mean((1, 2, 3), keepdim=True)
    expected = (x - mean) * torch.tensor([0.5, 1.0, 1.2]).view(N, 1, 1, 1) + mean + 3
    np.testing.assert_allclose(recoloured(images, change), expected.clamp(0, 255), rtol=0, atol=0.01)


def test_a_third_of_a_turn_of_hue_makes_red_green_and_grey_stays():
    x = torch.zeros(1, 3, 1, 2)
    x[0, 0, 0, 0] = 200
    x[0, :, 0, 1] = 90
    after = recoloured(x, ColourChange.none(1).hue(column(1 / 3)))
    np.testing.assert_allclose(after[0, :, 0].T, [[0, 200, 0], [90, 90, 90]], atol=1e-3)


def test_images_without_a_change_are_left_exact(images):
    after = recoloured(images, ColourChange.none(N).brightness(column(1.0, 0.5, 1.0)))
    assert torch.equal(after[[0, 2]], images[[0, 2]])
    np.testing.assert_allclose(after[1], images[1] / 2, atol=1e-3)


def test_two_changes_in_one_are_one_after_the_other(images):
    rng = np.random.default_rng(2)
    light = ColourChange.none(N).contrast(column(0.8, 0.9, 1.1)).tint(rng.uniform(-5, 5, (N, 3)))
    more = ColourChange.none(N).contrast(column(0.9, 0.7, 0.8)).saturation(column(0.5, 0.8, 0.9))
    x = images.clamp(60, 200)
    np.testing.assert_allclose(
        recoloured(x, light.followed_by(more)), recoloured(recoloured(x, light), more), rtol=0, atol=0.01
    )
