"""Classifiers and pathologists judged on given candidates."""

import csv
from pathlib import Path

import numpy as np
import pytest

from mitoray.errors import BadOption
from mitoray.evaluation.candidates import candidate_scores
from mitoray.evaluation.raters import raters_against_majority

STUDY = Path(__file__).parents[2] / "../shared/data/reader_study/dfClassify20180627.csv"


def test_candidates_are_judged_by_hand_countable_figures():
    positive = np.array([True, True, True, False, False])
    judged = candidate_scores(positive, np.array([0.9, 0.8, 0.2, 0.7, 0.1]))
    assert (judged.tp, judged.fp, judged.fn, judged.tn) == (2, 1, 1, 1)
    assert judged.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert judged.roc_auc == pytest.approx(5 / 6)  # of six pairs only (0.2, 0.7) is the wrong way round
    assert judged.f1 == pytest.approx(2 / 3)


def test_one_class_alone_has_no_area_under_the_curve():
    judged = candidate_scores(np.array([True, True]), np.array([0.9, 0.1]))
    assert np.isnan([judged.roc_auc, judged.balanced_accuracy]).all()
    assert judged.recall == 0.5


@pytest.mark.parametrize(("positive", "scores"), [([], []), ([True, False], [0.5]), ([True, False], [0.5, np.nan])])
def test_scores_that_do_not_fit_the_candidates_are_refused(positive, scores):
    with pytest.raises(BadOption, match="finite scores"):
        candidate_scores(np.array(positive, dtype=bool), np.array(scores))


def test_rater_is_held_against_more_than_half_of_all():
    votes = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], dtype=bool)
    first, second, third = raters_against_majority(votes, ["a", "b", "c"])
    assert (first.tp, first.fp, first.fn) == (2, 1, 1)
    assert (second.tp, second.fp, second.fn, second.kappa) == (3, 0, 0, 1.0)
    # Cohen by hand: observed 4/5; expected 2/5 · 3/5 + 3/5 · 2/5 = 12/25.
    assert third.kappa == pytest.approx((4 / 5 - 12 / 25) / (1 - 12 / 25))


def test_an_even_split_is_no_mitotic_figure():
    first, second = raters_against_majority(np.array([[True, False], [True, True]]), ["a", "b"])
    assert (first.tp, first.fp, second.tp, second.fp) == (1, 1, 1, 0)


def test_raters_who_all_always_agree_have_no_kappa():
    assert np.isnan(raters_against_majority(np.ones((4, 3), dtype=bool), ["a", "b", "c"])[0].kappa)


def test_votes_without_a_column_per_rater_are_refused():
    with pytest.raises(BadOption, match="2 raters"):
        raters_against_majority(np.ones((4, 3), dtype=bool), ["a", "b"])


@pytest.mark.skipif(not STUDY.is_file(), reason="needs the public reader study in ../shared/data/reader_study")
@pytest.mark.parametrize("modality", ["microscope", "scanner.A", "scanner.B", "scanner.C", "scanner.D"])
def test_five_pathologists_on_155_candidates_agree_with_their_majority_as_counted_here_again(modality):
    with STUDY.open() as file:
        rows = [row for row in csv.DictReader(file) if row["modalityID"] == modality]
    raters = [f"observer.{i}" for i in range(1, 6)]
    judged = raters_against_majority(np.array([[int(r[name]) for name in raters] for r in rows], dtype=bool), raters)
    assert len(rows) == 155
    for one in judged:
        agree = [(int(r[one.rater]), int(sum(int(r[n]) for n in raters) >= 3)) for r in rows]
        tp, yes, truth = (sum(f(c, m) for c, m in agree) for f in (min, lambda c, m: c, lambda c, m: m))
        assert one.f1 == pytest.approx(2 * tp / (yes + truth))
        observed, expected = np.mean([c == m for c, m in agree]), (yes * truth + (155 - yes) * (155 - truth)) / 155**2
        assert one.kappa == pytest.approx((observed - expected) / (1 - expected))
