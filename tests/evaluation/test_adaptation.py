import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mitoray.errors import BadTrialScores
from mitoray.evaluation.adaptation import (
    METHODS,
    Choice,
    adaptation_row,
    adaptation_table,
    as_csv,
    as_text,
    best_choice,
    from_csv,
    selected,
    table_rows,
    tuned_rows,
)
from mitoray.evaluation.cohort import EvaluatedSlide, match_cohort

SLIDES = [EvaluatedSlide("a", 0.25, "there"), EvaluatedSlide("b", 0.25, "there")]
DETECTION_COLUMNS = ("slide_id", "x_px", "y_px", "score")


def row(run, method, f1, ap=0.5, chosen=None):
    return {
        "run": run,
        "method": method,
        "f1_pooled": f1,
        "ap": ap,
        "threshold": 0.5,
        "model": f"{run}/bundle",
        "n_figures": 9,
        "domain": "there",
        "f1_chosen": chosen,
    }


def far_apart(scores, is_figure, extra_figures=0):
    """A cohort whose detections are 1000 px apart, some of them on a figure; further figures are found by nothing."""
    n = len(scores)
    columns = [["a" if i % 2 else "b" for i in range(n)], [1000.0 * i for i in range(n)], [0.0] * n, list(scores)]
    detections = pa.table(dict(zip(DETECTION_COLUMNS, columns, strict=True)))
    figures = [(columns[0][i], columns[1][i], 0.0) for i in range(n) if is_figure[i]]
    figures += [("a", -5000.0 - 1000 * i, 0.0) for i in range(extra_figures)]
    labels = pa.table(
        {
            "slide_id": pa.array([f[0] for f in figures], pa.string()),
            "x_px": pa.array([f[1] for f in figures], pa.float64()),
            "y_px": pa.array([f[2] for f in figures], pa.float64()),
            "kind": pa.array(["mitotic_figure"] * len(figures), pa.string()),
        }
    )
    return match_cohort(detections, labels, SLIDES)


def f1_above(threshold, scores, is_figure, extra_figures):
    called = np.asarray(scores) > threshold
    hits = np.sum(called & np.asarray(is_figure))
    return 2 * hits / (np.sum(called) + np.sum(is_figure) + extra_figures)


detected = st.lists(st.tuples(st.integers(1, 20).map(lambda s: s / 20), st.booleans()), min_size=1, max_size=30)


@settings(deadline=None)
@given(detected, st.integers(0, 5))
def test_the_optimised_threshold_is_as_good_as_the_best_of_all(found, missed):
    scores, is_figure = (list(values) for values in zip(*found, strict=True))
    if not sum(is_figure) + missed:
        is_figure[0] = True
    choice = best_choice(far_apart(scores, is_figure, missed))
    tried = [f1_above(t, scores, is_figure, missed) for t in [0.0, *scores]]
    assert choice.f1 == pytest.approx(max(tried))
    assert f1_above(choice.threshold, scores, is_figure, missed) == pytest.approx(choice.f1)
    if not missed:
        assert choice.ap == pytest.approx(average_precision_score(is_figure, scores))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.data())
def test_the_table_has_means_and_sample_deviations_over_runs(f1s, data):
    rows = [row(f"seed-{i}", "source only", f1, ap=f1 / 2) for i, f1 in enumerate(f1s)]
    rows = data.draw(st.permutations(rows))
    (line,) = adaptation_table(rows)
    assert (line.method, line.n_runs) == ("source only", len(f1s))
    np.testing.assert_allclose([line.f1_mean, line.ap_mean], [np.mean(f1s), np.mean(f1s) / 2], atol=1e-12)
    if len(f1s) > 1:
        np.testing.assert_allclose([line.f1_sd, line.ap_sd], [np.std(f1s, ddof=1), np.std(f1s, ddof=1) / 2], atol=1e-12)
    else:
        assert np.isnan(line.f1_sd)


