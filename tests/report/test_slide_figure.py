import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mitoray.errors import BadOption
from mitoray.phantom import draw_cohort
from mitoray.report.slide_figure import gallery_figure, slide_figure
from mitoray.scoring.schema import DETECTIONS, SLIDES
from mitoray.slide import find_tissue, open_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    manifest, _ = draw_cohort(tmp_path_factory.mktemp("slides"), n_slides=1, seed=5, width_px=1600, height_px=1200)
    with open_slide(manifest["uri"][0].as_py()) as opened:
        yield opened


def detections(scores, atypical=None):
    rng = np.random.default_rng(0)
    rows = [
        {
            "slide_id": "a",
            "x_px": float(rng.uniform(0, 1600)),
            "y_px": float(rng.uniform(0, 1200)),
            "detector_score": score,
            "classifier_score": None,
            "score": score,
            "atypical_probability": None if atypical is None else atypical[i],
            "member_scores": None,
        }
        for i, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(rows, schema=DETECTIONS)


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def row(**known):
    return dict.fromkeys(SLIDES.names) | {"threshold": 0.5, "mpp": 0.25, "hotspot_area_mm2": 2.0, **known}


def test_the_slide_is_drawn_with_its_fields_and_only_what_counts(slide):
    field = {"hotspot_x_px": 800.0, "hotspot_y_px": 600.0, "mitotic_count": 2, "mitotic_count_10hpf": 2}
    field |= {"hotspot_10hpf_x_px": 800.0, "hotspot_10hpf_y_px": 600.0}
    figure = slide_figure(slide, find_tissue(slide), row(**field), detections([0.9, 0.6, 0.4]))
    assert drawn(figure).std() > 10
    assert titles(figure)[0].startswith("2 mitotic figures in ")
    (circle, rectangle) = figure.axes[0].patches
    assert circle.get_radius() * 1e3 == pytest.approx(np.sqrt(2e6 / np.pi))
    assert rectangle.get_width() * rectangle.get_height() == pytest.approx(2.37)


def test_a_slide_without_any_detection_is_drawn_too(slide):
    figure = slide_figure(slide, find_tissue(slide), row(), detections([]))
    assert drawn(figure).std() > 10
    assert titles(figure)[0].startswith("0 mitotic figures")
    assert drawn(gallery_figure(slide, detections([]), 0.5)).size


def test_galleries_show_the_highest_the_borderline_and_the_atypical_first(slide):
    found = detections([0.95, 0.6, 0.55, 0.3], atypical=[0.1, 0.2, 0.9, 1.0])
    assert titles(gallery_figure(slide, found, 0.5)) == [
        "0.95, atypical 0.10",
        "0.60, atypical 0.20",
        "0.55, atypical 0.90",
    ]
    assert titles(gallery_figure(slide, found, 0.5, order="borderline", most=2))[0] == "0.55, atypical 0.90"
    assert titles(gallery_figure(slide, found, 0.5, order="atypical", most=1)) == ["0.55, atypical 0.90"]


def test_an_order_by_subtypes_needs_a_classifier_and_an_unknown_one_is_refused(slide):
    with pytest.raises(BadOption, match="--classifier"):
        gallery_figure(slide, detections([0.9]), 0.5, order="atypical")
    with pytest.raises(BadOption, match="not offered"):
        gallery_figure(slide, detections([0.9]), 0.5, order="size")
