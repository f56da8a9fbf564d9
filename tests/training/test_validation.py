import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mitoray.errors import BadLabels
from mitoray.models import Points
from mitoray.training.patches import Patches
from mitoray.training.validation import FLOOR, validated


class Knowing:
    """A detector that finds the same points in an image each time; the image's first pixel says which."""

    halo_um = 0.0
    device = torch.device("cpu")

    def __init__(self, found, mpp=0.25):
        self.found, self.mpp, self.batches = found, mpp, []

    def detect(self, images, threshold):
        self.batches.append(len(images))
        assert threshold == FLOOR
        points = []
        for number in images[:, 0, 0, 0].tolist():
            rows = np.array(self.found[number], np.float32).reshape(-1, 3)
            points.append(Points(rows[:, :2], rows[:, 2]))
        return points


def patches_with(*figures, size=100):
    """One patch for each list of figures."""
    images = torch.zeros(len(figures), 3, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(figures))
    centres = torch.full((len(figures), 4, 2), torch.nan)
    for of_patch, points in zip(centres, figures, strict=True):
        for i, point in enumerate(points):
            of_patch[i] = torch.tensor(point)
    return Patches(images, centres)


def test_all_figures_found_and_nothing_else_is_perfect():
    found = validated(Knowing([[(50, 50, 0.9)], [(20, 30, 0.6)]]), patches_with([(50.0, 50.0)], [(24.0, 30.0)]))
    assert (found.average_precision, found.f1) == (1.0, 1.0)
    assert found.threshold < 0.6


def test_precision_and_threshold_are_those_of_all_patches_together():
    # By falling score: true, false, true, of three figures. AP = 1/3 · 1 + 1/3 · 2/3; F1 = 4 / (4 + 1 + 1).
    detector = Knowing([[(50, 50, 0.9), (90, 90, 0.8)], [(20, 30, 0.7)], []])
    found = validated(detector, patches_with([(50.0, 50.0)], [(20.0, 30.0)], [(5.0, 5.0)]))
    assert found.average_precision == pytest.approx(5 / 9)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.threshold < 0.7
    assert found.metrics() == {"val_ap": found.average_precision, "val_f1": found.f1, "val_threshold": found.threshold}


def test_the_threshold_leaves_out_what_costs_more_than_it_finds():
    # The best threshold lies between the true ones and the false ones.
    detector = Knowing([[(50, 50, 0.9), (10, 80, 0.4), (80, 10, 0.3)], [(20, 30, 0.7), (80, 80, 0.5)]])
    found = validated(detector, patches_with([(50.0, 50.0)], [(20.0, 30.0)]))
    assert found.f1 == 1.0
    assert 0.5 <= found.threshold < 0.7


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(4)
    found, figures, truth, scores = [], [], [], []
    for _ in range(40):
        real = rng.random() < 0.5
        score = float(np.float32(rng.beta(5, 3) if real else rng.beta(3, 5)))
        found.append([(50.0, 50.0, score)])
        figures.append([(50.0, 50.0)] if real else [])
        truth.append(real)
        scores.append(score)
    result = validated(Knowing(found), patches_with(*figures))
    assert result.average_precision == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize(("mpp", "distance_px", "counts"), [(0.25, 24.9, True), (0.25, 25.1, False), (0.5, 13, False)])
def test_a_detection_counts_within_25_px_at_a_quarter_um(mpp, distance_px, counts):
    found = validated(Knowing([[(50 + distance_px, 50, 0.9)]], mpp), patches_with([(50.0, 50.0)]))
    assert found.average_precision == float(counts)


def test_one_figure_is_found_once():
    found = validated(Knowing([[(50, 50, 0.9), (52, 50, 0.8)]]), patches_with([(50.0, 50.0)]))
    assert found.average_precision == 1.0
    assert 0.8 <= found.threshold < 0.9


def test_figures_beyond_the_edge_are_neither_missed_nor_found():
    beyond = patches_with([(50.0, 50.0), (-4.0, 50.0), (50.0, 100.5)], [])
    assert validated(Knowing([[(50, 50, 0.9)], []]), beyond).average_precision == 1.0


def test_a_detector_that_finds_nothing_scores_nothing():
    found = validated(Knowing([[], []]), patches_with([(50.0, 50.0)], []))
    assert (found.average_precision, found.f1, found.threshold) == (0.0, 0.0, 1.0)


def test_patches_are_looked_at_few_at_once_and_each_with_its_own_figures():
    places = [(float(10 + i), 40.0) for i in range(21)]
    detector = Knowing([[(x, y, 0.9)] for x, y in places])
    patches = patches_with(*[[place] for place in places])
    assert validated(detector, patches, at_once=8).average_precision == 1.0
    assert detector.batches == [8, 8, 5]


def test_without_any_figure_there_is_nothing_to_judge_by():
    with pytest.raises(BadLabels, match="None of 2 validation patches holds a mitotic figure"):
        validated(Knowing([[(50, 50, 0.9)], []]), patches_with([], [(-3.0, 5.0)]))
