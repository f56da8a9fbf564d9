import json

import pyarrow as pa
import pytest

from mitoray.errors import BadLabels
from mitoray.labels import read_labels, write_labels
from mitoray.labels.schema import LABELS


def feature(geometry, classification={"name": "Mitosis"}, **properties):  # noqa: B006
    properties = {"objectType": "annotation", "classification": classification} | properties
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def point(x, y):
    return {"type": "Point", "coordinates": [x, y]}


def read(tmp_path, *features, name="007.geojson"):
    (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return read_labels(tmp_path / name)


def test_points_multipoints_and_outlines_of_cells_are_labels(tmp_path):
    ellipse = {"type": "Polygon", "coordinates": [[[10, 20], [30, 20], [30, 60], [10, 60], [10, 20]]]}
    many = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4], [1, 2.5]]}
    labels = read(tmp_path, feature(point(5.5, 6)), feature(many, {"name": "imposter"}), feature(ellipse))
    places = labels.select(["x_px", "y_px", "kind"]).to_pylist()
    assert [tuple(place.values()) for place in places] == [
        (5.5, 6.0, "mitotic_figure"),
        (1.0, 2.0, "imposter"),
        (3.0, 4.0, "imposter"),
        (1.0, 2.5, "imposter"),
        (20.0, 40.0, "mitotic_figure"),
    ]
    assert set(labels["slide_id"].to_pylist()) == {"007"}


@pytest.mark.parametrize(
    "classification", [{"name": "Mitosis: Atypical"}, {"names": ["Mitosis", "Atypical"], "color": [1, 2, 3]}]
)
def test_a_derived_class_gives_the_subtype(classification, tmp_path):
    (label,) = read(tmp_path, feature(point(1, 2), classification)).to_pylist()
    assert (label["kind"], label["subtype"]) == ("mitotic_figure", "atypical")


def test_the_slide_is_named_by_the_file_without_the_suffixes_of_slide_and_export(tmp_path):
    assert read(tmp_path, feature(point(1, 2)), name="007.svs.geojson")["slide_id"].to_pylist() == ["007"]


def test_a_feature_without_a_class_is_left_out_and_counted(tmp_path, caplog):
    assert len(read(tmp_path, feature(point(1, 2), None), feature(point(3, 4)))) == 1
    assert "left out 1 features without a class" in caplog.text


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {},
        {"type": "Point"},
        {"type": "Polygon", "coordinates": []},
        point("x", 2),
        point(None, 2),
        point(1e999, 2),
        {"type": "Point", "coordinates": [1]},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": 3, "coordinates": [1]},
    ],
)
def test_a_feature_without_usable_coordinates_is_named(geometry, tmp_path):
    with pytest.raises(BadLabels, match="feature 2"):
        read(tmp_path, feature(point(1, 2)), feature(geometry))


@pytest.mark.parametrize("broken", [3, "text", {}, {"geometry": point(1, 2)}, {"properties": 3}])
def test_a_record_that_is_no_feature_is_named(broken, tmp_path):
    with pytest.raises(BadLabels, match="record 1 is no feature"):
        read(tmp_path, broken)


def test_broken_votes_are_named(tmp_path):
    with pytest.raises(BadLabels, match="feature 1 has votes"):
        read(tmp_path, feature(point(1, 2), metadata={"votes": "[1, 2"}))


def test_a_folder_without_geojson_is_refused(tmp_path):
    with pytest.raises(BadLabels, match=r"holds no \.geojson file"):
        read_labels(tmp_path)


def test_each_slide_gets_its_own_file_as_qupath_imports_them(tmp_path):
    rows = [
        {"slide_id": "a", "x_px": 1.5, "y_px": 2.0, "kind": "mitotic_figure", "subtype": "atypical"},
        {"slide_id": "b", "x_px": 3.0, "y_px": 4.0, "kind": "imposter"},
    ]
    table = pa.Table.from_pylist(rows, schema=LABELS)
    with pytest.raises(BadLabels, match="Name a folder"):
        write_labels(table, tmp_path / "all.geojson")
    write_labels(table, tmp_path / "qupath")
    assert sorted(file.name for file in (tmp_path / "qupath").iterdir()) == ["a.geojson", "b.geojson"]
    written = json.loads((tmp_path / "qupath/a.geojson").read_text())
    (only,) = written["features"]
    assert written["type"] == "FeatureCollection"
    assert only["geometry"] == {"type": "Point", "coordinates": [1.5, 2.0]}
    assert only["properties"]["objectType"] == "annotation"
    assert only["properties"]["classification"]["name"] == "mitotic_figure: atypical"
    assert all(isinstance(value, str) for value in only["properties"]["metadata"].values())
