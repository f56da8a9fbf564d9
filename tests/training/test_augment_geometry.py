import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.training.augment_geometry import affine, followed, resized, turned, warped


def test_the_eight_turns_are_all_different_and_move_figures_with_their_pixels():
    size = 20
    xy = torch.tensor([3, 7])
    images = torch.zeros(8, 3, size, size, dtype=torch.uint8)
    images[:, :, xy[1], xy[0]] = 200
    after, centres = turned(images, xy.float().expand(8, 1, 2), np.arange(8))
    x, y = centres[:, 0].long().T
    assert (after[torch.arange(8), 0, y, x] == 200).all()
    assert (after.flatten(1).sum(1) == 600).all()
    assert len({tuple(p) for p in centres[:, 0].tolist()}) == 8
    assert torch.equal(centres[0, 0], xy.float())


def test_a_quarter_turn_by_resampling_is_the_exact_one():
    x = torch.rand(1, 3, 12, 12)
    centres = torch.tensor([[[2.0, 9.0]]])
    after, moved = warped(x, centres, affine(np.array([90.0]), np.ones(1)))
    exact, expected = turned(x, centres, np.array([6]))  # (x, y) to (last - y, x)
    np.testing.assert_allclose(after, exact, atol=1e-4)
    np.testing.assert_allclose(moved, expected, atol=1e-4)


def test_translation_moves_by_whole_pixels_and_mirrors_at_the_border():
    x = torch.arange(8.0).expand(1, 3, 8, 8)
    after, centres = warped(x, torch.zeros(1, 1, 2), affine(np.zeros(1), np.ones(1), 0.0, np.array([[2.0, 0.0]])))
    np.testing.assert_allclose(after[0, 0, 0], [1, 0, 0, 1, 2, 3, 4, 5], atol=1e-4)
    np.testing.assert_allclose(centres[0, 0], [2, 0], atol=1e-5)


def test_a_figure_moved_out_of_view_keeps_its_place_out_there():
    corner = torch.zeros(1, 1, 2)
    _, centres = warped(torch.zeros(1, 3, 11, 11), corner, affine(np.zeros(1), np.array([2.0])))
    np.testing.assert_allclose(centres[0, 0], [-5, -5], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=10, max_size=10))
def test_two_changes_in_one_move_points_as_one_after_the_other(d):
    first = affine(np.array([90 * d[0]]), np.array([1 + d[1] / 2]), np.array([d[2:4]]), np.array([d[4:6]]))
    then = affine(np.array([90 * d[6]]), np.array([1 + d[7] / 2]), np.array([d[8:10]]), 3.0)
    point = np.array([1.0, -2.0])

    def moved(change, p):
        return change[0, :, :2] @ p + change[0, :, 2]

    np.testing.assert_allclose(moved(followed(first, then), point), moved(then, moved(first, point)), atol=1e-9)


def test_images_without_a_change_are_not_resampled():
    x = torch.rand(3, 3, 16, 16)
    after, _ = warped(x, torch.zeros(3, 1, 2), affine(np.array([0.0, 30.0, 0.0]), np.ones(3)))
    assert torch.equal(after[[0, 2]], x[[0, 2]])
    assert not torch.equal(after[1], x[1])


def test_coarser_images_are_anti_aliased():
    stripes = (torch.arange(64) % 2 * 255.0).expand(1, 3, 64, 64)
    after, _ = resized(stripes, torch.zeros(1, 1, 2), 16)
    assert (after - 127.5).abs().max() < 20
