"""The GeoJSON that QuPath opens: where figures lie, what they are called, and how many a file holds."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mitoray.counting.hotspot import densest_circle, densest_rectangle
from mitoray.errors import BadOption
from mitoray.scoring.config import Cohort, Files, Identity
from mitoray.scoring.geojson import geojson_files
from mitoray.scoring.reduce import SlideResult
from mitoray.scoring.results import write_slide
from mitoray.scoring.schema import DETECTIONS
from mitoray.storage import Folder

MPP = 0.25


def detections_of(n, seed=0):
    rng = np.random.default_rng(seed)
    blank = [None] * n
    columns = {
        "slide_id": ["s"] * n,
        "x_px": rng.random(n) * 20_000,
        "y_px": rng.random(n) * 20_000,
        "detector_score": rng.random(n),
        "classifier_score": blank,
        "score": np.sort(rng.random(n))[::-1],
        "atypical_probability": rng.random(n),
        "member_scores": blank,
    }
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in DETECTIONS], schema=DETECTIONS)


def points_of(detections):
    return np.column_stack([detections["x_px"].to_numpy(), detections["y_px"].to_numpy()])


def documents(*arguments):
    return [json.loads(content) for content in geojson_files(*arguments)]


def test_figures_and_fields_lie_where_qupath_shows_them_from_the_corner_of_the_slide():
    detections = detections_of(300)
    points = points_of(detections)
    fields = (densest_circle(points * MPP), densest_rectangle(points * MPP))
    (document,) = documents(detections, fields, MPP)
    circle, rectangle, *figures = document["features"]
    shown = np.array([figure["geometry"]["coordinates"] for figure in figures])
    assert np.abs(shown - points).max() <= 0.051
    assert shown.min() >= -0.1
    for feature, field in ((circle, fields[0]), (rectangle, fields[1])):
        corners = np.array(feature["geometry"]["coordinates"][0])
        assert (corners[0] == corners[-1]).all()
        middle = corners[:-1].mean(axis=0)
        assert middle == pytest.approx(np.array([field.x_um, field.y_um]) / MPP, abs=0.1)
        assert feature["properties"]["objectType"] == "annotation"
    width, height = np.ptp(np.array(rectangle["geometry"]["coordinates"][0]), axis=0) * MPP
    assert (width, height) == pytest.approx((fields[1].width_um, fields[1].height_um), abs=0.1)


def test_circles_are_closed_polygons_of_their_radius_around_the_same_places():
    detections = detections_of(50)
    (document,) = documents(detections, (), MPP, "circles")
    for figure, place in zip(document["features"], points_of(detections), strict=True):
        corners = np.array(figure["geometry"]["coordinates"][0])
        assert (figure["geometry"]["type"], figure["properties"]["objectType"]) == ("Polygon", "detection")
        assert (corners[0] == corners[-1]).all()
        assert np.linalg.norm(corners - place, axis=1) * MPP == pytest.approx(np.full(13, 6.25), abs=0.03)


@pytest.mark.parametrize("shape", ["points", "circles"])
def test_figures_are_classified_coloured_and_measured_in_either_shape(shape):
    detections = detections_of(80)
    (document,) = documents(detections, (), MPP, shape)
    for figure, row in zip(document["features"], detections.to_pylist(), strict=True):
        atypical = row["atypical_probability"] >= 0.5
        classification = figure["properties"]["classification"]
        assert classification["name"] == ("Atypical mitotic figure" if atypical else "Mitotic figure")
        assert len(classification["color"]) == 3
        assert figure["properties"]["measurements"]["score"] == pytest.approx(row["score"], abs=1e-4)
        assert "classifier_score" not in figure["properties"]["measurements"]


def test_a_hundred_thousand_figures_are_files_of_fifty_thousand_best_first_and_each_once():
    detections = detections_of(100_001)
    field = densest_circle(points_of(detections)[:100] * MPP)
    contents = list(geojson_files(detections, (field,), MPP))
    read = [json.loads(content)["features"] for content in contents]
    assert [len(features) for features in read] == [50_001, 50_000, 1]
    assert read[0][0]["properties"]["classification"]["name"] == "Hotspot"
    shown = np.array([f["geometry"]["coordinates"] for features in read for f in features][1:], dtype=object)
    assert np.abs(np.array(shown.tolist()) - points_of(detections)).max() <= 0.051
    assert max(map(len, contents)) < 16e6


def test_no_figures_are_one_file_that_says_so():
    assert documents(detections_of(0), (), MPP) == [{"type": "FeatureCollection", "features": []}]


def test_a_run_names_the_first_file_and_leaves_no_parts_of_an_earlier_form(tmp_path):
    folder = Folder.at(str(tmp_path))
    plan = {"mpp": MPP}
    # A slide that is itself called like a part of the other must keep its file.
    other = write_slide(folder, plan, SlideResult({"slide_id": "a.part-02"}, detections_of(3)))
    result = SlideResult({"slide_id": "a"}, detections_of(25))
    row = write_slide(folder, plan, result, Files(geojson_figures=10))
    parts = sorted(path.relative_to(tmp_path / "geojson").as_posix() for path in tmp_path.rglob("*.geojson"))
    assert parts == ["a.geojson", "a.part-02.geojson", "a.parts/a.part-02.geojson", "a.parts/a.part-03.geojson"]
    assert row["geojson_file"] == "geojson/a.geojson"
    write_slide(folder, plan, result, Files(geojson_shape="circles"))
    assert [path.name for path in tmp_path.rglob("*.geojson") if path.stem != "a"] == ["a.part-02.geojson"]
    assert len(json.loads(folder.read_bytes("geojson/a.geojson"))["features"]) == 25
    assert len(json.loads(folder.read_bytes(other["geojson_file"]))["features"]) == 3


def test_the_form_of_files_is_checked_and_no_part_of_what_a_run_is():
    with pytest.raises(BadOption, match="points or circles"):
        Files(geojson_shape="stars")
    with pytest.raises(BadOption, match="at least 1"):
        Files(geojson_figures=0)
    assert Cohort([], "mitoray-s", "out").files == Files()
    assert not [name for name in Identity("mitoray-s", "aa", "bb", 1).record()["method"] if "geojson" in name]
