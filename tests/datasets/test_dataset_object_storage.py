import random

import boto3
import fsspec
import pytest
from dataset_services import serving
from moto.server import ThreadedMotoServer

from mitoray.datasets import Destination, dataset_named, fetch_file, remote_files
from mitoray.datasets.halves import ObjectHalf

PART = 5 << 20
CONTENT = random.Random(2).randbytes(2 * PART + 1_000_000)


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def options(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="data")
    return {"endpoint_url": endpoint}


@pytest.fixture
def filesystem(options):
    return fsspec.filesystem("s3", **options)


def keys(filesystem, prefix):
    filesystem.invalidate_cache()
    return sorted(filesystem.find(prefix))


def test_an_object_appears_whole_after_an_interruption_and_leaves_no_pieces(filesystem):
    def half():
        return ObjectHalf(filesystem, "data/a/slide.svs", "data/a/_parts/slide.svs", PART)

    first = half()
    first.append(CONTENT[: PART + 1000])
    first.close()
    assert keys(filesystem, "data/a") == ["data/a/_parts/slide.svs/00000"]

    second = half()
    assert second.size == PART
    assert b"".join(second.blocks()) == CONTENT[:PART]
    second.append(CONTENT[PART : 2 * PART + 10])
    second.append(CONTENT[2 * PART + 10 :])
    assert not filesystem.exists("data/a/slide.svs")
    second.finish()
    second.close()
    assert keys(filesystem, "data/a") == ["data/a/slide.svs"]
    assert filesystem.cat_file("data/a/slide.svs") == CONTENT


def test_pieces_of_another_size_are_not_continued(filesystem):
    filesystem.pipe_file("data/b/_parts/slide.svs/00000", b"short")
    assert ObjectHalf(filesystem, "data/b/slide.svs", "data/b/_parts/slide.svs", PART).size == 0


def test_cleared_pieces_are_gone(filesystem):
    half = ObjectHalf(filesystem, "data/c/slide.svs", "data/c/_parts/slide.svs", PART)
    half.append(CONTENT)
    half.clear()
    assert keys(filesystem, "data/c") == []
    half.append(b"small")
    half.finish()
    assert filesystem.cat_file("data/c/slide.svs") == b"small"


def test_a_file_is_resumed_into_object_storage_over_a_second_run(options, filesystem, monkeypatch):
    monkeypatch.setattr("mitoray.datasets.halves.ObjectHalf.__init__.__defaults__", (PART,))
    monkeypatch.setattr("mitoray.datasets.download.ATTEMPTS", 1)
    with serving() as services:
        file = services.add("001.tiff", CONTENT, behaviours=[f"drop:{PART + 2_000_000}", "drop:0"])
        (remote,) = remote_files(dataset_named("midog++"), services.url)
        with pytest.raises(Exception, match="Run the same command again"):
            [*fetch_file(remote, "s3://data/d", options, services.url)]
        assert keys(filesystem, "data/d") == ["data/d/_fetch/parts/slides/001.tiff/00000"]
        file.behaviours.clear()
        [*fetch_file(remote, "s3://data/d", options, services.url)]
    assert file.ranges[-1] == f"bytes={PART}-"
    assert filesystem.cat_file("data/d/slides/001.tiff") == CONTENT
    assert [*Destination("s3://data/d", options).finished()] == ["slides/001.tiff"]
