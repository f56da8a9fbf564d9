import numpy as np
import pyarrow as pa
import pytest
from scipy.fft import dctn

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom import draw_patches


@pytest.fixture(scope="module")
def patches():
    return draw_patches("phantom-melanoma-a", n=60, size_px=80, seed=2)


def test_patches_have_the_promised_form(patches):
    images, labels = patches
    assert images.shape == (60, 80, 80, 3)
    assert images.dtype == np.uint8
    assert labels.schema == pa.schema([pa.field("patch", pa.int32()), *LABELS])


def test_labels_lie_within_their_patch(patches):
    _, labels = patches
    for column in ("x_px", "y_px"):
        values = labels[column].to_numpy()
        assert ((values >= 0) & (values < 80)).all()
    assert labels["patch"].to_numpy().max() < 60


def test_every_third_patch_holds_a_figure_and_every_third_an_imposter(patches):
    _, labels = patches
    held = {
        kind: {row["patch"] for row in labels.to_pylist() if row["kind"] == kind}
        for kind in ("mitotic_figure", "imposter")
    }
    assert set(range(1, 60, 3)) <= held["mitotic_figure"]
    assert set(range(2, 60, 3)) <= held["imposter"]


def test_figures_lie_anywhere_in_their_patch(patches):
    _, labels = patches
    xy = np.column_stack([labels["x_px"], labels["y_px"]])
    assert (xy.min(axis=0) < 20).all()
    assert (xy.max(axis=0) > 60).all()


def test_label_of_a_patch_lies_in_dark_chromatin(patches):
    images, labels = patches
    for row in labels.to_pylist():
        x, y = int(row["x_px"]), int(row["y_px"])
        if row["kind"] == "mitotic_figure" and 24 < x < 56 and 24 < y < 56:
            view = images[row["patch"], y - 24 : y + 25, x - 24 : x + 25, 0]
            assert view.min() < 0.6 * np.median(images[row["patch"], :, :, 0])


def test_same_seed_gives_the_same_patches(patches):
    images, labels = draw_patches("phantom-melanoma-a", n=60, size_px=80, seed=2)
    assert np.array_equal(images, patches[0])
    assert labels.equals(patches[1])


def test_patches_went_through_jpeg(patches):
    """JPEG at this quality quantises 8 × 8 blocks: the highest frequencies of their cosine transform are gone."""

    def fine_detail(images):
        luma = images @ np.array([0.299, 0.587, 0.114])
        n, height, width = luma.shape
        blocks = luma.reshape(n, height // 8, 8, width // 8, 8)
        return np.abs(dctn(blocks, axes=(2, 4), norm="ortho"))[:, :, 5:, :, 5:].mean()

    images, _ = patches
    assert fine_detail(images) < 0.8 * fine_detail(images[:, 4:-4, 4:-4])


@pytest.mark.parametrize(("n", "size_px"), [(0, 64), (3, 4)])
def test_too_few_or_too_small_patches_are_refused(n, size_px):
    with pytest.raises(BadOption):
        draw_patches("phantom-breast-a", n=n, size_px=size_px, seed=1)
