import numpy as np
import pytest
import torch

from mitoray.training.heatmap import Schedule, centre_targets, focal_loss, train_heatmap
from mitoray.training.material import phantom_patches


@pytest.fixture(scope="module")
def draw():
    patches = phantom_patches("phantom-breast-a", 48, 64, 0.25, seed=1)
    patches = patches.taken(patches.centres_px.isfinite().any(dim=2).any(dim=1).numpy())
    return lambda rng, view_px: patches.views(12, view_px, rng)


def test_a_short_training_lowers_its_loss(draw):
    _, losses = train_heatmap(draw, Schedule(steps=25, view_px=64))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) * 0.7


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(draw):
    (first, losses), (second, again) = (train_heatmap(draw, Schedule(steps=4, view_px=48, seed=5)) for _ in range(2))
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    _, other = train_heatmap(draw, Schedule(steps=4, view_px=48, seed=6))
    assert losses != other


def test_training_pauses_once_at_each_stated_share(draw):
    schedule = Schedule(steps=4, view_px=48, pause_at=(0.75, 0.5))
    before = []
    train_heatmap(
        draw, schedule, at_pause=lambda network: before.append(int(network.stride4[0].norm.num_batches_tracked))
    )
    assert before == [2, 3]


def test_the_learning_rate_rises_and_falls_once():
    rates = [Schedule(learning_rate=1.0).rate_at(step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[30] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(1e-4)
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()


def test_a_training_of_minutes_ends_by_the_clock(draw):
    _, losses = train_heatmap(draw, Schedule(steps=10**9, minutes=0.01, view_px=48))
    assert losses


def test_targets_peak_at_the_cell_of_each_figure():
    centres = torch.tensor([[[21.0, 8.0], [torch.nan, torch.nan]], [[torch.nan] * 2] * 2])
    targets = centre_targets(centres, 48)
    assert targets.shape == (2, 12, 12)
    assert (targets == 1).nonzero().tolist() == [[0, 2, 5]]
    assert targets[0, 2, 6] == pytest.approx(np.exp(-1 / (2 * 1.5**2)))
    assert targets[1].max() == 0


def test_a_figure_beyond_the_view_has_no_peak_in_it():
    targets = centre_targets(torch.tensor([[[-6.0, 20.0]]]), 48)
    assert 0 < targets.max() < 1


def test_the_focal_loss_follows_its_equation():
    logits, targets = torch.tensor([[[0.0, 2.0], [-3.0, 1.0]]]), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    p, y = 1 / (1 + np.exp(-logits.numpy())), targets.numpy()
    at_peak = (1 - p) ** 2 * np.log(p)
    elsewhere = (1 - y) ** 4 * p**2 * np.log(1 - p)
    assert focal_loss(logits, targets) == pytest.approx(-np.where(y == 1, at_peak, elsewhere).sum() / 2, rel=1e-5)
