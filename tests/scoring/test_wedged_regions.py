"""A region whose reading never ends costs itself; told to stop, a scorer finishes what it has in hand."""

import threading
from itertools import islice

import pytest
from test_scorer import HALO_UM

from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.score import RegionReader, RegionScorer


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    manifest, _ = draw_cohort(folder, n_slides=1, seed=37, width_px=1600, height_px=800, domains=["phantom-lung-a"])
    return ManifestRow(**manifest.to_pylist()[0])


@pytest.fixture(scope="module")
def regions(slide):
    plan = plan_slide(slide, region_um=128, halo_um=HALO_UM)
    return regions_of(plan, slide.uri, region_um=128, halo_um=HALO_UM).to_pylist()


class WedgedReader(RegionReader):
    """Reads all regions but one, over which it waits for ever."""

    wedged = ""

    def fetch(self, region):
        if region["region_id"] == self.wedged:
            threading.Event().wait()
        return super().fetch(region)


@pytest.mark.parametrize("read_threads", [1, 3])
def test_a_wedged_region_times_out_by_itself_and_the_others_are_scored(slide, regions, read_threads):
    bundle = load_bundle("mitoray-s")
    sound = list(RegionScorer(RegionReader([slide], bundle.mpp), bundle.detector("cpu", 1), 0.1).score(regions))
    assert len(regions) >= 6
    reader = WedgedReader([slide], bundle.mpp)
    reader.wedged = regions[2]["region_id"]
    scorer = RegionScorer(reader, bundle.detector("cpu", 1), 0.1, read_threads, region_timeout_s=3)
    rows = list(scorer.score(regions))
    assert rows[:2] + rows[3:] == sound[:2] + sound[3:]
    assert rows[2]["status"] == "failed"
    assert rows[2]["error"].startswith("RegionTimedOut: ")
    assert regions[0]["slide_id"] in rows[2]["error"]
    assert "region_timeout_s" in rows[2]["error"]


def test_what_is_in_hand_is_told_before_it_is_waited_for(slide, regions):
    bundle = load_bundle("mitoray-s")
    scorer = RegionScorer(RegionReader([slide], bundle.mpp), bundle.detector("cpu", 1), 0.1, read_threads=2)
    taken = []
    for number, row in enumerate(scorer.score(regions, taking=taken.append)):
        assert taken == [region["region_id"] for region in regions[: number + 1]]
        assert row["region_id"] == taken[-1]


def test_told_to_stop_it_gives_the_region_in_hand_and_no_more(slide, regions):
    bundle = load_bundle("mitoray-s")
    scorer = RegionScorer(RegionReader([slide], bundle.mpp), bundle.detector("cpu", 1), 0.1, read_threads=2)
    stopped = threading.Event()
    given = scorer.score(regions, stopped=stopped.is_set)
    first = list(islice(given, 3))
    stopped.set()
    assert [row["region_id"] for row in first] == [region["region_id"] for region in regions[:3]]
    assert list(given) == []


def test_alone_nothing_is_read_ahead(slide, regions):
    bundle = load_bundle("mitoray-s")
    fetched = []

    class Telling(RegionReader):
        def fetch(self, region):
            fetched.append(region["region_id"])
            return super().fetch(region)

    scorer = RegionScorer(Telling([slide], bundle.mpp), bundle.detector("cpu", 1), 0.1, read_threads=2)
    for row in scorer.score(regions, alone=True):
        assert fetched[-1] == row["region_id"]
