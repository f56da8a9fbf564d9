import os

import boto3
import pytest
from moto.server import ThreadedMotoServer
from range_server import serving
from slide_writer import overwrite, stained, tile_span, write_svs

from mitoray.errors import CorruptTile, SlideChanged, SlideNotFound
from mitoray.slide import Rect, open_slide, retry, storage

HERE, THERE = Rect(0, 0, 400, 400), Rect(500, 500, 400, 400)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def path(tmp_path):
    write_svs(tmp_path / "slide.svs", stained(960, 960))
    return tmp_path / "slide.svs"


@pytest.fixture
def server(path):
    with serving(path.parent) as server:
        yield server


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="cohort")
    yield client, {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": endpoint}}
    server.stop()


def rescan(path):
    """Another scan of the same glass: other pixels, the same name and the same number of bytes."""
    size = path.stat().st_size
    write_svs(path, stained(960, 960, seed=1), compressionargs={"level": 70})
    assert path.stat().st_size < size
    with path.open("ab") as file:
        file.truncate(size)


def test_a_local_file_that_changes_is_noticed_at_the_next_look(path, monkeypatch):
    with open_slide(str(path)) as slide:
        slide.read_region(HERE, 0.25)
        rescan(path)
        monkeypatch.setattr(storage, "RECHECK_S", 0.0)
        with pytest.raises(SlideChanged, match=r"slide\.svs changed while it was read .*Score it again"):
            slide.read_region(THERE, 0.25)


def test_a_local_file_is_not_looked_up_at_every_read(path):
    with open_slide(str(path)) as slide:
        os.utime(path, (1, 1))
        assert slide.read_region(THERE, 0.25).std() > 5


def test_a_tile_of_a_changed_file_is_not_called_corrupt(path):
    with open_slide(str(path)) as slide:
        offset, size = tile_span(path, tile=0)
        overwrite(path, offset, bytes(size))
        os.utime(path, (1, 1))
        with pytest.raises(SlideChanged):
            slide.read_region(HERE, 0.25)
        with pytest.raises(SlideChanged):
            slide.read_region(HERE, 0.25)


def test_a_tile_of_an_unchanged_file_is_called_corrupt(path):
    offset, size = tile_span(path, tile=0)
    overwrite(path, offset, bytes(size))
    with open_slide(str(path)) as slide, pytest.raises(CorruptTile):
        slide.read_region(HERE, 0.25)


def test_a_file_that_shrinks_is_changed_rather_than_truncated(path):
    size = path.stat().st_size
    with open_slide(str(path)) as slide:
        path.write_bytes(b"II*\0")
        with pytest.raises(SlideChanged, match=f"it was {size} bytes, .*; now 4 bytes"):
            slide.read_region(HERE, 0.25)


def test_a_file_that_still_grows_while_it_is_opened_is_changed_rather_than_truncated(path, monkeypatch):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    read = storage.SlideFile.read_ranges

    def read_while_it_grows(file, ranges):
        found = read(file, ranges)
        path.write_bytes(whole)
        return found

    monkeypatch.setattr(storage.SlideFile, "read_ranges", read_while_it_grows)
    with pytest.raises(SlideChanged):
        open_slide(str(path))


def test_a_file_that_changes_over_http_is_noticed_at_once_without_another_request(path, server):
    with open_slide(f"{server.url}/slide.svs?sig=s3cr3t") as slide:
        slide.read_region(HERE, 0.25)
        heads = [command for command, _ in server.requests].count("HEAD")
        rescan(path)
        with pytest.raises(SlideChanged, match="ETag") as caught:
            slide.read_region(THERE, 0.25)
        assert "s3cr3t" not in str(caught.value)
        assert [command for command, _ in server.requests].count("HEAD") == heads == 1


def test_a_server_without_etags_is_asked_for_the_file_now_and_then(path, server, monkeypatch):
    server.gives_etags = False
    with open_slide(f"{server.url}/slide.svs") as slide:
        slide.read_region(HERE, 0.25)
        assert [command for command, _ in server.requests].count("HEAD") == 1
        monkeypatch.setattr(storage, "RECHECK_S", 0.0)
        slide.read_region(THERE, 0.25)
        assert [command for command, _ in server.requests].count("HEAD") == 2
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(SlideChanged):
            slide.read_region(Rect(500, 0, 400, 400), 0.25)


def test_an_etag_that_a_proxy_weakens_is_the_same():
    strong, weak = (storage.Version.of({"size": 9, "ETag": etag}) for etag in ('"abc"', 'W/"abc"'))
    assert not strong.differs(weak)
    assert strong.differs(storage.Version.of({"size": 9, "ETag": '"abd"'}))
    assert strong.differs(storage.Version.of({"size": 8, "ETag": '"abc"'}))


def test_an_object_that_is_replaced_on_s3_is_noticed_and_then_opens_as_new(path, s3):
    client, options = s3
    client.upload_file(str(path), "cohort", "slide.svs")
    with open_slide("s3://cohort/slide.svs", options) as slide:
        slide.read_region(HERE, 0.25)
        rescan(path)
        client.upload_file(str(path), "cohort", "slide.svs")
        with pytest.raises(SlideChanged, match=r"s3://cohort/slide\.svs changed.*ETag"):
            slide.read_region(THERE, 0.25)
    with open_slide("s3://cohort/slide.svs", options) as slide, open_slide(str(path)) as local:
        assert (slide.read_region(THERE, 0.25) == local.read_region(THERE, 0.25)).all()


def test_the_second_look_at_s3_is_a_fresh_one(path, s3):
    client, options = s3
    client.upload_file(str(path), "cohort", "slide.svs")
    file = storage.SlideFile("s3://cohort/slide.svs", options)
    # A listing is what s3fs answers from as long as it remembers it.
    assert file._fs.ls("cohort")
    file.check_unchanged()
    rescan(path)
    client.upload_file(str(path), "cohort", "slide.svs")
    assert file._fs.ls("cohort")
    with pytest.raises(SlideChanged):
        file.check_unchanged()


def test_an_object_that_is_gone_is_not_found(path, s3):
    client, options = s3
    client.upload_file(str(path), "cohort", "gone.svs")
    with open_slide("s3://cohort/gone.svs", options) as slide:
        client.delete_object(Bucket="cohort", Key="gone.svs")
        with pytest.raises(SlideNotFound, match=r"gone\.svs"):
            slide.read_region(THERE, 0.25)
