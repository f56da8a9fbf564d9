import random
from pathlib import Path

import pytest
from dataset_services import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.datasets import Destination, RemoteFile, dataset_named, fetch_file, remote_files
from mitoray.datasets.halves import LocalHalf
from mitoray.errors import BrokenDownload, DatasetForbidden

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def services():
    with serving() as services:
        yield services


@pytest.fixture
def naps(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def fetch(services, folder, dataset="midog++"):
    (file,) = [f for f in remote_files(dataset_named(dataset), services.url) if f.path.startswith("slides/")]
    return sum(fetch_file(file, str(folder), mirror=services.url))


def test_a_file_is_fetched_verified_and_recorded(services, tmp_path):
    services.add("001.tiff", CONTENT)
    assert fetch(services, tmp_path) == len(CONTENT)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT
    assert [*Destination(str(tmp_path)).finished()] == ["slides/001.tiff"]
    assert not [*tmp_path.rglob("*.part")]


def test_dropped_connections_are_taken_up_where_they_ended(services, tmp_path, naps):
    file = services.add("001.tiff", CONTENT, behaviours=["drop:1000000", "drop:10", "drop:600000"])
    fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in file.ranges[1:]]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[0] > 500_000
    assert len(naps) == 3


def test_half_a_file_of_an_earlier_run_is_not_fetched_again(services, tmp_path):
    file = services.add("001.tiff", CONTENT)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/001.tiff.part").write_bytes(CONTENT[:2_000_001])
    fetch(services, tmp_path)
    assert file.ranges == ["bytes=2000001-"]
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_still_gives_the_right_file(services, tmp_path, naps):
    services.add("001.tiff", CONTENT, behaviours=["drop:1000000", "ignore_range"])
    fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_half_of_another_file_is_thrown_away_and_the_file_fetched_afresh(services, tmp_path):
    file = services.add("001.tiff", CONTENT)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/001.tiff.part").write_bytes(b"\0" * 1_000_000)
    assert fetch(services, tmp_path) == len(CONTENT)
    assert file.ranges == ["bytes=1000000-", None]
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_a_half_longer_than_the_whole_is_fetched_afresh(services, tmp_path):
    services.add("001.tiff", CONTENT)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/001.tiff.part").write_bytes(CONTENT + b"more")
    fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_never_appears_under_its_name(services, tmp_path):
    services.add("001.tiff", CONTENT, announced=b"another file")
    with pytest.raises(BrokenDownload, match=r"001\.tiff came twice with another checksum"):
        fetch(services, tmp_path)
    assert not (tmp_path / "slides/001.tiff").exists()
    assert not Destination(str(tmp_path)).finished()


def test_content_that_was_garbled_once_is_fetched_again(services, tmp_path):
    services.add("001.tiff", CONTENT, behaviours=["garbage"])
    fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_a_connection_that_never_brings_anything_is_given_up_and_its_half_kept(services, tmp_path, naps):
    services.add("001.tiff", CONTENT, behaviours=["drop:1000000"] + ["drop:0"] * 10)
    with pytest.raises(BrokenDownload, match=r"stopped at [\d,]+ of 3,000,000 bytes.*Run the same command again"):
        fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff.part").stat().st_size > 500_000
    assert naps == sorted(naps)
    assert naps[-1] > naps[0]


def test_too_many_requests_wait_as_long_as_the_service_says(services, tmp_path, naps):
    services.add("001.tiff", CONTENT, behaviours=["status:429 Retry-After=11", "status:503", "status:429"])
    fetch(services, tmp_path)
    assert naps[0] == 11
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_a_file_that_is_gone_is_named_without_further_attempts(services, tmp_path):
    file = services.add("001.tiff", CONTENT, behaviours=["status:404"] * 3)
    with pytest.raises(BrokenDownload, match=r"HTTP 404 for 001\.tiff"):
        fetch(services, tmp_path)
    assert len(file.ranges) == 1


