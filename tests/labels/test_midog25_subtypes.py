from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from mitoray.errors import BadLabels
from mitoray.labels import read_labels
from mitoray.labels.atypical import with_subtypes
from mitoray.labels.schema import LABELS

MIDOG = Path(__file__).parents[2] / "../shared/data/midogpp"

HEADER = "filename,coordinateX,coordinateY,majority\n"


def labels():
    rows = [
        {"slide_id": "001", "x_px": 10.5, "y_px": 20.0, "kind": "mitotic_figure"},
        {"slide_id": "001", "x_px": 10.0, "y_px": 20.0, "kind": "imposter"},
        {"slide_id": "002", "x_px": 10.0, "y_px": 20.5, "kind": "mitotic_figure", "subtype": "normal"},
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


@pytest.mark.skipif(not MIDOG.is_dir(), reason="needs the MIDOG++ and MIDOG 2025 files of shared/data")
def test_every_mitotic_figure_of_midog_gets_the_published_subtype():
    found = with_subtypes(read_labels(MIDOG / "MIDOG++.json"), MIDOG / "atypical_labels_midog25.csv")
    pairs = Counter(zip(found["kind"].to_pylist(), found["subtype"].to_pylist(), strict=True))
    assert pairs == {
        ("mitotic_figure", "normal"): 10189,
        ("mitotic_figure", "atypical"): 1748,
        ("imposter", None): 14349,
    }


def test_half_pixels_are_cut_off_and_other_labels_keep_their_subtype(tmp_path):
    (tmp_path / "votes.csv").write_text(f"{HEADER}001.tiff,10,20,AMF\n")
    found = with_subtypes(labels(), tmp_path / "votes.csv")
    assert found["subtype"].to_pylist() == ["atypical", None, "normal"]
    assert found.schema == LABELS


@pytest.mark.parametrize(
    "row", ["003.tiff,10,20,AMF", "001.tiff,11,20,AMF", "001.tiff,10,20,odd", "001.tiff,x,20,AMF", ",10,20,AMF"]
)
def test_a_row_without_its_mitotic_figure_is_named(row, tmp_path):
    (tmp_path / "votes.csv").write_text(f"{HEADER}002.tiff,10,20,NMF\n{row}\n")
    with pytest.raises(BadLabels, match="record 2"):
        with_subtypes(labels(), tmp_path / "votes.csv")


def test_another_table_is_refused(tmp_path):
    (tmp_path / "votes.csv").write_text("filename,x\n001.tiff,1\n")
    with pytest.raises(BadLabels, match="lacks the columns coordinateX, coordinateY, majority"):
        with_subtypes(labels(), tmp_path / "votes.csv")
