from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from mitoray.phantom import draw_patches
from mitoray.training.augment_jpeg import compressed, quantisation

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def file_of(image, quality, subsampled):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return Image.open(file)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("subsampled", [False, True], ids=["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size_px", [96, 83])
def test_losses_are_those_of_a_real_jpeg_file(device, subsampled, size_px):
    quality = np.array([25, 40, 50, 60, 70, 75, 80, 90, 95])
    images, _ = draw_patches("phantom-breast-a", n=len(quality), size_px=size_px, seed=3)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().to(device)
    after = compressed(x, quality, np.full(len(quality), subsampled)).cpu().permute(0, 2, 3, 1).numpy()
    for image, q, got in zip(images, quality, after, strict=True):
        expected = np.asarray(file_of(image, int(q), subsampled)).astype(np.float32)
        lost = np.abs(expected - image).mean()
        assert np.abs(got - expected).mean() < min(0.4, 0.25 * lost), f"quality {q}, {lost:.2f} lost"
    assert after.min() >= 0
    assert after.max() <= 255
    assert (after == after.round()).all()


@pytest.mark.parametrize("quality", [1, 25, 49, 50, 75, 95, 100])
def test_quantisation_tables_are_libjpegs(quality):
    tables = file_of(np.zeros((16, 16, 3), np.uint8), quality, True).quantization
    ours = quantisation(np.array([quality]))[0]
    for channel, table in ((0, 0), (1, 1), (2, 1)):
        np.testing.assert_array_equal(ours[channel], tables[table])


def test_lower_quality_loses_more_and_each_image_has_its_own():
    images, _ = draw_patches("phantom-breast-a", n=1, size_px=64, seed=3)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().repeat(4, 1, 1, 1)
    after = compressed(x, np.array([90, 70, 50, 25]), np.array([False, True, False, True]))
    lost = (after - x).abs().mean((1, 2, 3))
    assert (lost.diff() > 0).all()
    alone = compressed(x[1:2], np.array([70]), np.array([True]))
    np.testing.assert_allclose(after[1:2], alone, atol=1.0)
