import random

import fsspec
import pytest
from dataset_services import serving

from mitoray.datasets import Destination, dataset_named, fetch_file, remote_files
from mitoray.datasets.halves import ObjectHalf

PART = 5 << 20
CONTENT = random.Random(2).randbytes(2 * PART + 1_000_000)


@pytest.fixture
def filesystem(s3):
    return fsspec.filesystem("s3", **s3)


def keys(filesystem, prefix):
    filesystem.invalidate_cache()
    return sorted(filesystem.find(prefix))


def test_an_object_appears_whole_after_an_interruption_and_leaves_no_pieces(filesystem):
    def half():
        return ObjectHalf(filesystem, "slides/a/slide.svs", "slides/a/_parts/slide.svs", PART)

    first = half()
    first.append(CONTENT[: PART + 1000])
    first.close()
    assert keys(filesystem, "slides/a") == ["slides/a/_parts/slide.svs/00000"]

    second = half()
    assert second.size == PART
    assert b"".join(second.blocks()) == CONTENT[:PART]
    second.append(CONTENT[PART : 2 * PART + 10])
    second.append(CONTENT[2 * PART + 10 :])
    assert not filesystem.exists("slides/a/slide.svs")
    second.finish()
    second.close()
    assert keys(filesystem, "slides/a") == ["slides/a/slide.svs"]
    assert filesystem.cat_file("slides/a/slide.svs") == CONTENT


def test_pieces_of_another_size_are_not_continued(filesystem):
    filesystem.pipe_file("slides/b/_parts/slide.svs/00000", b"short")
    assert ObjectHalf(filesystem, "slides/b/slide.svs", "slides/b/_parts/slide.svs", PART).size == 0


def test_cleared_pieces_are_gone(filesystem):
    half = ObjectHalf(filesystem, "slides/c/slide.svs", "slides/c/_parts/slide.svs", PART)
    half.append(CONTENT)
    half.clear()
    assert keys(filesystem, "slides/c") == []
    half.append(b"small")
    half.finish()
    assert filesystem.cat_file("slides/c/slide.svs") == b"small"


def test_a_file_is_resumed_into_object_storage_over_a_second_run(s3, filesystem, monkeypatch):
    monkeypatch.setattr("mitoray.datasets.halves.ObjectHalf.__init__.__defaults__", (PART,))
    monkeypatch.setattr("mitoray.datasets.download.ATTEMPTS", 1)
    with serving() as services:
        file = services.add("001.tiff", CONTENT, behaviours=[f"drop:{PART + 2_000_000}", "drop:0"])
        (remote,) = remote_files(dataset_named("midog++"), services.url)
        with pytest.raises(Exception, match="Run the same command again"):
            [*fetch_file(remote, "s3://slides/d", s3, services.url)]
        assert keys(filesystem, "slides/d") == ["slides/d/_fetch/parts/slides/001.tiff/00000"]
        file.behaviours.clear()
        [*fetch_file(remote, "s3://slides/d", s3, services.url)]
    assert file.ranges[-1] == f"bytes={PART}-"
    assert filesystem.cat_file("slides/d/slides/001.tiff") == CONTENT
    assert [*Destination("s3://slides/d", s3).finished()] == ["slides/001.tiff"]
