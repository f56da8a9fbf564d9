"""Files that ask for more than any machine has are refused by name before anything is allocated for them."""

import pytest
from hostile_slides import SLIDES
from limited_process import LimitedProcess

from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide
from mitoray.slide import Rect, open_slide

MOST_MB = 1200


@pytest.fixture(scope="module")
def process():
    process = LimitedProcess(outcome_of, 2 << 30, 30)
    yield process
    process.end()


def outcome_of(task):
    kind, path = task
    return globals()[f"_{kind}"](path)


def _slide(path):
    with open_slide(path) as slide:
        side = min(slide.width_px, slide.height_px, 512)
        slide.decode_region(slide.fetch_region(Rect(0, 0, side, side), slide.mpp))
        slide.read_region(Rect(0, 0, side, side), 4 * slide.mpp)
    plan = plan_slide(ManifestRow("slide", path), region_um=2048, halo_um=32)
    return ("fine", "") if plan["status"] == "planned" else tuple(plan["error"].split(": ", 1))


@pytest.mark.parametrize("name", SLIDES)
def test_a_slide_that_asks_for_too_much_is_refused_by_name(name, process, tmp_path):
    make, expected = SLIDES[name]
    (tmp_path / "slide.svs").write_bytes(make())
    outcome, told = process.outcome(("slide", str(tmp_path / "slide.svs")))
    assert outcome == expected, told
    assert process.most_mb < MOST_MB
