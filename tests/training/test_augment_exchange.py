import numpy as np
import pytest
import torch

from mitoray.training.augment import Augmentation, augment
from mitoray.training.augment_colour import ColourChange, recoloured
from mitoray.training.augment_exchange import exchange_gains, mean_density
from mitoray.training.patches import Patches

PINK, BROWN = (200.0, 130.0, 190.0), (190.0, 130.0, 150.0)


def stained(colour, seed, share=0.6):
    """An image of tissue of about that colour, the rest glass."""
    rng = np.random.default_rng(seed)
    image = np.full((3, 32, 32), 250.0)
    tissue = rng.random((32, 32)) < share
    image[:, tissue] = np.array(colour)[:, None] + rng.normal(0, 6, (1, int(tissue.sum())))
    return torch.from_numpy(image).float()


def test_the_mean_density_is_that_of_tissue_and_not_of_glass():
    density, share = mean_density(torch.stack([stained(PINK, 0), torch.full((3, 32, 32), 250.0)]))
    np.testing.assert_allclose(density[0], -np.log((np.array(PINK) + 1) / 256), atol=0.01)
    assert share[0] == pytest.approx(0.6, abs=0.05)
    assert share[1] == 0


def test_at_full_strength_images_take_over_the_others_mean_density():
    images = torch.stack([stained(PINK, 0), stained(BROWN, 1)])
    rng = np.random.default_rng(0)
    density, share = mean_density(images)
    gains = np.ones((2, 3))
    while np.allclose(gains, 1):  # a draw may leave both as they are
        gains = exchange_gains(density, share, rng, 1.0, (1.0, 1.0))
    after, _ = mean_density(recoloured(images, ColourChange.none(2).gamma(gains)))
    np.testing.assert_allclose(after, density[::-1], atol=0.02)


def test_glass_neither_gives_nor_takes_a_colour():
    images = torch.stack([stained(PINK, 0), torch.full((3, 32, 32), 250.0), stained(BROWN, 1, share=0.05)])
    gains = exchange_gains(*mean_density(images), np.random.default_rng(0), 1.0, (1.0, 1.0))
    np.testing.assert_array_equal(gains, 1)


def test_no_colour_tells_the_classes_apart_any_more():
    """With exchange, a threshold on redness that told all brown images from pink ones tells as much as chance."""
    n = 200
    images = torch.stack([stained(PINK if i % 2 else BROWN, i) for i in range(n)]).to(torch.uint8)
    batch = Patches(images, torch.full((n, 1, 2), torch.nan))
    is_pink = np.arange(n) % 2 == 1

    def told_apart(how):
        density, _ = mean_density(augment(batch, np.random.default_rng(1), how).images.float())
        blueness = density[:, 0] / density[:, 2]
        return ((blueness > np.median(blueness)) == is_pink).mean()

    assert told_apart(Augmentation.none()) == 1.0
    assert told_apart(Augmentation.none(exchange_probability=1.0, exchange_strength=(1.0, 1.0))) < 0.62


def test_without_exchange_the_dice_of_other_changes_fall_as_before():
    batch = Patches(torch.stack([stained(PINK, 3)]).to(torch.uint8), torch.zeros(1, 1, 2))
    first, second = (
        augment(batch, np.random.default_rng(5), Augmentation(exchange_strength=strength)).images
        for strength in ((0.5, 1.2), (0.0, 0.1))
    )
    assert torch.equal(first, second)
