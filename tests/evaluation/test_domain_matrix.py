import csv
import io
import itertools
import logging
import math

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadOption, BadTrialScores
from mitoray.evaluation.ablation import area_curve
from mitoray.evaluation.cohort import EvaluatedSlide, MatchedCohort, match_cohort
from mitoray.evaluation.matching import f1_score
from mitoray.evaluation.matrix import as_csv, as_text, domain_matrix, summary
from mitoray.evaluation.published import beside_published, midogpp_tumor, published_like, read_published
from mitoray.evaluation.trials import TRIAL_SCORES, read_trial_scores, score_trial
from mitoray.labels.schema import LABELS

TUMORS = read_published("single").column_names
MIDOG_DOMAINS = {
    "human breast carcinoma": "human breast cancer",
    "canine lung carcinoma": "canine lung cancer",
    "canine lymphoma": "canine lymphosarcoma",
    "canine cutaneous mast cell tumor, Aperio CS2, FU Berlin, Canine": "canine cutaneous mast cell tumor",
    "human neuroendocrine tumour": "human neuroendocrine tumor",
    "canine soft tissue sarcoma, 3D Histech, VMU Vienna, Canine": "canine soft tissue sarcoma",
    "Human Melanoma": "human melanoma",
}


def row(protocol, domain, fold, test_domain, score, **other):
    scores = dict.fromkeys(("f1_pooled", "f1_image_mean", "ap"), score)
    rest = {"threshold": 0.5, "n_slides": 3, "n_figures": 7}
    return {"protocol": protocol, "domain": domain, "fold": fold, "test_domain": test_domain, **scores, **rest, **other}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=TRIAL_SCORES)


def published_as_trials(protocol, shift=0.0, names=TUMORS, metric="f1_pooled"):
    """Two folds whose mean and sd are those published, under other names: mean ± sd / √2."""
    published = read_published(protocol, metric)
    rows = []
    for i, name in enumerate(published.row_names):
        for j, column in enumerate(names):
            mean, half = published.mean[i, j] + shift, published.sd[i, j] / math.sqrt(2)
            key = ("all", "all") if name == "all" else (protocol, names[i])
            rows += [row(*key, fold, column, mean + sign * half) for fold, sign in enumerate((1, -1))]
    return table(*rows)


# From the scores of trials to a matrix


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_cell_is_the_mean_and_sample_deviation_of_its_folds(n_domains, folds, seed):
    rng = np.random.default_rng(seed)
    names = [f"d{n}" for n in range(n_domains)]
    values = rng.random((n_domains, n_domains, folds))
    rows = [
        row("single", a, fold, b, values[i, j, fold])
        for (i, a), (j, b), fold in itertools.product(enumerate(names), enumerate(names), range(folds))
    ]
    matrix = domain_matrix(table(*(rows[n] for n in rng.permutation(len(rows)))))
    assert (matrix.row_names, matrix.column_names, matrix.folds) == (tuple(names), tuple(names), folds)
    np.testing.assert_allclose(matrix.mean, values.sum(axis=2) / folds)
    if folds == 1:
        assert np.isnan(matrix.sd).all()
    else:
        squares = ((values - values.mean(axis=2, keepdims=True)) ** 2).sum(axis=2)
        np.testing.assert_allclose(matrix.sd, np.sqrt(squares / (folds - 1)))
    assert matrix.incomplete == []


def test_the_metric_asked_for_is_the_one_averaged():
    rows = table(row("single", "a", 0, "a", 0.1, ap=0.3, f1_image_mean=0.2))
    assert [domain_matrix(rows, m).mean.item() for m in ("f1_pooled", "f1_image_mean", "ap")] == [0.1, 0.2, 0.3]
    with pytest.raises(BadOption, match="metric 'f1' is unknown"):
        domain_matrix(rows, "f1")


def test_models_trained_on_all_are_the_last_row_of_single_and_no_row_of_leave_one_out():
    rows = table(
        row("all", "all", 0, "b", 0.9),
        row("single", "b", 0, "a", 0.5),
        row("single", "a", 0, "a", 0.6),
        row("leave-one-out", "a", 0, "a", 0.4),
    )
    single = domain_matrix(rows, protocol="single")
    assert (single.row_names, single.column_names) == (("a", "b", "all"), ("a", "b"))
    np.testing.assert_array_equal(single.mean, [[0.6, np.nan], [0.5, np.nan], [np.nan, 0.9]])
    assert domain_matrix(rows, protocol="leave-one-out").row_names == ("a",)
    assert domain_matrix(rows.slice(0, 1)).protocol == "all"
    with pytest.raises(BadOption, match="of single and of leave-one-out"):
        domain_matrix(rows)
    with pytest.raises(BadOption, match="no trials of the protocol leave-one-out, only of single"):
        domain_matrix(rows.slice(1, 2), protocol="leave-one-out")


