import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadManifest, DuplicateSlideId, InvalidSlideId, SlideError
from mitoray.scoring.manifest import (
    ManifestRow,
    checked,
    file_stem,
    manifest_digest,
    manifest_from_globs,
    read_manifest,
    slide_id_of,
)


def written(folder, text):
    path = folder / "cohort.csv"
    path.write_text(text)
    return str(path)


def test_csv_and_parquet_manifests_say_the_same(tmp_path):
    csv = written(tmp_path, "slide_id,uri,mpp,domain\n007,/data/a.svs,0.25,breast\nb,s3://bucket/b.svs,,\n")
    table = pa.table({"slide_id": ["007", "b"], "uri": ["/data/a.svs", "s3://bucket/b.svs"]})
    table = table.append_column("mpp", [[0.25, None]]).append_column("domain", [["breast", None]])
    pq.write_table(table, tmp_path / "cohort.parquet")
    rows = read_manifest(csv)
    assert rows == read_manifest(str(tmp_path / "cohort.parquet"))
    assert rows == [
        ManifestRow("007", "/data/a.svs", mpp=0.25, domain="breast"),
        ManifestRow("b", "s3://bucket/b.svs"),
    ]


def test_slides_are_found_relative_to_their_manifest(tmp_path):
    (row,) = read_manifest(written(tmp_path, "slide_id,uri,tissue_uri\na,sub/a.svs,masks/a.png\n"))
    assert row.uri == f"{tmp_path}/sub/a.svs"
    assert row.tissue_uri == f"{tmp_path}/masks/a.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,path\na,b.svs\n", "lacks the column uri; it has slide_id, path"),
        ("name\na\n", "lacks the column slide_id and uri"),
        ("slide_id,uri\n", "lists no slides"),
        ("", "cannot be read as CSV"),
        ("slide_id,uri,mpp\na,b.svs,40x\n", "must hold µm per pixel as numbers"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_what_it_needs(tmp_path, text, message):
    with pytest.raises(BadManifest, match=message):
        read_manifest(written(tmp_path, text))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(BadManifest, match=r"no manifest at .*none\.csv"):
        read_manifest(str(tmp_path / "none.csv"))


@pytest.mark.parametrize("slide_id", ["", "  ", "../x", "a/b", "a\\b", ".hidden", "x" * 300, "two\nlines", "nul\0"])
def test_a_hostile_slide_id_fails_alone_and_by_name(slide_id):
    bad, good = checked([ManifestRow(slide_id, "a.svs"), ManifestRow("good", "b.svs")])
    assert isinstance(bad.error, InvalidSlideId)
    assert len(str(bad.error)) < 300
    assert good.error is None


def test_rows_that_share_a_slide_id_fail_together_and_no_other():
    first, second, other = checked([ManifestRow("a", "1.svs"), ManifestRow("a", "2.svs"), ManifestRow("b", "3.svs")])
    assert isinstance(first.error, DuplicateSlideId)
    assert isinstance(second.error, DuplicateSlideId)
    assert other.error is None


def test_a_row_without_uri_fails_alone(tmp_path):
    rows = read_manifest(written(tmp_path, "slide_id,uri\na,\nb,b.svs\n"))
    assert isinstance(rows[0].error, SlideError)
    assert rows[1].error is None


def test_quoted_line_breaks_stay_in_their_row(tmp_path):
    rows = read_manifest(written(tmp_path, 'slide_id,uri\n"two\nlines",a.svs\nb,b.svs\n'))
    assert [row.slide_id for row in rows] == ["two\nlines", "b"]
    assert isinstance(rows[0].error, InvalidSlideId)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_accepted_slide_ids_give_distinct_safe_file_names(one, other):
    accepted = {row.slide_id for row in checked([ManifestRow(one, "a"), ManifestRow(other, "b")]) if not row.error}
    stems = {file_stem(slide_id) for slide_id in accepted}
    assert len(stems) == len(accepted)
    for stem in stems:
        assert "/" not in stem
        assert stem[0] not in "._"
        assert stem.isascii()
        assert len(stem) <= 200


def test_globs_find_slides_in_name_order_and_name_them_by_file(tmp_path):
    for name in ("b.svs", "a.ome.tiff", "notes.txt", "c d.TIF"):
        (tmp_path / name).touch()
    rows = manifest_from_globs([f"{tmp_path}/*", f"{tmp_path}/b.svs"])
    assert [row.slide_id for row in rows] == ["a", "b", "c d"]


def test_a_glob_without_matches_is_an_error_and_a_missing_path_a_failed_slide(tmp_path):
    with pytest.raises(BadManifest, match="matches no slide file"):
        manifest_from_globs([f"{tmp_path}/*.svs"])
    (row,) = manifest_from_globs([f"{tmp_path}/gone.svs"])
    assert row == ManifestRow("gone", f"{tmp_path}/gone.svs")


def test_slide_ids_leave_out_the_query_of_a_signed_url():
    assert slide_id_of("https://host/a/TCGA-01.svs?X-Amz-Signature=secret") == "TCGA-01"


def test_the_digest_forgets_order_and_credentials_but_not_resolution():
    one, two = ManifestRow("a", "https://me:pw@host/a.svs?sig=1"), ManifestRow("b", "b.svs", mpp=0.25)
    same = ManifestRow("a", "https://host/a.svs?sig=2")
    assert manifest_digest([one, two]) == manifest_digest([two, same])
    assert manifest_digest([one, two]) != manifest_digest([one, ManifestRow("b", "b.svs", mpp=0.5)])
