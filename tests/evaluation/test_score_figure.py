import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mitoray.evaluation.cohort import EvaluatedSlide, MatchedCohort
from mitoray.evaluation.figures import score_figure
from mitoray.evaluation.matching import match


def cohort(n_true, n_false):
    labels = np.arange(n_true, dtype=float)[:, None] * [100.0, 0.0]
    elsewhere = np.arange(n_false, dtype=float)[:, None] * [100.0, 0.0] + [0.0, 500.0]
    points = np.concatenate([labels, elsewhere]).reshape(-1, 2)
    scores = np.concatenate([np.full(n_true, 0.9), np.full(n_false, 0.1)])
    return MatchedCohort((EvaluatedSlide("a", 0.25),), (match(points, scores, labels.reshape(-1, 2), 6.25),))


def test_each_domain_has_a_panel_with_its_true_and_false_scores_and_its_threshold():
    figure = score_figure({"one": cohort(7, 3), "two": cohort(0, 2)}, {"one": 0.4})
    FigureCanvasAgg(figure).draw()
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("one", "two")
    heights = [patch.get_height() for patch in first.patches if hasattr(patch, "get_height")]
    assert sum(heights) == 7
    assert [line.get_xdata()[0] for line in first.lines] == [0.4]
    assert not second.lines


def test_a_domain_without_any_slide_is_an_empty_panel():
    figure = score_figure({"none": MatchedCohort((), ())}, {})
    FigureCanvasAgg(figure).draw()
    assert figure.axes[0].get_title() == "none"
