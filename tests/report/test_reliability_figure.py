import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mitoray.errors import BadOption
from mitoray.evaluation.calibration import reliability
from mitoray.report.reliability_figure import reliability_figure


@pytest.fixture(scope="module")
def curves():
    rng = np.random.default_rng(0)
    probability = rng.random(1200)
    truths = rng.random(1200) < probability
    return reliability(probability**3, truths), reliability(probability, truths)


def test_the_figure_shows_the_curve_the_counts_and_the_error_of_both(curves):
    figure = reliability_figure(*curves, data="real slides", part="not searched")
    top, bottom = figure.axes[:2], figure.axes[2:]
    for axes, counts, curve, title in zip(top, bottom, curves, ("not calibrated", "calibrated"), strict=True):
        assert axes.get_title() == f"{title}: ECE {curve.error:.3f}"
        filled = curve.count > 0
        np.testing.assert_allclose(axes.lines[1].get_xdata(), curve.mean_probability[filled])
        np.testing.assert_allclose(axes.lines[1].get_ydata(), curve.share_true[filled])
        assert [bar.get_height() for bar in counts.patches] == curve.count.tolist()


@pytest.mark.parametrize(("data", "said"), [("phantom", "no real tissue"), ("real crops", "crops of real slides")])
def test_the_figure_says_what_data_which_part_and_how_many(curves, data, said):
    text = reliability_figure(*curves, data=data, part="not searched").get_supxlabel()
    assert said in text
    assert "1,200 candidates, not searched" in text


def test_without_calibration_there_is_one_curve(curves):
    figure = reliability_figure(curves[0], None, data="phantom", part="searched")
    assert [axes.get_title() for axes in figure.axes] == [f"not calibrated: ECE {curves[0].error:.3f}", ""]


def test_unknown_data_is_refused(curves):
    with pytest.raises(BadOption, match="The data 'real' is unknown"):
        reliability_figure(*curves, data="real", part="all")


def test_texts_do_not_overlap_or_leave_the_figure(curves):
    figure = reliability_figure(*curves, data="phantom", part="on the 12 slides that were not searched")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    caption = next(text for text in figure.texts if text.get_text() == figure.get_supxlabel())
    boxes = [caption.get_window_extent(renderer), *(axes.title.get_window_extent(renderer) for axes in figure.axes[:2])]
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
