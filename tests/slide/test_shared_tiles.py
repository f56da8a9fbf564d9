import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from slide_writer import overwrite, stained, tile_span, write_svs

from mitoray.slide import Rect, open_slide, window
from mitoray.slide.cache import TileCache


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "s.svs"
    write_svs(path, stained(1920, 1920), levels=1)
    return str(path)


@pytest.fixture
def decoded(monkeypatch):
    """Counts what is decoded."""
    calls = []
    decode = window.decode_tile

    def counted(data, *rest):
        calls.append(data)
        return decode(data, *rest)

    monkeypatch.setattr(window, "decode_tile", counted)
    return calls


def test_overlapping_regions_decode_each_tile_once(slide_path, decoded):
    with open_slide(slide_path) as slide:
        for x in range(0, 1500, 100):
            slide.read_region(Rect(x, 0, 400, 400), 0.25)
    assert len(decoded) == 8 * 2


def test_threads_that_read_the_same_place_decode_each_tile_once(slide_path, decoded):
    rects = [Rect(x, y, 500, 500) for y in (0, 300, 700) for x in range(0, 1400, 100)]
    with open_slide(slide_path) as slide, ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda rect: slide.read_region(rect, 0.25), rects))
    assert len(decoded) == len(set(decoded)) == 8 * 5
    with open_slide(slide_path) as slide:
        for rect, pixels in zip(rects, together, strict=True):
            assert (slide.read_region(rect, 0.25) == pixels).all()


def test_a_cache_of_no_bytes_still_gives_the_right_pixels(slide_path, decoded):
    rect = Rect(100, 100, 700, 700)
    with open_slide(slide_path, tile_cache_bytes=0) as bare, open_slide(slide_path) as cached:
        assert (bare.read_region(rect, 0.25) == cached.read_region(rect, 0.25)).all()
        before = len(decoded)
        bare.read_region(rect, 0.25)
        assert len(decoded) > before


def test_the_cache_stays_within_its_bytes_and_drops_the_oldest():
    cache = TileCache(10 * 300)
    tile = np.zeros((10, 10, 3), np.uint8)
    for index in range(25):
        cache.claim([(0, index)])
        cache.deliver((0, index), tile)
    ready, mine, _ = cache.claim((0, index) for index in range(25))
    assert sorted(index for _, index in ready) == list(range(15, 25))
    assert len(mine) == 15


def test_a_thread_that_waits_for_a_corrupt_tile_learns_of_it():
    cache = TileCache(1000)
    cache.claim([(0, 1)])
    _, mine, awaited = cache.claim([(0, 1)])
    assert not mine
    cache.give_up([(0, 1)], ValueError("no such luck"))
    with pytest.raises(ValueError, match="no such luck"):
        awaited[0, 1].result()
    assert cache.claim([(0, 1)])[1] == [(0, 1)]


def test_a_corrupt_tile_does_not_block_later_reads(tmp_path):
    path = str(tmp_path / "s.svs")
    write_svs(path, stained(720, 720))
    offset, size = tile_span(path, tile=4)
    overwrite(path, offset, bytes(size))
    results = []

    def read(slide):
        try:
            results.append(slide.read_region(Rect(0, 0, 720, 720), 0.25))
        except Exception as error:
            results.append(type(error).__name__)

    with open_slide(path) as slide:
        threads = [threading.Thread(target=read, args=(slide,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert results == ["CorruptTile"] * 4
        assert slide.read_region(Rect(0, 0, 720, 240), 0.25).std() > 5


@pytest.mark.parametrize("reduced", [False, True])
def test_tiles_inside_a_large_region_are_not_kept_and_those_at_its_edges_are(tmp_path, reduced):
    path = tmp_path / "s.svs"
    write_svs(path, stained(3000, 3000), levels=1)
    mpp = 0.5 if reduced else 0.25
    with open_slide(str(path), tile_cache_bytes=16 << 20) as slide, open_slide(str(path)) as fresh:
        slide.read_region(Rect(0, 0, 2400, 2400), mpp)
        held = {key[2] for key in slide._cache._tiles}
        columns = -(-3000 // 240)
        inside = 5 * columns + 5  # begins 1200 px from each edge
        assert inside not in held
        assert {0, 9, 9 * columns + 9, 8 * columns} <= held
        for rect in (Rect(1000, 1000, 400, 400), Rect(2200, 0, 800, 2400), Rect(0, 0, 2400, 2400)):
            assert (slide.read_region(rect, mpp) == fresh.read_region(rect, mpp)).all()
