import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadLabels
from mitoray.labels import read_labels
from mitoray.labels.coco import box_dialect

CATEGORIES = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}]
IMAGES = [{"id": 7, "file_name": "images/001.tiff", "width": 1000, "height": 800, "tumor_type": "human melanoma"}]


def document(boxes, **more):
    annotations = [{"id": 10 + n, "image_id": 7, "category_id": 1, "bbox": box} | more for n, box in enumerate(boxes)]
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}


def read(document, tmp_path, dialect=None, **more):
    (tmp_path / "labels.json").write_text(json.dumps(document))
    return read_labels(tmp_path / "labels.json", dialect, **more)


def test_a_midog_box_counts_as_its_centre_also_past_the_edge(tmp_path):
    labels = read(document([[900, 700, 950, 750], [-20, 775, 30, 825]]), tmp_path)
    assert labels.select(["slide_id", "x_px", "y_px", "kind", "domain"]).to_pylist() == [
        {"slide_id": "001", "x_px": 925.0, "y_px": 725.0, "kind": "mitotic_figure", "domain": "human melanoma"},
        {"slide_id": "001", "x_px": 5.0, "y_px": 800.0, "kind": "mitotic_figure", "domain": "human melanoma"},
    ]


def test_a_coco_box_counts_as_its_centre(tmp_path):
    labels = read(document([[900, 700, 50, 40]]), tmp_path)
    assert labels.select(["x_px", "y_px"]).to_pylist() == [{"x_px": 925.0, "y_px": 720.0}]


def test_a_stated_dialect_goes_before_what_is_detected(tmp_path):
    boxes = [[10, 20, 60, 70], [100, 20, 150, 70]]
    assert read(document(boxes), tmp_path)["x_px"].to_pylist() == [35.0, 125.0]
    assert read(document(boxes), tmp_path, "coco")["x_px"].to_pylist() == [40.0, 175.0]


@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 700), st.integers(20, 60)), min_size=2, max_size=30),
    st.sampled_from(["midog", "coco"]),
)
def test_boxes_are_never_taken_for_the_wrong_dialect(figures, dialect):
    corners = np.array([[x, y, x + side, y + side] for x, y, side in figures])
    boxes = corners if dialect == "midog" else np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]
    if dialect == "coco":
        # Boxes of two sizes, so that no reading of a coco file can pass as midog boxes of one size.
        boxes = np.r_[boxes, [[500, 500, 30, 30], [500, 500, 50, 50]]]
    try:
        told = box_dialect(document(boxes.tolist()), "labels.json")
    except BadLabels:
        told = dialect  # undecided, and refused: the next test
    assert told == dialect


def test_boxes_that_fit_both_dialects_need_a_stated_one(tmp_path):
    with pytest.raises(BadLabels, match="State midog or coco"):
        read(document([[10, 20, 60, 70]]), tmp_path)


@pytest.mark.parametrize("box", [[100, 100, -5, 20], [100, 100, 100, 0], [5000, 5000, 40, 40]])
def test_a_box_that_cannot_be_either_is_named_by_its_number(box, tmp_path):
    with pytest.raises(BadLabels, match=r"record 2 \(id 11\) has the box"):
        read(document([[900, 700, 50, 40], box]), tmp_path)


def test_a_file_that_mixes_both_kinds_of_boxes_is_refused_with_one_record_of_each(tmp_path):
    with pytest.raises(BadLabels, match=r"record 2 can only be \[x1.*record 1 only \[x, y"):
        read(document([[900, 700, 50, 40], [900, 700, 950, 750]]), tmp_path)


@pytest.mark.parametrize("box", [[1, 2, 3], None, [1, 2, float("nan"), 4], ["1", 2, 3, 4], {"x": 1}])
def test_a_box_that_is_not_four_numbers_is_refused(box, tmp_path):
    with pytest.raises(BadLabels, match="record 1 has the box"):
        read(document([box]), tmp_path, "coco")


@pytest.mark.parametrize(("field", "value"), [("category_id", 3), ("image_id", 8), ("labels", [1, 9])])
def test_a_record_that_refers_to_nothing_is_named(field, value, tmp_path):
    with pytest.raises(BadLabels, match=r"record 1 \(id 10\) refers to"):
        read(document([[900, 700, 50, 40]], **{field: value}), tmp_path)


@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
@pytest.mark.parametrize("value", [None, {}, [3], [{}], [{"id": [1]}]])
def test_a_document_that_is_no_coco_file_is_refused(part, value, tmp_path):
    with pytest.raises(BadLabels):
        read(document([[900, 700, 50, 40]]) | {part: value}, tmp_path, "coco")


def test_two_images_of_one_name_are_refused(tmp_path):
    images = [*IMAGES, {"id": 8, "file_name": "other/001.tiff"}]
    with pytest.raises(BadLabels, match="slide '001' twice"):
        read(document([[900, 700, 50, 40]]) | {"images": images}, tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps(document([[900, 700, 50, 40]]))[:-20])
    with pytest.raises(BadLabels, match="no complete JSON file"):
        read_labels(tmp_path / "labels.json")


def test_votes_keep_their_order(tmp_path):
    labels = read(document([[900, 700, 950, 750]], labels=[2, 1, 1]), tmp_path)
    assert labels["votes"].to_pylist() == [
        [
            {"rater": "expert_1", "kind": "imposter"},
            {"rater": "expert_2", "kind": "mitotic_figure"},
            {"rater": "expert_3", "kind": "mitotic_figure"},
        ]
    ]


def test_duplicates_are_dropped_and_counted(tmp_path, caplog):
    labels = read(document([[900, 700, 50, 40]] * 3), tmp_path)
    assert len(labels) == 1
    assert "2 duplicate labels dropped" in caplog.text


def test_one_place_with_two_kinds_is_kept_and_counted(tmp_path, caplog):
    contradicting = document([[900, 700, 50, 40]] * 2)
    contradicting["annotations"][1]["category_id"] = 2
    assert len(read(contradicting, tmp_path)) == 2
    assert "1 labels contradict another one at the same place" in caplog.text


def test_a_kind_that_does_not_count_is_kept_as_named_and_reported(tmp_path, caplog):
    other = document([[900, 700, 50, 40]]) | {"categories": [{"id": 1, "name": "Eosinophilic granulocyte"}]}
    with caplog.at_level(logging.WARNING):
        assert read(other, tmp_path)["kind"].to_pylist() == ["Eosinophilic granulocyte"]
    assert "'Eosinophilic granulocyte': 1" in caplog.text
    translated = read(other, tmp_path, classes={"Eosinophilic granulocyte": "imposter"})
    assert translated["kind"].to_pylist() == ["imposter"]


def test_a_dataset_is_filled_in_where_the_file_does_not_say(tmp_path):
    assert read(document([[900, 700, 50, 40]]), tmp_path, dataset="mine")["dataset"].to_pylist() == ["mine"]


def test_an_unknown_dialect_is_refused(tmp_path):
    with pytest.raises(BadLabels, match="State one of midog, coco"):
        read(document([[900, 700, 50, 40]]), tmp_path, "yolo")


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(BadLabels, match="There is no annotation file"):
        read_labels(tmp_path / "nowhere.json")
    (tmp_path / "empty.json").touch()
    with pytest.raises(BadLabels, match="is empty"):
        read_labels(tmp_path / "empty.json")


def test_no_credential_of_a_uri_reaches_a_message(monkeypatch):
    monkeypatch.setenv("MITORAY_SCHEMES", "nosuchstore")
    with pytest.raises(BadLabels) as refused:
        read_labels("nosuchstore://user:hunter2@host/labels.json?signature=hunter2")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