def test_a_forbidden_file_is_named_with_the_variable_for_the_token(services, tmp_path):
    services.add("TCGA-A1-A0SB-01Z-00-DX1.svs", CONTENT, behaviours=["status:403"])
    with pytest.raises(DatasetForbidden, match="GDC_TOKEN"):
        fetch(services, tmp_path, "tcga-brca")


def test_a_file_longer_than_announced_is_refused(services, tmp_path):
    file = services.add("001.tiff", CONTENT)
    (remote,) = remote_files(dataset_named("midog++"), services.url)
    file.content += b"more"
    with pytest.raises(BrokenDownload, match="longer than the 3,000,000 bytes"):
        [*fetch_file(remote, str(tmp_path), mirror=services.url)]


def test_an_empty_file_is_a_file(services, tmp_path):
    services.add("001.tiff", b"")
    assert fetch(services, tmp_path) == 0
    assert (tmp_path / "slides/001.tiff").read_bytes() == b""


def test_a_file_that_lies_there_already_is_taken_over_if_its_checksum_is_right(services, tmp_path):
    file = services.add("001.tiff", CONTENT)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/001.tiff").write_bytes(CONTENT)
    fetch(services, tmp_path)
    assert file.ranges == []
    assert [*Destination(str(tmp_path)).finished()] == ["slides/001.tiff"]


def test_a_file_that_lies_there_with_other_content_is_replaced(services, tmp_path):
    services.add("001.tiff", CONTENT)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/001.tiff").write_bytes(CONTENT[::-1])
    fetch(services, tmp_path)
    assert (tmp_path / "slides/001.tiff").read_bytes() == CONTENT


def test_gits_checksum_is_understood(services, tmp_path):
    services.add("TUPAC_stitched.sqlite", CONTENT)
    (file,) = remote_files(dataset_named("tupac16"), services.url)
    [*fetch_file(file, str(tmp_path), mirror=services.url)]
    assert (tmp_path / "labels/TUPAC_stitched.sqlite").read_bytes() == CONTENT


def test_the_token_goes_to_its_service_and_not_along_a_redirect(services, tmp_path, monkeypatch):
    monkeypatch.setenv("GDC_TOKEN", "secret-of-the-gdc")
    with serving() as elsewhere:
        target = elsewhere.add("slide.svs", CONTENT)
        file = services.add("slide.svs", CONTENT, behaviours=[f"redirect:{elsewhere.url}/content/slide.svs"])
        fetch(services, tmp_path, "tcga-brca")
    assert file.tokens == ["secret-of-the-gdc"]
    assert target.tokens == [None]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"secret-of-the-gdc" in p.read_bytes()]


def test_the_token_does_not_go_to_another_host_that_holds_the_file(services, tmp_path, monkeypatch):
    monkeypatch.setenv("GDC_TOKEN", "secret-of-the-gdc")
    with serving() as elsewhere:
        file = elsewhere.add("slide.svs", CONTENT)
        url = f"{elsewhere.url}/content/slide.svs"
        remote = RemoteFile("slides/slide.svs", "gdc", url, len(CONTENT), f"md5:{file.md5}")
        [*fetch_file(remote, str(tmp_path), mirror=services.url)]
    assert file.tokens == [None]


def test_two_runs_do_not_write_into_one_half(tmp_path):
    first = LocalHalf(tmp_path / "001.tiff")
    with pytest.raises(BrokenDownload, match="Another run"):
        LocalHalf(tmp_path / "001.tiff")
    first.close()
    LocalHalf(tmp_path / "001.tiff").close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=10))
def test_a_half_holds_all_bytes_over_any_number_of_interruptions(tmp_path_factory, writes):
    target = Path(tmp_path_factory.mktemp("half")) / "slide.tiff"
    half, expected = LocalHalf(target), b""
    for block, interrupted in writes:
        half.append(block)
        expected += block
        if interrupted:
            half.close()
            half = LocalHalf(target)
        assert half.size == len(expected)
        assert b"".join(half.blocks()) == expected
        assert not target.exists()
    half.finish()
    half.close()
    assert target.read_bytes() == expected