def test_the_published_table_comes_out_of_runs_that_have_its_means_and_deviations():
    published = {"source only": (0.594, 0.047), "TL": (0.720, 0.022)}  # Aubreville et al. 2020, Table 4, single stage
    steps = np.array([-2, -1, 0, 1, 2]) / np.std([-2, -1, 0, 1, 2], ddof=1)
    rows = [
        row(f"seed-{i}", method, mean + sd * step)
        for method, (mean, sd) in published.items()
        for i, step in enumerate(steps)
    ]
    text = as_text(adaptation_table(rows))
    assert "0.594 ± 0.047" in text
    assert "0.720 ± 0.022" in text


def test_lines_stand_in_the_order_of_the_paper_and_name_the_run_that_the_training_part_would_choose():
    rows = [
        row("x", "TL", 0.7, chosen=0.8),
        row("y", "TO+MS", 0.6, chosen=0.9),
        row("x", "TO+MS", 0.9, chosen=0.4),
        row("x", "source only", 0.5),
        row("x", "TO", 0.55, chosen=0.6),
    ]
    table = adaptation_table(rows)
    assert tuple(line.method for line in table) == METHODS
    assert [line.best_run for line in table] == [None, "x", "y", "x"]
    assert table[2].best_f1 == 0.6
    assert "0.600 (y)" in as_text(table)
    assert table_rows(table)[0]["f1_sd"] is None


def test_a_run_without_a_defined_score_counts_as_run_but_not_in_the_mean():
    (line,) = adaptation_table([row("x", "TO", 0.5), row("y", "TO", None, ap=None)])
    assert (line.n_runs, line.f1_mean, line.ap_mean) == (2, 0.5, 0.5)
    assert np.isnan(line.f1_sd)


def test_rows_come_back_from_their_file():
    rows = [
        row("x", "source only", 0.5),
        row("y", "TO+MS", None, chosen=0.3),
        {**row("z", "TL", 0.0), "threshold": None},
    ]
    assert from_csv(as_csv(rows)) == rows
    with pytest.raises(BadTrialScores, match="f1_pooled"):
        from_csv(b"run,method\nx,TO\n")


def test_selection_takes_the_best_by_the_measure_asked_for_and_the_first_of_equals():
    choices = {"source": Choice(0.5, 0.6, 0.5), "late": Choice(0.4, 0.6, 0.7), "early": Choice(None, 0.0, 0.0)}
    assert selected(choices) == "source"
    assert selected(choices, "ap") == "late"
    with pytest.raises(BadTrialScores, match="no candidates"):
        selected({})


def test_a_model_that_detects_nothing_has_no_threshold_and_finds_nothing():
    nothing = far_apart([], [], extra_figures=3)
    assert best_choice(nothing) == Choice(None, 0.0, 0.0)
    (judged,) = tuned_rows(nothing, far_apart([0.9], [True]), run="x", model="m", domain="there")
    assert (judged["threshold"], judged["f1_pooled"], judged["ap"], judged["n_figures"]) == (None, 0.0, 1.0, 1)


def test_a_row_counts_what_scores_above_the_threshold():
    test = far_apart([0.9, 0.8, 0.3, 0.2], [True, False, True, False], extra_figures=1)
    judged = adaptation_row(test, run="x", method="TO", model="m", domain="there", threshold=0.25)
    assert judged["f1_pooled"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert judged["n_figures"] == 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no rows"),
        ([row("x", "TO", 0.5), row("x", "TO", 0.6)], "two rows of 'TO'"),
        ([row("x", "magic", 0.5)], "'magic' is unknown"),
    ],
)
def test_impossible_tables_are_refused(rows, told):
    with pytest.raises(BadTrialScores, match=told):
        adaptation_table(rows)


def test_a_training_part_without_figures_chooses_nothing():
    with pytest.raises(BadTrialScores, match="no mitotic figure"):
        best_choice(far_apart([0.4], [False]))
