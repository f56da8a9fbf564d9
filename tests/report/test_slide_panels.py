"""What the report shows of one slide, held against the slide and the run's tables."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from run_folder import corrupt_tiles, draw, make_run

from mitoray.counting.hotspot import densest_circle
from mitoray.report.figures import CROP_UM, chosen_figures
from mitoray.report.panel import PanelSize, PanelTask, make_panel
from mitoray.report.pictures import outline_path, picture_uri
from mitoray.report.slide_layers import density_layer
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.schema import DETECTIONS
from mitoray.slide import Rect, open_slide
from mitoray.storage import Folder

SIZE = PanelSize.for_slides(1, 64_000_000)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run of one phantom: its folder, its SLIDES row, its PLAN row, its figures in level-0 px."""
    base = tmp_path_factory.mktemp("panel")
    points = draw(base / "one.svs", "phantom-lymphoma-a", seed=11, width_px=2400, height_px=1600)
    folder = Folder.at(str(base / "run"))
    (row,) = make_run(folder, [ManifestRow("one", str(base / "one.svs"))], {"one": points}).to_pylist()
    (plan,) = folder.read_table("work/plan/000000.parquet").to_pylist()
    return folder, row, plan, points


@pytest.fixture(scope="module")
def task(scored):
    _, row, plan, _ = scored
    return PanelTask(row, plan, row["uri"], SIZE, 2.37)


@pytest.fixture(scope="module")
def panel(scored, task):
    return make_panel(scored[0], task)


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_overview_is_the_slide(panel, task):
    overview = picture(panel["overview"])
    assert max(overview.size) == SIZE.overview_px
    assert overview.width / overview.height == pytest.approx(panel["width_um"] / panel["height_um"], rel=0.01)
    with open_slide(task.uri) as slide:
        assert panel["width_um"] == pytest.approx(slide.width_px * slide.mpp)
        expected = slide.thumbnail(panel["width_um"] / overview.width)
    shown = np.asarray(overview, float)
    assert np.abs(shown - expected).mean() < np.abs(shown[::-1] - expected).mean() / 3


def test_fields_of_view_lie_where_the_run_found_them(panel, scored, task):
    _, row, _, points = scored
    circle, rectangle = panel["circle"], panel["rectangle"]
    counted_um = points[np.linspace(0.05, 0.95, len(points)).round(3) >= 0.5] * row["mpp"]
    distances = np.linalg.norm(counted_um - (circle["x_um"], circle["y_um"]), axis=1)
    assert (distances <= circle["radius_um"] * 1.001).sum() == circle["count"] == densest_circle(counted_um).count
    assert np.pi * circle["radius_um"] ** 2 / 1e6 == pytest.approx(2)
    assert rectangle["width_um"] * rectangle["height_um"] / 1e6 == pytest.approx(2.37)
    assert rectangle["width_um"] / rectangle["height_um"] == pytest.approx(4 / 3)
    assert rectangle["x_um"] + rectangle["width_um"] / 2 == pytest.approx(row["hotspot_10hpf_x_px"] * row["mpp"])


def test_there_is_a_dot_for_each_figure_that_counts(panel, scored):
    _, row, _, _ = scored
    assert panel["dots"]["of"] == panel["dots"]["shown"] == row["n_detections"] == panel["dots"]["d"].count("M")


def test_a_crop_shows_its_place_on_the_slide(panel, task):
    assert {crop["group"] for crop in panel["crops"]} == {"highest", "borderline"}
    with open_slide(task.uri) as slide:
        for crop in panel["crops"]:
            shown = np.asarray(picture(crop["src"]), float)
            side = round(CROP_UM / slide.mpp)
            rect = Rect(round(crop["x_px"] - side / 2), round(crop["y_px"] - side / 2), side, side)
            there = slide.read_region(rect, CROP_UM / SIZE.crop_px)
            assert shown.shape == there.shape
            assert np.abs(shown - there).mean() < 8