def test_test_domains_without_models_come_after_those_with():
    rows = table(row("single", "m", 0, "z", 0.1), row("single", "m", 0, "a", 0.2), row("single", "m", 0, "m", 0.3))
    matrix = domain_matrix(rows)
    assert matrix.column_names == ("m", "a", "z")
    assert "also tested on: 2 a, 3 z" in as_text(matrix)


def test_folds_yet_to_be_run_are_counted_and_said():
    rows = [row("single", a, fold, b, 0.5) for a in "ab" for b in "ab" for fold in range(3)]
    rows = [r for r in rows if not (r["domain"] == "b" and r["fold"] == 2)]
    rows[0] |= {"f1_pooled": None}
    matrix = domain_matrix(table(*rows))
    assert matrix.n_folds.tolist() == [[2, 3], [2, 2]]
    assert matrix.incomplete == [("a", "a", 2), ("b", "a", 2), ("b", "b", 2)]
    lines = as_text(matrix).splitlines()
    assert lines[0].split() == ["trained", "on", "1", "2"]
    assert lines[1].split() == ["1", "a", "0.50", "±", "0.00*", "0.50", "±", "0.00"]
    assert lines[-1] == "f1_pooled: mean ± sd over 3 folds; * 3 of 4 cells have fewer"


def test_a_cell_of_undefined_scores_is_a_dash_and_an_empty_field():
    matrix = domain_matrix(table(row("single", "a", 0, "a", None), row("single", "a", 1, "a", float("nan"))))
    assert np.isnan(matrix.mean).all()
    assert as_text(matrix).splitlines()[1].split() == ["1", "a", "–*"]
    assert list(csv.reader(as_csv(matrix).splitlines()))[1] == ["single", "f1_pooled", "a", "a", "", "", "0"]


@given(st.text(min_size=1).filter(lambda name: name != "all"))
def test_any_name_of_a_domain_survives_csv_and_cannot_steer_the_terminal(name):
    matrix = domain_matrix(table(row("single", name, 0, name, 0.25)))
    (cell,) = csv.DictReader(io.StringIO(as_csv(matrix), newline=""))
    assert (cell["domain"], cell["test_domain"], float(cell["mean"])) == (name, name, 0.25)
    text = as_text(matrix)
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == 3


def test_a_matrix_as_csv_names_the_row_all_by_its_protocol():
    rows = table(row("single", "a", 0, "a", 0.5), row("all", "all", 0, "a", 0.75))
    assert list(csv.reader(as_csv(domain_matrix(rows, "ap")).splitlines())) == [
        ["protocol", "metric", "domain", "test_domain", "mean", "sd", "n_folds"],
        ["single", "ap", "a", "a", "0.5", "", "1"],
        ["all", "ap", "all", "a", "0.75", "", "1"],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f1_pooled": 1.5}, "row 2 has f1_pooled 1.5, outside 0 to 1"),
        ({"protocol": "some"}, "row 2 has the unknown protocol 'some'"),
        ({"domain": "all"}, "row 2 has the name 'all' elsewhere"),
        ({"fold": 0}, "row 2 has a model and test domain that an earlier row has"),
    ],
)
def test_wrong_trial_scores_are_named_by_their_row(change, message):
    with pytest.raises(BadTrialScores, match=message):
        domain_matrix(table(row("single", "a", 0, "a", 0.5), row("single", "a", 1, "a", 0.5) | change))


def test_tables_that_are_no_trial_scores_are_refused():
    rows = table(row("single", "a", 0, "a", 0.5))
    with pytest.raises(BadTrialScores, match="lacks the columns fold"):
        domain_matrix(rows.drop_columns(["fold"]))
    with pytest.raises(BadTrialScores, match="no rows"):
        domain_matrix(rows.slice(1))
    with pytest.raises(BadTrialScores, match="wrong type"):
        domain_matrix(rows.set_column(2, "fold", pa.array(["first"])))


