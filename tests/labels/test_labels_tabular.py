import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitoray.errors import BadLabels
from mitoray.labels import read_labels, write_labels
from mitoray.labels.schema import LABELS


def read(tmp_path, text, **more):
    (tmp_path / "labels.csv").write_text(text)
    return read_labels(tmp_path / "labels.csv", **more)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_ids_stay_text_and_kinds_are_translated(mark, tmp_path):
    text = "slide_id,x_px,y_px,kind\n001,1.5,2,Mitotic Figure\n002,3,4,hard-negative\n".replace(",", mark)
    labels = read(tmp_path, text)
    assert labels.schema == LABELS
    assert labels["slide_id"].to_pylist() == ["001", "002"]
    assert labels["x_px"].to_pylist() == [1.5, 3.0]
    assert labels["kind"].to_pylist() == ["mitotic_figure", "imposter"]


def test_a_file_name_stands_for_the_slide(tmp_path):
    labels = read(tmp_path, "filename,x_px,y_px,kind\nfolder/001.tiff,1,2,imposter\n")
    assert labels["slide_id"].to_pylist() == ["001"]


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(BadLabels, match="lacks the columns y_px, kind"):
        read(tmp_path, "slide_id,x_px\n001,1\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,nan,2,imposter,", "record 2 has no finite x_px"),
        ("a,1,inf,imposter,", "record 2 has no finite y_px"),
        ("a,,2,imposter,", "record 2 has no finite x_px"),
        (",1,2,imposter,", "record 2 has no slide_id"),
        ("a,1,2,,", "record 2 has no kind"),
        ("a,1,2,imposter,odd", "record 2 has a subtype other than normal, atypical"),
        ("a,one,2,imposter,", "wrong type"),
        ("a,1,2", "rows of one length"),
    ],
)
def test_a_bad_value_is_named_with_its_record(row, message, tmp_path):
    with pytest.raises(BadLabels, match=message):
        read(tmp_path, f"slide_id,x_px,y_px,kind,subtype\nb,1,2,imposter,\n{row}\n")


def test_broken_votes_are_named(tmp_path):
    with pytest.raises(BadLabels, match="record 1 has votes"):
        read(tmp_path, 'slide_id,x_px,y_px,kind,votes\na,1,2,imposter,"[[1"\n')


def test_negative_coordinates_are_kept_and_counted(tmp_path, caplog):
    labels = read(tmp_path, "slide_id,x_px,y_px,kind\na,-1,2,imposter\na,1,2,imposter\n")
    assert labels["x_px"].to_pylist() == [-1.0, 1.0]
    assert "1 labels have their centre left of or above the image" in caplog.text


@pytest.mark.parametrize("name", ["none.json", "none.sqlite", "none.geojson", "none.csv", "none.parquet"])
def test_a_table_without_rows_is_written_and_read_as_a_label_table(name, tmp_path):
    write_labels(LABELS.empty_table(), tmp_path / name)
    assert read_labels(tmp_path / name) == LABELS.empty_table()


def test_a_table_without_its_columns_is_not_written(tmp_path):
    with pytest.raises(BadLabels, match="lacks the columns votes"):
        write_labels(LABELS.empty_table().drop_columns(["votes"]), tmp_path / "labels.csv")


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(BadLabels, match="two columns of one name"):
        read(tmp_path, "slide_id,x_px,x_px,kind\n")


def test_a_parquet_table_needs_only_its_four_columns(tmp_path):
    table = pa.table({"slide_id": ["a"], "x_px": pa.array([1], pa.int32()), "y_px": [2], "kind": ["mitosis"]})
    pq.write_table(table, tmp_path / "labels.parquet")
    labels = read_labels(tmp_path / "labels.parquet")
    assert labels.schema == LABELS
    assert labels["kind"].to_pylist() == ["mitotic_figure"]


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = tmp_path / "labels.parquet"
    rows = [{"slide_id": "a", "x_px": 1.0, "y_px": 2.0, "kind": "imposter"}]
    write_labels(pa.Table.from_pylist(rows, schema=LABELS), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadLabels, match="no complete Parquet file"):
        read_labels(path)


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "labels.bin").write_bytes(b"\x00\x01\x02")
    with pytest.raises(BadLabels, match="State one of"):
        read_labels(tmp_path / "labels.bin")
    with pytest.raises(BadLabels, match="State one of"):
        write_labels(LABELS.empty_table(), tmp_path / "labels.xyz")


def test_nothing_is_unpickled(tmp_path):
    (tmp_path / "labels.pkl").write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00")
    with pytest.raises(BadLabels, match="no annotation file that mitoray knows"):
        read_labels(tmp_path / "labels.pkl")
