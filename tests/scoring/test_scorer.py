"""What an actor does with its regions, without a cluster."""

import subprocess
import sys
from dataclasses import replace

import pytest

from mitoray.models import load_bundle
from mitoray.models.placement import KEEP_MEMORY
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import outer_rect, plan_slide, regions_of
from mitoray.scoring.score import SIDE_PX, RegionReader, RegionScorer
from mitoray.slide import open_slide

HALO_UM = 32.0


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide whose right edge lies at no multiple of anything."""
    folder = tmp_path_factory.mktemp("slide")
    manifest, _ = draw_cohort(
        folder, n_slides=1, seed=31, width_px=1313, height_px=1000, domains=["phantom-lymphoma-a"]
    )
    return ManifestRow(**manifest.to_pylist()[0])


@pytest.fixture(scope="module")
def regions(slide):
    plan = plan_slide(slide, region_um=128, halo_um=HALO_UM)
    return regions_of(plan, slide.uri, region_um=128, halo_um=HALO_UM).to_pylist()


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.37])
def test_images_are_of_widths_that_suit_the_network_and_hold_the_halo(slide, regions, mpp):
    reader = RegionReader([slide], mpp)
    assert len(regions) > 4
    for region in regions:
        image = reader.decode(region, reader.fetch(region))
        rect, asked = reader.outer(region), outer_rect(region)
        assert image.shape[1] % SIDE_PX == 0
        assert (rect.x_px, rect.y_px, rect.height_px) == (asked.x_px, asked.y_px, asked.height_px)
        assert 0 <= rect.width_px - asked.width_px <= SIDE_PX * mpp / 0.25
        with open_slide(slide.uri) as pixels:
            assert (pixels.read_region(rect, mpp) == image).all()


def test_decoding_ahead_or_in_turn_finds_the_same(slide, regions):
    bundle = load_bundle("mitoray-s")
    rows = []
    for read_threads in (2, 1):
        detector = bundle.detector("cpu", 1)
        scorer = RegionScorer(RegionReader([slide], bundle.mpp), detector, 0.1, read_threads)
        rows.append(list(scorer.score(regions)))
        seconds = scorer.take_seconds()
        assert set(seconds) == {"fetch", "decode", "detect", "wait"}
        assert all(value > 0 for value in seconds.values())
    assert rows[0] == rows[1]
    assert sum(len(row["candidates"]) for row in rows[0]) > 1


@pytest.mark.parametrize("read_threads", [2, 1])
def test_damaged_tiles_are_fetched_again_and_an_unknown_slide_fails_alone(slide, regions, read_threads):
    bundle = load_bundle("mitoray-s")
    reader = RegionReader([slide], bundle.mpp)
    packed = [{**region, "tiles": reader.packed(region)} for region in regions[:2]]
    whole = reader.fetch(regions[0])
    first = whole.tiles[0][: len(whole.tiles[0]) // 2]
    packed[0]["tiles"] = replace(whole, tiles=(first, *whole.tiles[1:])).to_bytes()
    fresh = RegionReader([slide], bundle.mpp, tile_cache_bytes=0)
    scorer = RegionScorer(fresh, bundle.detector("cpu", 1), 0.1, read_threads)
    broken, scored = scorer.score(packed)
    # The file itself is sound: what came damaged is fetched again, and nothing is lost.
    assert (broken["status"], scored["status"]) == ("scored", "scored")
    gone = [{**regions[0], "slide_id": "unknown"}, regions[1]]
    broken, scored = scorer.score(gone)
    assert broken["status"] == "failed"
    assert "KeyError" in broken["error"]
    assert scored["status"] == "scored"


def test_large_blocks_freed_by_any_thread_are_kept():
    """Of an actor's memory: a thread's own arena would give each block of 100 MB back to the kernel."""
    code = (
        "import resource, threading\n"
        "def work():\n"
        "    for _ in range(20):\n"
        "        block = bytearray(100 << 20)\n"
        "        block[::4096] = bytes(len(block) // 4096)\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start(); thread.join()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
    )

    def faults(environment):
        return int(
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
        )

    by_the_thread = {key: value for key, value in KEEP_MEMORY.items() if key != "MALLOC_ARENA_MAX"}
    assert faults(KEEP_MEMORY) < faults(by_the_thread) / 3


def test_a_scoring_process_does_not_wait_for_what_it_does_not_use():
    heavy = ("torchvision", "torch._dynamo", "scipy.signal", "sklearn", "matplotlib", "mlflow")
    code = f"import sys, mitoray.scoring.pipeline; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
