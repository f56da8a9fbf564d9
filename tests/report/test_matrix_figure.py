from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mitoray.errors import BadOption
from mitoray.evaluation.ablation import area_curve
from mitoray.evaluation.matrix import domain_matrix
from mitoray.evaluation.published import published_like, read_published
from mitoray.evaluation.trials import TRIAL_SCORES
from mitoray.report.matrix_figure import area_figure, matrix_figure


def matrix(scores, protocol="single", folds=2):
    """scores: {(domain, test domain): mean}; each fold 0.1 from it, in turn above and below."""
    rows = [
        {"protocol": protocol, "domain": a, "fold": fold, "test_domain": b, "f1_pooled": mean + 0.1 * (-1) ** fold}
        for (a, b), mean in scores.items()
        for fold in range(folds)
    ]
    return domain_matrix(pa.Table.from_pylist(rows, schema=TRIAL_SCORES))


def drawn(figure):
    """The renderer, which knows where everything stands, and the pixels, (h, w, 4) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer(), np.asarray(canvas.buffer_rgba())


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_cell_says_its_mean_and_deviation():
    figure = matrix_figure(read_published("single"), data="real crops")
    cells = texts(figure.axes[0])
    assert len(cells) == 56
    assert (cells[0], cells[7 + 6], cells[-1]) == ("0.71\n± 0.01", "0.69\n± 0.03", "0.81\n± 0.01")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "all"
    assert figure.axes[-1].get_ylim() == (0, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [("phantom", "drawn phantoms, no real tissue"), ("real crops", "crops of real"), ("real slides", "whole slides")],
)
def test_every_figure_says_what_data_it_is_from(data, said):
    curve = area_curve([{"n_slides": 3, "repeat": 0, "f1": 0.5}])
    for figure in (matrix_figure(matrix({("a", "a"): 0.5}), data=data), area_figure(curve, data=data)):
        assert said in figure.get_supxlabel().replace("\n", " ")


def test_unknown_data_is_refused():
    with pytest.raises(BadOption, match="The data 'real' is unknown"):
        matrix_figure(matrix({("a", "a"): 0.5}), data="real")
    with pytest.raises(BadOption, match="The data 'real' is unknown"):
        area_figure(area_curve([{"n_slides": 3, "repeat": 0, "f1": 0.5}]), data="real")


def test_the_published_matrix_and_the_difference_stand_beside():
    ours = matrix({("human melanoma", "human melanoma"): 0.7, ("canine lymphoma", "human melanoma"): 0.6})
    figure = matrix_figure(ours, published_like(ours), data="real crops")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["ours", "published (MIDOG++)", "ours − published"]
    by_panel = [texts(axes) for axes in figure.axes[:3]]
    assert by_panel[0] == ["–", "0.60\n± 0.14", "–", "0.70\n± 0.14"]
    assert by_panel[1] == ["0.79\n± 0.01", "0.45\n± 0.07", "0.17\n± 0.09", "0.82\n± 0.01"]
    assert by_panel[2] == ["–", "+0.15", "–", "−0.12"]


def test_matrices_that_do_not_fit_are_not_drawn_together():
    with pytest.raises(BadOption, match="other rows, columns or protocols"):
        matrix_figure(matrix({("a", "a"): 0.5}), read_published("single"), data="phantom")


def test_text_is_dark_on_light_cells_and_light_on_dark_ones():
    figure = matrix_figure(matrix({("a", "a"): 0.9, ("a", "b"): 0.1}), data="phantom")
    assert [text.get_color() for text in figure.axes[0].texts] == ["black", "white"]


def test_cells_that_lack_folds_are_starred_and_counted():
    ours = matrix({("a", "a"): 0.5, ("b", "a"): 0.5})
    lacking = replace(ours, n_folds=np.array([[2, 1], [1, 2]]), sd=np.array([[0.0, np.nan], [np.nan, 0.0]]))
    figure = matrix_figure(lacking, data="phantom")
    assert texts(figure.axes[0]) == ["0.50\n± 0.00", "–", "0.50*", "–"]
    assert "over 2 folds; * 2 of 4 cells have fewer" in figure.get_supxlabel().replace("\n", " ")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["$\\frac{1}{$", "a\x1b[31m\nb", "x" * 300, "very long name " * 30, "癌", " "])
def test_any_name_of_a_domain_can_be_drawn_inside_the_figure(name):
    figure = matrix_figure(matrix({(name, name): 0.5, ("b", "b"): 0.5}), data="phantom")
    renderer, pixels = drawn(figure)
    for label in [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50


@pytest.mark.parametrize("n_domains", [1, 2, 10])
def test_texts_of_a_figure_do_not_leave_it_or_overlap(n_domains):
    names = [f"human tumour number {n}, a scanner, a laboratory, Human" for n in range(n_domains)]
    figure = matrix_figure(matrix({(a, b): 0.5 for a in names for b in names}, "leave-one-out"), data="phantom")
    renderer, _ = drawn(figure)
    width, height = figure.canvas.get_width_height()
    caption = next(text for text in figure.texts if text.get_text() == figure.get_supxlabel())
    title = next(text for text in figure.texts if text.get_text() == figure.get_suptitle())
    for text in (caption, title):
        box = text.get_window_extent(renderer)
        assert -1 <= box.x0 <= box.x1 <= width + 1
        assert -1 <= box.y0 <= box.y1 <= height + 1
    boxes = [label.get_window_extent(renderer) for label in figure.axes[0].get_yticklabels()]
    assert all(below.y1 <= above.y0 + 1 for above, below in pairwise(boxes))
    cells = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for n, a in enumerate(cells) for b in cells[n + 1 :])
    assert caption.get_window_extent(renderer).y1 <= min(
        label.get_window_extent(renderer).y0 for label in figure.axes[0].get_xticklabels()
    )


def test_area_curves_have_bars_of_one_deviation_on_a_logarithmic_axis():
    rows = [{"area_hpf": a, "repeat": r, "f1": 0.5 + 0.1 * r} for a in (5, 10, 50) for r in range(3)]
    figure = area_figure(area_curve(rows), data="real slides")
    drawn(figure)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "50"]
    (bars,) = axes.collections
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[0.5, 0.7]] * 3)
    assert texts(axes) == ["0.60\nn = 3"] * 3
    assert "HPF" in axes.get_xlabel()
