import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.labels import read_labels, write_labels
from mitoray.labels.schema import LABELS
from mitoray.labels.source import replacing

DATA = Path(__file__).parents[2] / "../shared/data"

ORDER = [(name, "ascending") for name in ("slide_id", "x_px", "y_px", "kind")]

names = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), max_size=6)
texts = st.none() | names.map(lambda name: f"d{name}")
kinds = st.sampled_from(["mitotic_figure", "imposter", "Granulocyte"])
coordinates = st.integers(-100, 400_000).map(lambda quarters: quarters / 4)
votes = st.none() | st.lists(
    st.fixed_dictionaries({"rater": names.map(lambda name: f"r{name}"), "kind": kinds}), min_size=1, max_size=3
)
rows = st.fixed_dictionaries(
    {
        "dataset": texts,
        "slide_id": names.map(lambda name: f"s{name}"),
        "x_px": coordinates,
        "y_px": coordinates,
        "kind": kinds,
        "subtype": st.sampled_from([None, "normal", "atypical"]),
        "votes": votes,
        "domain": texts,
    }
)
tables = st.lists(rows, min_size=1, max_size=12, unique_by=lambda row: (row["slide_id"], row["x_px"], row["y_px"])).map(
    lambda rows: pa.Table.from_pylist(rows, schema=LABELS)
)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR)


@pytest.mark.parametrize("dialect", ["coco", "midog", "geojson", "csv", "parquet"])
@given(table=tables)
@settings(max_examples=12, deadline=None)
def test_nothing_is_lost_on_the_way_through_a_format(dialect, table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels"
        write_labels(table, path, dialect, slide_suffix=".svs")
        assert read_labels(path, dialect).sort_by(ORDER) == table.sort_by(ORDER)


@given(table=tables)
@settings(max_examples=12, deadline=None)
def test_sliderunner_loses_only_what_it_has_no_place_for(table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.sqlite"
        write_labels(table, path, slide_suffix=".svs")
        kept = ["slide_id", "x_px", "y_px", "kind", "subtype", "votes"]
        assert read_labels(path).select(kept).sort_by(ORDER) == table.select(kept).sort_by(ORDER)


@pytest.mark.parametrize("name", ["labels.json", "labels.sqlite", "labels.csv", "labels.parquet", "labels"])
@pytest.mark.skipif(not (DATA / "tupac").is_dir(), reason="needs the TUPAC16 label databases of shared/data")
def test_the_tupac_labels_survive_every_format(name, tmp_path):
    labels = read_labels(DATA / "tupac/alternative_labels.sqlite")
    write_labels(labels, tmp_path / name)
    assert read_labels(tmp_path / name).sort_by(ORDER) == labels.sort_by(ORDER)


@pytest.mark.skipif(not (DATA / "midogpp").is_dir(), reason="needs the MIDOG++ annotation file of shared/data")
@pytest.mark.parametrize("dialect", ["midog", "coco"])
def test_boxes_of_midog_are_told_apart_from_boxes_of_coco(dialect, tmp_path):
    labels = read_labels(DATA / "midogpp/MIDOG++.json").slice(0, 2000)
    write_labels(labels, tmp_path / "labels.json", dialect)
    assert read_labels(tmp_path / "labels.json") == labels


def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text("old")

    def break_off():
        with replacing(path) as part:
            part.write_text("new, but")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["labels.json"]


def test_slides_are_named_without_their_files_suffix_and_ids_keep_their_dots(tmp_path):
    row = {"slide_id": "TCGA-A1.1234.a", "x_px": 1.0, "y_px": 2.0, "kind": "imposter"}
    write_labels(pa.Table.from_pylist([row], schema=LABELS), tmp_path / "labels.sqlite", slide_suffix=".ome.tiff")
    assert read_labels(tmp_path / "labels.sqlite")["slide_id"].to_pylist() == ["TCGA-A1.1234.a"]
