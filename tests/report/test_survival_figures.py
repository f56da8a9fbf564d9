import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mitoray.errors import BadOption
from mitoray.report.cut_point_figure import cut_point_figure
from mitoray.report.hazard_figures import forest_figure, hazard_curve_figure
from mitoray.report.kaplan_meier_figure import comparison_figure, kaplan_meier_figure
from mitoray.report.survival_files import figures_of, report_part
from mitoray.report.survival_style import COLOURS, p_text
from mitoray.storage import Folder
from mitoray.survival.analysis import Settings, analyse
from mitoray.survival.clinical import read_clinical
from mitoray.survival.joining import join
from mitoray.survival.kaplan_meier import numbers_at_risk, survival_curves
from mitoray.survival.scored import counts_of_run
from mitoray.survival.simulated import Effect, write_simulated_cohort

VALUE = "mitotic count in 2 mm²"


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write_simulated_cohort(folder, 300, Effect(hazard_ratio=2.5, hazard_per_year=0.05), seed=1)
    values = ["mitotic_count", "atypical_ratio"]
    return join(counts_of_run(Folder.at(str(folder)))[0], read_clinical(str(folder / "clinical.csv")), values)


@pytest.fixture(scope="module")
def analyses(joined):
    settings = Settings(permutations=60, repeats=60)
    return [analyse(joined, "mitotic_count", settings, 11.0), analyse(joined, "atypical_ratio", settings)]


def boxes_of(figure, texts):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    return canvas.get_width_height(), [text.get_window_extent(renderer) for text in texts if text.get_text()]


def test_curves_and_the_numbers_below_them_are_those_of_the_analysis(analyses):
    comparison = analyses[0].published
    figure = comparison_figure(comparison, value=VALUE, cohort="simulated")
    curves, table = figure.axes
    drawn = [line for line in curves.lines if line.get_drawstyle() == "steps-post"]
    for line, curve in zip(drawn, comparison.curves, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve.time)
        np.testing.assert_array_equal(line.get_ydata(), curve.survival)
    assert [line.get_linestyle() for line in drawn] == ["-", "--"]  # told apart in grey, too
    numbers = [text.get_text().replace(",", "") for text in table.texts]
    assert numbers == [str(n) for curve in comparison.curves for n in comparison.at_risk[curve.group]]
    assert [label.get_text() for label in table.get_yticklabels()] == ["< 11", "≥ 11"]
    assert curves.get_xlabel() == "years since diagnosis"
    assert "Simulated patients" in figure.get_supxlabel()


def test_the_profile_shows_naive_and_honest_p_of_every_cut(analyses):
    best = analyses[0].best
    figure = cut_point_figure(best.search, best.bootstrap, value=VALUE, cohort="simulated", published=11.0)
    lines = {line.get_label().partition(":")[0]: line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines["naive"].get_ydata(), best.search.naive_p)
    np.testing.assert_array_equal(lines["honest"].get_ydata(), best.search.honest_p)
    assert lines["published"].get_xdata() == [11.0, 11.0]
    heights = sum(bar.get_height() for bar in figure.axes[1].patches[: len(figure.axes[1].patches) - 1])
    assert heights == pytest.approx(100)
    assert "permutation p" in figure.get_supxlabel().replace("\n", " ")


def test_the_forest_and_the_curve_show_the_models(analyses):
    published, curve = analyses[0].published, analyses[0].continuous.curve
    figure = forest_figure([("alone", published.univariable), ("adjusted", published.adjusted)], cohort="simulated")
    squares = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "s"]
    ratios = [*published.univariable.ratios, *published.adjusted.ratios]
    assert squares == [ratio.ratio for ratio in ratios]
    figure = hazard_curve_figure(curve, analyses[0].patients.value, value=VALUE, cohort="simulated", published=11.0)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "restricted cubic spline"]
    np.testing.assert_array_equal(line.get_ydata(), curve.relative_hazard)
    np.testing.assert_allclose(line.get_xdata(), np.log2(curve.count + 1))


def test_captions_titles_and_notes_stay_within_every_figure(analyses):
    for analysis in analyses:
        for figure in figures_of(analysis, cohort="simulated", endpoint="overall survival").values():
            texts = [*figure.texts, *(text for axes in figure.axes for text in (axes.title, *axes.texts))]
            (width, height), boxes = boxes_of(figure, texts)
            assert all(b.x0 >= -1 and b.x1 <= width + 1 and b.y0 >= -1 and b.y1 <= height + 1 for b in boxes)


def test_the_reports_part_has_pictures_words_for_them_and_who_was_left_out(joined, analyses):
    part = report_part(joined, analyses, cohort="simulated")
    assert any("no slide: 6" in note for note in part["notes"])
    assert len(part["figures"]) >= 8
    assert all(figure["src"].startswith("data:image/png;base64,") for figure in part["figures"])
    assert all(len(figure["told"]) > 30 for figure in part["figures"])


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.0312, "p = 0.031"), (0.25, "p = 0.25"), (np.nan, "p undefined")]
)
def test_p_is_printed_as_journals_do(p, text):
    assert p_text(p) == text


def test_too_many_groups_no_model_and_unknown_cohorts_are_refused(analyses):
    time, event = np.arange(1.0, 25), np.ones(24, bool)
    groups = [f"g{i % 8}" for i in range(24)]
    curves, years = survival_curves(time, event, groups), np.array([0.0, 24])
    with pytest.raises(BadOption, match=f"1 to {len(COLOURS)} groups, not 8"):
        kaplan_meier_figure(curves, years, numbers_at_risk(time, groups, years), cohort="phantom")
    with pytest.raises(BadOption, match="needs a model"):
        forest_figure([], cohort="phantom")
    with pytest.raises(BadOption, match="'real' is unknown"):
        comparison_figure(analyses[0].published, value=VALUE, cohort="real")
