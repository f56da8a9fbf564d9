import numpy as np
import torch

from mitoray.phantom import draw_patches
from mitoray.training import augment as augmentation
from mitoray.training.augment import augment
from mitoray.training.patches import Patches


def test_orientation_moves_figures_with_their_pixels():
    n, size = 64, 20
    rng = np.random.default_rng(0)
    xy = torch.from_numpy(rng.integers(0, size, (n, 2)))
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8)
    images[torch.arange(n), :, xy[:, 1], xy[:, 0]] = 200
    turned, centres = augmentation._turn(images, xy.float()[:, None], rng)
    x, y = centres[:, 0].long().T
    assert (turned[torch.arange(n), 0, y, x] == 200).all()
    assert len({tuple(p) for p in (centres[:, 0] - xy).tolist()}) > n // 2


def test_augmented_views_differ_but_are_the_same_for_the_same_dice():
    images, _ = draw_patches("phantom-lung-a", n=16, size_px=96, seed=1)
    batch = Patches(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.full((16, 1, 2), 48.0))
    once, twice, other = (augment(batch, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(once.images, twice.images)
    assert once.images.dtype == torch.uint8
    assert once.images.shape == batch.images.shape
    assert all((a != b).float().mean() > 0.2 for a, b in zip(once.images, other.images, strict=True))


def test_stain_jitter_without_jitter_is_the_identity(monkeypatch):
    scale = iter([torch.ones(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)])
    monkeypatch.setattr(augmentation, "_uniform", lambda *_: next(scale))
    x = torch.rand(2, 3, 8, 8) * 255
    np.testing.assert_allclose(augmentation._stain(x, np.random.default_rng(0)), x, rtol=0, atol=0.01)