def test_trial_scores_survive_a_csv_file(tmp_path):
    rows = table(row("single", "a, b", 0, "nan", 0.5, threshold=None), row("single", "a, b", 1, "nan", None))
    pacsv.write_csv(rows, tmp_path / "scores.csv")
    assert read_trial_scores(str(tmp_path / "scores.csv")).equals(rows)
    with pytest.raises(BadTrialScores, match=r"no trial scores at other\.csv"):
        read_trial_scores(str(tmp_path / "other.csv"))
    (tmp_path / "other.csv").write_text("slide_id,x_px\na,1\n")
    with pytest.raises(BadTrialScores, match=r"other\.csv cannot be read as a CSV file of trial scores"):
        read_trial_scores(str(tmp_path / "other.csv"))


# Summaries


def test_the_summary_of_the_published_matrices_is_that_of_the_papers_tables():
    single = summary(read_published("single"))
    assert single.in_domain == pytest.approx((0.71 + 0.66 + 0.79 + 0.85 + 0.58 + 0.70 + 0.82) / 7)
    assert single.all_domains == pytest.approx((0.71 + 0.68 + 0.73 + 0.82 + 0.59 + 0.69 + 0.81) / 7)
    assert (single.n_in, single.n_out) == (7, 42)
    assert single.gap == pytest.approx(single.in_domain - single.out_of_domain)
    assert 0.2 < single.gap < 0.3
    left_out = summary(read_published("leave-one-out"))
    assert left_out.out_of_domain == pytest.approx((0.66 + 0.63 + 0.57 + 0.77 + 0.59 + 0.65 + 0.79) / 7)
    assert (left_out.n_in, left_out.n_out) == (42, 7)
    assert 0 < left_out.gap < single.gap
    assert math.isnan(left_out.all_domains)


def test_the_summary_leaves_out_what_is_not_known_to_be_inside_or_outside():
    rows = table(*(row("leave-one-out", a, 0, b, 0.2 if a == b else 0.6) for a in "ab" for b in "abx"))
    both = summary(domain_matrix(rows))
    assert (both.in_domain, both.out_of_domain, both.n_in, both.n_out) == pytest.approx((0.6, 0.2, 2, 2))
    only_all = summary(domain_matrix(table(row("all", "all", 0, "a", 0.7))))
    assert (only_all.in_domain, only_all.n_out) == (0.7, 0)
    assert math.isnan(only_all.out_of_domain)
    assert math.isnan(only_all.gap)


# Beside the published matrices


def test_published_cells_are_those_of_the_papers_tables():
    """Cells of Tables 4 to 7 of Aubreville et al. 2023, as (protocol, metric, row, column): mean, sd."""
    cells = {
        ("single", "f1_pooled", 0, 1): (0.35, 0.16),
        ("single", "f1_image_mean", 6, 2): (0.17, 0.09),
        ("single", "f1_pooled", 7, 5): (0.69, 0.01),
        ("single", "ap", 3, 3): (0.87, 0.02),
        ("single", "ap", 7, 0): (0.74, 0.02),
        ("leave-one-out", "f1_pooled", 2, 2): (0.57, 0.03),
        ("leave-one-out", "f1_pooled", 6, 6): (0.79, 0.01),
        ("leave-one-out", "ap", 6, 2): (0.60, 0.16),
        ("all", "f1_pooled", 0, 3): (0.82, 0.01),
    }
    for (protocol, metric, i, j), (mean, sd) in cells.items():
        matrix = read_published(protocol, metric)
        assert (matrix.mean[i, j], matrix.sd[i, j]) == (mean, sd)
    assert read_published("single").mean.shape == (8, 7)
    assert read_published("leave-one-out", "ap").mean.shape == (7, 7)
    assert read_published("all").row_names == ("all",)
    assert TUMORS[0] == "human breast cancer"
    with pytest.raises(BadOption, match="No matrix was published for 'some'"):
        read_published("some")


@pytest.mark.parametrize("protocol", ["single", "leave-one-out", "all"])
def test_the_published_numbers_come_back_whatever_spelling_and_order_the_domains_have(protocol):
    names = list(MIDOG_DOMAINS)
    assert [MIDOG_DOMAINS[name] for name in names] == list(TUMORS)
    ours = domain_matrix(published_as_trials(protocol, names=names))
    assert ours.column_names != tuple(names)
    compared = beside_published(ours)
    assert len(compared) == {"single": 56, "leave-one-out": 49, "all": 7}[protocol]
    assert max(abs(cell.difference) for cell in compared) < 1e-9
    assert all(cell.within_2_sd for cell in compared)
    np.testing.assert_allclose([c.ours_sd for c in compared], [c.published_sd for c in compared], atol=1e-9)