@pytest.mark.parametrize("most", [6_000, 20_000, 53_000, 150_000])
def test_a_panel_is_never_larger_than_its_share(scored, task, most):
    size = replace(PanelSize.for_slides(64_000_000 // most, 64_000_000), most=most)
    panel = make_panel(scored[0], replace(task, size=size))
    assert panel["error"] is None
    assert len(json.dumps(panel)) <= most
    if most >= 20_000:
        assert panel["overview"]
        assert panel["crops"]


def test_1200_slides_share_what_a_report_may_take():
    size = PanelSize.for_slides(1200, 64_000_000)
    assert size.most * 1200 <= 64_000_000
    assert (size.overview_px, size.crop_px) == (400, 64)
    assert PanelSize.for_slides(30, 64_000_000).most < 64_000_000 / 30


def test_a_slide_that_is_gone_shows_what_the_run_knows_of_it(scored, task):
    panel = make_panel(scored[0], replace(task, uri="/nowhere/one.svs"))
    assert panel["error"].startswith("SlideNotFound: ")
    assert panel.get("overview") is None
    assert panel["crops"] == []
    assert panel["circle"]["count"] == task.row["mitotic_count"]
    assert panel["outline"]["d"]


def test_a_slide_whose_plan_was_cleared_away_goes_without_outline(scored, task):
    panel = make_panel(scored[0], replace(task, plan=None))
    assert panel["error"] is None
    assert "outline" not in panel
    assert panel["overview"]
    assert panel["width_um"] == pytest.approx(2400 * task.row["mpp"])


def test_detections_that_are_gone_are_an_error_of_their_slide(scored, task):
    panel = make_panel(scored[0], replace(task, row={**task.row, "detections_file": "detections/none.parquet"}))
    assert "FileNotFoundError" in panel["error"]


def test_a_slide_that_was_never_opened_says_why(scored, task):
    panel = make_panel(scored[0], replace(task, row={**task.row, "mpp": None, "error": "EmptySlide: it is"}, plan=None))
    assert panel["error"] == "EmptySlide: it is"
    assert panel["crops"] == []


def test_crops_on_corrupt_tiles_are_left_out_and_counted(tmp_path, scored):
    _, _, _, points = scored
    draw(tmp_path / "bad.svs", "phantom-lymphoma-a", seed=11, width_px=2400, height_px=1600)
    folder = Folder.at(str(tmp_path / "run"))
    (row,) = make_run(folder, [ManifestRow("bad", str(tmp_path / "bad.svs"))], {"bad": points}).to_pylist()
    whole = make_panel(folder, PanelTask(row, None, row["uri"], SIZE, 2.37))
    corrupt_tiles(tmp_path / "bad.svs", range(20))
    broken = make_panel(folder, PanelTask(row, None, row["uri"], SIZE, 2.37))
    assert broken["left_out"] > 0
    assert len(broken["crops"]) + broken["left_out"] == len(whole["crops"])


def test_the_key_changes_with_the_results_and_the_size_only(task):
    assert replace(task, uri="elsewhere").key == task.key
    assert replace(task, row={**task.row, "n_detections": 1}).key != task.key
    assert replace(task, size=PanelSize.for_slides(1200, 64_000_000)).key != task.key


# ---- which figures


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), max_size=40), st.floats(0.05, 0.95), st.integers(1, 6))
def test_the_highest_count_and_the_borderline_are_the_nearest_of_the_rest(scores, threshold, most):
    ordered = sorted(scores, reverse=True)
    rows = [dict.fromkeys(DETECTIONS.names) | {"slide_id": "s", "x_px": 0.0, "y_px": 0.0, "score": s} for s in ordered]
    figures = chosen_figures(pa.Table.from_pylist(rows, schema=DETECTIONS), threshold, most)
    counted = [s for s in ordered if s >= threshold]
    highest = [one for one in figures if one["group"] == "highest"]
    borderline = [one for one in figures if one["group"] == "borderline"]
    assert [one["score"] for one in highest] == [round(s, 4) for s in counted[:most]]
    rest = ordered[len(highest) :]
    assert len(borderline) == min(most, len(rest))
    ranks = [one["rank"] for one in figures]
    assert len(ranks) == len(set(ranks))
    distances = sorted(abs(s - threshold) for s in rest)
    shown = sorted(abs(ordered[one["rank"] - 1] - threshold) for one in borderline)
    assert shown == pytest.approx(distances[: len(shown)])
    assert all(one["counted"] == (ordered[one["rank"] - 1] >= threshold) for one in figures)


# ---- pictures


def area(path):
    """Area of a path of closed polygons, holes taken off."""
    total = 0.0
    for part in re.findall(r"M([^Z]*)Z", path):
        x, y = np.array([[float(v) for v in pair.split()] for pair in part.split("L")]).T
        total += (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    return abs(total)


def test_the_outline_encloses_the_tissue_and_leaves_out_its_holes():
    mask = np.zeros((60, 80), bool)
    mask[5:55, 10:70] = True
    mask[20:30, 30:50] = False
    assert area(outline_path(mask, 5000)) == pytest.approx(mask.sum(), rel=0.04)
    whole = np.ones((30, 40), bool)
    assert area(outline_path(whole, 5000)) == pytest.approx(1200, rel=0.04)
    assert outline_path(np.zeros((30, 40), bool), 5000) == ""


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 100), st.integers(60, 4000))
def test_an_outline_of_any_tissue_fits_into_its_characters(seed, most):
    mask = np.random.default_rng(seed).random((120, 160)) > 0.5
    assert len(outline_path(mask, most)) <= most


def test_a_picture_fits_into_its_characters_or_there_is_none():
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for most in (30_000, 8_000, 1_500):
        assert len(picture_uri(noise, most)) <= most
    assert picture_uri(noise, 100) is None


def test_the_density_is_highest_where_the_figures_are():
    points_um = np.random.default_rng(3).normal((9_000, 3_000), 300, (200, 2))
    layer = density_layer(points_um, (12_000, 8_000), 2.0, 15_000)
    image = np.asarray(picture(layer["src"]).convert("RGBA"))
    row, column = np.unravel_index(image[..., 3].argmax(), image.shape[:2])
    x_um, y_um = (column + 0.5) * layer["width_um"] / image.shape[1], (row + 0.5) * layer["height_um"] / image.shape[0]
    assert np.hypot(x_um - 9_000, y_um - 3_000) < 900
    assert layer["area_mm2"] == 2.0
    assert layer["highest"] == layer["top"] <= 200
    few = density_layer(points_um[:2], (12_000, 8_000), 2.0, 15_000)
    assert (few["highest"], few["top"]) == (2, 5)
    assert density_layer(points_um, (3_000, 2_000), 2.0, 15_000)["area_mm2"] == 0.2
    assert density_layer(np.empty((0, 2)), (3_000, 2_000), 2.0, 15_000) is None
