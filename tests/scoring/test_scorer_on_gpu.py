"""Scoring on a GPU beside scoring on a CPU; for machines that have one."""

import numpy as np
import pytest
import torch

from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort, draw_phantom
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.score import RegionReader, RegionScorer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
NEAR = 0.05
"""Of scores in 8-bit integers to those in float16."""


@pytest.fixture(scope="module")
def image():
    drawn = draw_phantom("phantom-breast-a", seed=3, width_px=1056, height_px=1056).image
    return torch.from_numpy(drawn).permute(2, 0, 1)[None]


def test_the_heat_map_is_that_of_the_cpu(image):
    bundle = load_bundle("mitoray-s")
    on_cpu, on_gpu = (bundle.detector(device).heatmap(image).cpu() for device in ("cpu", "cuda"))
    assert float((on_cpu - on_gpu).abs().max()) < NEAR


def test_out_of_memory_a_pass_shrinks_and_the_answer_stays(image):
    detector = load_bundle("mitoray-s").detector("cuda")
    large = image.repeat(1, 1, 8, 8).to("cuda")
    whole = detector.heatmap(large)
    before = detector._pass.pixels
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 1.3e9) / total)
        again = detector.heatmap(large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert detector._pass.pixels < before
    torch.testing.assert_close(again, whole, rtol=0, atol=2e-3)


def test_regions_on_streams_come_in_order_and_score_as_on_a_cpu(tmp_path):
    manifest, _ = draw_cohort(
        tmp_path, n_slides=1, seed=31, width_px=1313, height_px=1000, domains=["phantom-breast-a"]
    )
    slide = ManifestRow(**manifest.to_pylist()[0])
    plan = plan_slide(slide, region_um=128, halo_um=32.0)
    regions = regions_of(plan, slide.uri, region_um=128, halo_um=32.0).to_pylist()
    bundle = load_bundle("mitoray-s")
    rows = []
    for device in ("cpu", "cuda"):
        scorer = RegionScorer(RegionReader([slide], bundle.mpp), bundle.detector(device), 0.2, read_threads=4)
        rows.append(list(scorer.score(regions)))
    assert [row["region_id"] for row in rows[0]] == [row["region_id"] for row in rows[1]]
    sure = [np.array([c["score"] for row in of for c in row["candidates"] if c["score"] > 0.3]) for of in rows]
    assert len(sure[0]) > 0
    assert abs(len(sure[0]) - len(sure[1])) <= 1
