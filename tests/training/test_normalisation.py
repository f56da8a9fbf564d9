import numpy as np
import pytest
import torch

from mitoray.errors import BadOption
from mitoray.phantom import draw_patches
from mitoray.training.normalisation import tissue_statistics


def test_statistics_are_those_of_all_tissue_pixels_together():
    parts = [
        draw_patches(d, n=n, size_px=s, seed=n)[0]
        for d, n, s in (("phantom-lung-a", 5, 64), ("phantom-breast-a", 2, 96))
    ]
    parts[0][:, :20] = [247, 245, 250]
    batches = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in parts)
    found = tissue_statistics(batches)
    pixels = np.concatenate([part.reshape(-1, 3) for part in parts]).astype(np.float64)
    glass = (pixels.min(axis=1) > 200) & (np.ptp(pixels, axis=1) < 16)
    assert glass.mean() > 0.1
    np.testing.assert_allclose(found.mean, pixels[~glass].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, pixels[~glass].std(axis=0), rtol=1e-9)


def test_how_the_images_are_batched_makes_no_difference():
    images = torch.from_numpy(draw_patches("phantom-lung-a", n=6, size_px=32, seed=0)[0]).permute(0, 3, 1, 2)
    assert tissue_statistics([images]) == tissue_statistics(images.split(1))


@pytest.mark.parametrize("images", [[], [torch.full((1, 3, 8, 8), 250, dtype=torch.uint8)]], ids=["none", "glass"])
def test_images_without_tissue_are_refused(images):
    with pytest.raises(BadOption, match="tissue"):
        tissue_statistics(images)
