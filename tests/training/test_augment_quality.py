import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage
from torch.nn import functional as F

from mitoray.phantom import draw_patches
from mitoray.training.augment_quality import at_low_resolution, blurred, noisy, sharpened
from mitoray.training.randaugment import SMOOTH_SIGMA_PX


@pytest.fixture(scope="module")
def images():
    drawn, _ = draw_patches("phantom-breast-a", n=4, size_px=64, seed=2)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float()


def test_blur_is_scipys_with_a_width_for_each_image(images):
    sigma = np.array([0.5, 0.8, 1.2, 2.5])
    expected = [
        ndimage.gaussian_filter(image.numpy(), (0, s, s), mode="mirror", truncate=7.5 / s)
        for image, s in zip(images, sigma, strict=True)
    ]
    np.testing.assert_allclose(blurred(images, sigma), np.stack(expected), rtol=0, atol=0.02)


def test_a_blur_wider_than_the_image_is_still_a_blur():
    x = torch.rand(1, 3, 6, 6)
    after = blurred(x, np.array([10.0]))
    assert after.std() < 0.3 * x.std()


def test_sharpening_draws_halos_and_keeps_flat_areas():
    step = torch.full((1, 3, 9, 32), 100.0)
    step[..., 16:] = 200
    after = sharpened(step, np.array([1.0]), np.array([1.5]))[0, 0, 4]
    assert after[15] < 70
    assert after[16] > 230
    np.testing.assert_allclose(after[[0, 31]], [100, 200], atol=0.1)


@pytest.mark.parametrize("factor", [0.2, 1.8])
def test_the_narrow_mask_is_pils_sharpness(images, factor):
    n = len(images)
    after = sharpened(images, np.full(n, SMOOTH_SIGMA_PX), np.full(n, factor - 1))
    pictures = [Image.fromarray(image.permute(1, 2, 0).byte().numpy()) for image in images]
    by_pil = np.stack([np.asarray(ImageEnhance.Sharpness(p).enhance(factor)).transpose(2, 0, 1) for p in pictures])
    # PIL rounds on the way and leaves the border out.
    ours, theirs = (
        (changed - images.numpy())[..., 1:-1, 1:-1].ravel() for changed in (after.numpy(), by_pil.astype(np.float32))
    )
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    assert 0.93 < ours.std() / theirs.std() < 1.07


def test_noise_has_the_spread_asked_for_and_comes_again_with_its_seed():
    x = torch.full((2, 3, 64, 64), 100.0)
    after = noisy(x, np.array([2.0, 6.0]), seed=5)
    np.testing.assert_allclose(after.std((1, 2, 3)), [2, 6], rtol=0.05)
    np.testing.assert_allclose(after.mean((1, 2, 3)), [100, 100], atol=0.3)
    assert torch.equal(after, noisy(x, np.array([2.0, 6.0]), seed=5))
    assert not torch.equal(after, noisy(x, np.array([2.0, 6.0]), seed=6))


def test_each_image_at_its_own_resolution_is_as_if_brought_there_alone(images):
    factor = np.array([0.5, 0.41, 0.77, 0.9])
    seen = []
    after = at_low_resolution(images, factor, lambda small: seen.append(small) or small)
    for i, f in enumerate(factor):
        side = round(64 * f)
        small = F.interpolate(images[i : i + 1], size=side, mode="bilinear", antialias=True)
        np.testing.assert_allclose(seen[0][i, :, :side, :side], small[0], rtol=0, atol=0.05)
        for channel, got in zip(small[0].numpy(), after[i], strict=True):
            expected = Image.fromarray(channel).resize((64, 64), Image.Resampling.BICUBIC)
            np.testing.assert_allclose(got[6:-6, 6:-6], np.asarray(expected)[6:-6, 6:-6], rtol=0, atol=0.1)
            # At the border PIL leaves the taps beyond out, where here the last pixel goes on.
            np.testing.assert_allclose(got, expected, rtol=0, atol=4)


def test_beyond_its_side_a_small_image_is_continued_as_jpeg_does(images):
    seen = []
    at_low_resolution(images[:2], np.array([0.5, 0.75]), lambda small: seen.append(small) or small)
    small = seen[0][0]
    assert small.shape[-1] == 48
    assert torch.equal(small[:, :32, 32:], small[:, :32, 31:32].expand(3, 32, 16))


def test_full_resolution_is_the_image_itself(images):
    np.testing.assert_allclose(at_low_resolution(images, np.ones(4)), images, rtol=0, atol=1e-3)
