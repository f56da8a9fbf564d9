import numpy as np
import pytest
import torch

from mitoray.phantom import draw_patches
from mitoray.training.augment import Augmentation, augment
from mitoray.training.patches import Patches
from mitoray.training.randaugment import OPERATIONS, draw_policy


@pytest.fixture(scope="module")
def batch():
    images, _ = draw_patches("phantom-breast-a", n=48, size_px=64, seed=4)
    return Patches(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.full((48, 1, 2), 31.5))


def mean_change(batch, **settings):
    after = augment(batch, np.random.default_rng(0), Augmentation.none(**settings))
    return (after.images.float() - batch.images.float()).abs().mean((1, 2, 3))


def test_more_operations_change_more_images_and_stronger_ones_more_of_them(batch):
    one, three = (mean_change(batch, randaugment_ops=n, randaugment_magnitude=5.0) for n in (1, 3))
    weak = mean_change(batch, randaugment_ops=3, randaugment_magnitude=1.0)
    assert (three > 0.5).float().mean() > 0.9
    assert three.mean() > one.mean() > 0
    assert three.mean() > 2 * weak.mean() > 0


def test_no_operations_or_no_magnitude_leave_the_images_alone(batch):
    assert mean_change(batch, randaugment_ops=0, randaugment_magnitude=10.0).max() == 0
    assert mean_change(batch, randaugment_ops=5, randaugment_magnitude=0.0).max() == 0


def test_strong_operations_neither_wrap_around_nor_blank_most_images(batch):
    how = Augmentation.none(randaugment_ops=2, randaugment_magnitude=10.0)
    after = augment(batch, np.random.default_rng(1), how)
    assert after.images.dtype == torch.uint8
    assert after.images.float().std((1, 2, 3)).median() > 10
    black_from_white = (after.images < 30).all(dim=1) & (batch.images > 225).all(dim=1)
    assert black_from_white.float().mean() < 0.01


def test_single_operations_touch_one_kind_each_about_equally_often():
    n = 6000
    policy = draw_policy(np.random.default_rng(0), n, 1, 10.0)
    geometric = np.abs(policy.geometry - np.eye(2, 3)).max(axis=(1, 2)) > 0
    sharp = policy.sharpness != 0
    in_density = np.abs(policy.colour.density - np.eye(3)).max(axis=(1, 2)) > 1e-12
    in_light = np.abs(policy.colour.light - np.eye(3)).max(axis=(1, 2)) > 1e-12
    assert (geometric.astype(int) + sharp + in_density + in_light).max() == 1
    shares = np.array([geometric.mean(), sharp.mean(), in_density.mean(), in_light.mean()])
    np.testing.assert_allclose(shares, np.array([5, 1, 1, 4]) / len(OPERATIONS), atol=0.03)


def test_both_directions_are_equally_likely():
    policy = draw_policy(np.random.default_rng(0), 6000, 1, 10.0)
    sharper = policy.sharpness[policy.sharpness != 0]
    assert abs((sharper > 0).mean() - 0.5) < 0.08
    assert np.abs(sharper).max() <= 0.9
