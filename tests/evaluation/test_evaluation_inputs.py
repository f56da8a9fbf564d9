"""What evaluation refuses, what it warns of, and what it takes."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitoray.errors import BadDetections, BadManifest, BadOption
from mitoray.evaluation.inputs import check_overlap, checked_detections, read_detections, read_slides, slides_of


def detections(**columns):
    rows = {"slide_id": ["a", "b"], "x_px": [1.0, 2.0], "y_px": [3.0, 4.0], "score": [0.9, 0.1]}
    return pa.table(rows | columns)


def labels(*slide_ids):
    n = len(slide_ids)
    return pa.table({"slide_id": slide_ids, "domain": pa.array(["breast"] * n), "kind": ["imposter"] * n})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x_px": [1.0, np.nan]}, "row 2 has no finite x_px"),
        ({"y_px": [None, 4.0]}, "row 1 has no finite y_px"),
        ({"score": [0.5, 1.01]}, "row 2 has a score outside 0 to 1"),
        ({"score": [-0.1, -0.1]}, "row 1 and 1 more has a score outside"),
        ({"score": [None, 0.1]}, "row 1 has no finite score"),
        ({"slide_id": [None, "b"]}, "row 1 has no slide_id"),
        ({"score": ["high", "low"]}, "wrong type"),
    ],
)
def test_impossible_detections_are_refused_with_their_row(columns, message):
    with pytest.raises(BadDetections, match=message):
        checked_detections(detections(**columns), "found.parquet")


def test_a_missing_column_is_named_beside_those_there_are():
    with pytest.raises(BadDetections, match=r"lacks the columns score\. .* it has slide_id, x_px, y_px"):
        checked_detections(detections().drop_columns("score"), "found.parquet")


def test_suspicious_detections_are_counted_aloud(caplog):
    with caplog.at_level(logging.WARNING):
        checked_detections(detections(slide_id=["a", "a"], x_px=[-1.0, -1.0], y_px=[3.0, 3.0]), "found.parquet")
    assert "2 detections lie left of or above the slide" in caplog.text
    assert "1 detections lie exactly on another one" in caplog.text


def test_detections_come_from_a_file_or_a_folder_of_files(tmp_path):
    pq.write_table(detections(), tmp_path / "one.parquet")
    pq.write_table(detections(slide_id=["c", "d"]), tmp_path / "two.parquet")
    assert read_detections(str(tmp_path / "one.parquet")).num_rows == 2
    assert sorted(read_detections(str(tmp_path))["slide_id"].to_pylist()) == ["a", "b", "c", "d"]
    with pytest.raises(BadDetections, match="no detections at gone"):
        read_detections(str(tmp_path / "gone"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadDetections, match=r"torn\.parquet cannot be read"):
        read_detections(str(tmp_path / "torn.parquet"))


def test_slides_take_their_resolution_from_the_manifest_first(tmp_path):
    path = tmp_path / "slides.csv"
    path.write_text("slide_id,mpp,domain,area_mm2,uri\n001,0.23,lung,2.5,x.svs\n002,,,,y.svs\n")
    first, second = read_slides(str(path), mpp=0.25)
    assert (first.slide_id, first.mpp, first.domain, first.area_mm2) == ("001", 0.23, "lung", 2.5)
    assert (second.slide_id, second.mpp, second.domain, second.area_mm2) == ("002", 0.25, None, None)
    with pytest.raises(BadOption, match="002 has no µm per pixel"):
        read_slides(str(path))


def test_slides_of_a_run_that_failed_are_left_out_aloud(tmp_path, caplog):
    table = pa.table(
        {
            "slide_id": ["a", "b"],
            "status": ["scored", "failed"],
            "mpp": [0.25, None],
            "tissue_mm2": pa.array([7.0, None]),
        }
    )
    pq.write_table(table, tmp_path / "slides.parquet")
    (slide,) = read_slides(str(tmp_path / "slides.parquet"))
    assert (slide.slide_id, slide.area_mm2) == ("a", 7.0)
    assert "slides that failed are left out: 1 (b)" in caplog.text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("name\na\n", BadManifest, "lacks the column slide_id"),
        ("slide_id,mpp\na,0.25\na,0.25\n", BadManifest, "twice"),
        ("slide_id,mpp\na,fine\n", BadManifest, "cannot be read"),
        ("slide_id,mpp\na,25\n", BadOption, "a has 25.0 as µm per pixel"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path, text, error, message):
    path = tmp_path / "slides.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_slides(str(path))


def test_without_a_manifest_every_slide_of_either_table_counts(caplog):
    slides = slides_of(detections(), labels("b", "c"), mpp=0.25)
    assert [(s.slide_id, s.domain) for s in slides] == [("a", None), ("b", "breast"), ("c", "breast")]
    assert "without any label are taken to hold no mitotic figure: 1 (a)" in caplog.text


def test_labels_for_slides_outside_the_manifest_are_counted_aloud_and_a_mismatch_of_all_is_refused(caplog):
    slides = slides_of(detections(), labels("b"), mpp=0.25)
    check_overlap(detections(), labels("b", "x", "y"), slides)
    assert "not in the manifest, their labels left out: 2 (x, y)" in caplog.text
    with pytest.raises(BadOption, match="slide_id alike"):
        check_overlap(detections(), labels("a.svs"), slides)