def test_a_difference_is_judged_by_both_deviations():
    shifted = beside_published(domain_matrix(published_as_trials("leave-one-out", shift=0.06)))
    for cell in shifted:
        assert cell.difference == pytest.approx(0.06)
        assert cell.within_2_sd == (2 * math.sqrt(2) * cell.published_sd + 0.005 >= 0.06)
    assert {cell.within_2_sd for cell in shifted} == {True, False}


def test_a_part_of_the_single_domains_compares_but_not_a_part_of_leave_one_out_or_all():
    pair = ("human melanoma", "canine lymphoma")
    rows = [row("single", a, 0, b, 0.5) for a in pair for b in pair]
    rows += [row("all", "all", 0, b, 0.5) for b in pair]
    compared = beside_published(domain_matrix(table(*rows)))
    assert {(cell.domain, cell.test_domain): cell.published for cell in compared} == {
        ("canine lymphoma", "canine lymphoma"): 0.79,
        ("canine lymphoma", "human melanoma"): 0.45,
        ("human melanoma", "canine lymphoma"): 0.17,
        ("human melanoma", "human melanoma"): 0.82,
    }
    rows = [row("leave-one-out", a, 0, b, 0.5) for a in pair for b in pair]
    assert beside_published(domain_matrix(table(*rows))) is None


def test_other_domains_and_parts_of_one_tumour_type_do_not_compare(caplog):
    assert beside_published(domain_matrix(table(row("single", "phantom-breast-a", 0, "human melanoma", 0.5)))) is None
    parts = [f"human breast cancer, {scanner}, UMC Utrecht, Human" for scanner in ("Hamamatsu XR", "Aperio CS2")]
    with caplog.at_level(logging.INFO, logger="mitoray"):
        assert (
            published_like(domain_matrix(table(*(row("single", a, 0, b, 0.5) for a in parts for b in parts)))) is None
        )
    assert "parts of one tumour type" in caplog.text


def test_a_tumour_of_another_scanner_or_laboratory_is_not_that_of_midog():
    assert midogpp_tumor("human breast cancer, Hamamatsu XR, UMC Utrecht, Human") == "human breast cancer"
    assert midogpp_tumor("human breast cancer, Leica SCN400, Human") is None
    assert midogpp_tumor("human breast cancer, Aperio ScanScope XT, UMC Utrecht, Human") is None
    assert midogpp_tumor("canine mammary carcinoma, Aperio CS2, FU Berlin, Canine") is None
    assert midogpp_tumor("") is None


# From detections to the scores of a trial


def cohort(slides):
    """slides: {slide_id: (domain, scores of true detections, of false ones, labels never detected)}."""
    points, labels = [], []
    for slide_id, (_, true, false, missed) in slides.items():
        for n, score in enumerate([*true, *false]):
            points.append({"slide_id": slide_id, "x_px": 100.0 * n, "y_px": 0.0, "score": score})
        spots = [(100.0 * n, 3.0) for n in range(len(true))] + [(100.0 * n, 5000.0) for n in range(missed)]
        labels += [{"slide_id": slide_id, "x_px": x, "y_px": y, "kind": "mitotic_figure"} for x, y in spots]
    schema = pa.schema([("slide_id", pa.string()), *((n, pa.float64()) for n in ("x_px", "y_px", "score"))])
    return match_cohort(
        pa.Table.from_pylist(points, schema=schema),
        pa.Table.from_pylist(labels, schema=LABELS),
        [EvaluatedSlide(slide_id, 0.25, domain) for slide_id, (domain, *_) in slides.items()],
    )


def test_the_threshold_is_that_of_validation_and_scores_are_those_of_each_test_domain():
    validation = cohort({"v": ("a", [0.9, 0.8, 0.7], [0.6, 0.5], 0)})
    test = cohort(
        {
            "t1": ("b", [0.9, 0.3], [0.75], 0),
            "t2": ("b", [0.8], [], 1),
            "t3": ("c", [0.68], [0.2], 0),
        }
    )
    rows = score_trial(validation, test, protocol="single", domain="a", fold=2)
    assert rows.schema.equals(TRIAL_SCORES)
    b, c = rows.to_pylist()
    assert (b["protocol"], b["domain"], b["fold"], b["test_domain"]) == ("single", "a", 2, "b")
    assert 0.6 <= b["threshold"] < 0.7
    assert b["f1_pooled"] == pytest.approx(f1_score(tp=2, fp=1, fn=2))
    assert b["f1_image_mean"] == pytest.approx((f1_score(1, 1, 1) + f1_score(1, 0, 1)) / 2)
    assert (b["n_slides"], b["n_figures"]) == (2, 4)
    assert b["ap"] == pytest.approx((1 + 1 + 3 / 4) / 4)
    assert (c["test_domain"], c["f1_pooled"], c["ap"]) == ("c", 1.0, 1.0)
    assert domain_matrix(rows).column_names == ("a", "b", "c")


