import numpy as np
import pytest
import torch

from mitoray.errors import BadOption
from mitoray.training.material import held_out, padded, phantom_patches, read_real
from mitoray.training.mitoray_s import BORDER_SHARE, bordered
from mitoray.training.patches import Patches, Tissue, mixed

RNG_SEED = 3


def marked(n=5, size=40):
    """Black patches with one white pixel each, which is the figure."""
    rng = np.random.default_rng(0)
    xy = rng.integers(0, size, (n, 2))
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8)
    for image, (x, y) in zip(images, xy, strict=True):
        image[:, y, x] = 255
    return Patches(images, torch.from_numpy(xy).float()[:, None])


def test_centres_follow_their_figures_into_the_views():
    views = marked().views(50, 24, np.random.default_rng(RNG_SEED))
    seen = 0
    for image, ((x, y),) in zip(views.images, views.centres_px.long(), strict=True):
        if 0 <= x < 24 and 0 <= y < 24:
            assert image[0, y, x] == 255
            seen += 1
        else:
            assert image.max() == 0
    assert 10 <= seen < 50


def test_a_figure_stands_anywhere_in_its_views():
    patches = Patches(torch.zeros(1, 3, 40, 40, dtype=torch.uint8), torch.tensor([[[20.0, 20.0]]]))
    views = patches.views(500, 24, np.random.default_rng(RNG_SEED))
    assert len(torch.unique(views.centres_px.reshape(-1, 2), dim=0)) > 200


def test_tissue_prefers_its_mistakes():
    image = torch.zeros(3, 400, 600, dtype=torch.uint8)
    image[:, 300, 500] = 255
    tissue = Tissue(image, 0.25)
    rng = np.random.default_rng(RNG_SEED)
    assert (tissue.views(100, 24, rng).images.amax((1, 2, 3)) == 255).sum() <= 5
    tissue.mistakes_px = np.array([[500, 300]], np.float32)
    views = tissue.views(100, 24, rng)
    assert (views.images.amax((1, 2, 3)) == 255).sum() >= 50
    assert views.centres_px.isnan().all()


def test_views_of_a_slide_with_much_glass_hold_tissue():
    image = torch.full((3, 2048, 2048), 245, dtype=torch.uint8)
    image[:, 512:1024, 1024:1536] = torch.tensor([200, 120, 170], dtype=torch.uint8)[:, None, None]
    views = Tissue(image, 0.25).views(60, 256, np.random.default_rng(RNG_SEED)).images
    holding = ((views[:, 1] == 120).flatten(1)).any(dim=1)
    assert holding.float().mean() > 0.7  # a margin counts as tissue; drawn anywhere, one in seven would hold some


def test_a_mixed_batch_holds_each_source_in_turn():
    grey = Tissue(torch.full((3, 64, 64), 7, dtype=torch.uint8), 0.25)
    batch = mixed((marked(), grey), (3, 4), 40, np.random.default_rng(1))
    assert batch.images.shape == (7, 3, 40, 40)
    assert (batch.images[3:] == 7).all()
    assert batch.centres_px[:3].isfinite().all()


def test_points_are_padded_by_owner():
    points = padded(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([2, 0, 2]), 4)
    assert points.shape == (4, 2, 2)
    assert points[2].tolist() == [[1, 2], [5, 6]]
    assert points[0, 0].tolist() == [3, 4]
    assert points.isfinite().all(dim=2).sum(dim=1).tolist() == [1, 0, 2, 0]


def test_the_same_ids_are_held_out_whatever_their_order():
    ids = [f"crop/{i}" for i in range(2000)]
    out = held_out(ids)
    assert 0.08 < out.mean() < 0.12
    assert (held_out(ids[::-1]) == out[::-1]).all()


@pytest.mark.parametrize("domain", ["phantom-breast-a", "phantom-neuroendocrine-a"], ids=["0.25 µm/px", "0.5 µm/px"])
def test_phantom_figures_are_dark_at_their_centres_at_any_resolution(domain):
    patches = phantom_patches(domain, 24, 128, 0.25, seed=5)
    assert patches.images.shape == (24, 3, 128, 128)
    darker = []
    for image, centres in zip(patches.images.float(), patches.centres_px, strict=True):
        for x, y in centres[centres.isfinite().all(dim=1)].round().int().tolist():
            if 10 <= x < 118 and 10 <= y < 118:
                darker.append(float(image[0, y - 8 : y + 9, x - 8 : x + 9].min() < image[0].median() - 30))
    assert len(darker) >= 8
    assert np.mean(darker) > 0.9


def test_missing_material_is_named(tmp_path):
    with pytest.raises(BadOption, match=r"atnorm-br\.parquet"):
        read_real(tmp_path)


def test_borders_are_black_and_take_the_figures_under_them_away():
    n, side = 2000, 24
    rng = np.random.default_rng(0)
    centres = torch.from_numpy(rng.uniform(0, side - 1, (n, 1, 2))).float()
    patches = Patches(torch.full((n, 3, side, side), 200, dtype=torch.uint8), centres)
    after = bordered(patches, rng)
    black = (after.images == 0).all(1)
    has_border = black.flatten(1).any(1).numpy()
    assert has_border.mean() == pytest.approx(BORDER_SHARE, abs=0.02)
    assert black.flatten(1).float().mean(1).max() <= 0.5
    x, y = centres[:, 0].round().long().T
    under = black[torch.arange(n), y, x].numpy()
    gone = after.centres_px.isnan().any(-1)[:, 0].numpy()
    assert (under == gone).all()
    assert (patches.images == 200).all()
    assert torch.equal(after.centres_px[~gone], centres[~gone])