def test_a_grid_of_thresholds_is_kept_to():
    validation = cohort({"v": ("a", [0.9, 0.62], [0.615, 0.3], 0)})
    rows = score_trial(validation, validation, protocol="all", domain="all", fold=0, grid=np.arange(0.5, 1, 0.1))
    assert rows["threshold"].to_pylist() == [pytest.approx(0.6)]


def test_nothing_detected_in_validation_gives_no_threshold_and_f1_of_zero(caplog):
    validation = cohort({"v": ("a", [], [], 2)})
    test = cohort({"t": ("a", [0.9], [0.8], 1), "u": ("b", [], [0.4], 0)})
    rows = score_trial(validation, test, protocol="single", domain="a", fold=0).to_pylist()
    assert [(r["threshold"], r["f1_pooled"], r["ap"]) for r in rows] == [(None, 0.0, 0.5), (None, None, None)]
    assert "single 'a', fold 0: nothing was detected on the validation slides" in caplog.text
    assert domain_matrix(pa.Table.from_pylist(rows, schema=TRIAL_SCORES)).mean[0, 0] == 0.0


def test_domains_or_validation_without_slides_are_named():
    good = cohort({"t": ("a", [0.9], [], 0)})
    settings = {"protocol": "single", "domain": "a", "fold": 1}
    with pytest.raises(BadTrialScores, match="single 'a', fold 1: there is no test slide of 'b', 'c'"):
        score_trial(good, good, **settings, test_domains=["a", "b", "c"])
    with pytest.raises(BadTrialScores, match="there are no test slides"):
        score_trial(good, MatchedCohort((), ()), **settings)
    with pytest.raises(BadTrialScores, match="1 test slides have no domain, as 't'"):
        score_trial(good, cohort({"t": (None, [0.9], [], 0)}), **settings)
    with pytest.raises(BadTrialScores, match="the 1 validation slides hold no mitotic figure"):
        score_trial(cohort({"v": ("a", [], [0.5], 0)}), good, **settings)
    with pytest.raises(BadTrialScores, match="the 0 validation slides"):
        score_trial(MatchedCohort((), ()), good, **settings)


# Ablation of the training area


def test_an_area_curve_is_mean_and_deviation_by_rising_area():
    rows = [{"area_hpf": a, "repeat": r, "f1": f} for a, r, f in [(50, 0, 0.8), (5, 0, 0.3), (5, 1, 0.5), (5, 2, 0.4)]]
    curve = area_curve(rows)
    assert (curve.measure, curve.amount.tolist(), curve.n_repeats.tolist()) == ("area_hpf", [5, 50], [3, 1])
    np.testing.assert_allclose(curve.mean, [0.4, 0.8])
    np.testing.assert_allclose(curve.sd, [0.1, np.nan])
    assert area_curve([{"n_slides": 3, "repeat": 0, "f1": 0.5}]).measure == "n_slides"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"area_hpf": 5, "repeat": 0}], "Row 1 of the ablation has the columns area_hpf, repeat"),
        ([{"area_hpf": 5, "n_slides": 3, "repeat": 0, "f1": 0.5}], "either area_hpf or n_slides"),
        ([{"area_hpf": 0, "repeat": 0, "f1": 0.5}], "must be above 0"),
        ([{"area_hpf": 5, "repeat": 0, "f1": float("nan")}], "within 0 to 1"),
        ([{"area_hpf": 5, "repeat": 0, "f1": 0.5}] * 2, "Row 2 of the ablation repeats area_hpf 5, repeat 0"),
        ([{"area_hpf": 5, "repeat": 0, "f1": 0.5}, {"n_slides": 5, "repeat": 0, "f1": 0.5}], "Row 2"),
    ],
)
def test_an_ablation_that_says_too_little_is_refused(rows, message):
    with pytest.raises(BadTrialScores, match=message):
        area_curve(rows)
