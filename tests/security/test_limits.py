"""Files that ask for more than any machine has are refused by name before anything is allocated for them."""

import pytest
from hostile_files import BUNDLES, LABELS, MASKS
from hostile_slides import SLIDES
from limited_process import LimitedProcess

from mitoray.labels import read_labels
from mitoray.models import load_bundle
from mitoray.phantom import draw_phantom, write_slide
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide
from mitoray.slide import Rect, find_tissue, open_slide

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


def _mask(paths):
    slide_path, mask_path = paths
    with open_slide(slide_path) as slide:
        find_tissue(slide, mask_path)
    return "fine", ""


def _labels(path):
    read_labels(path)
    return "fine", ""


def _bundle(folder):
    load_bundle(folder)
    return "fine", ""


@pytest.fixture(scope="module")
def small_slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    write_slide(draw_phantom("phantom-breast-a", seed=5, width_px=300, height_px=300), path)
    return str(path)


@pytest.mark.parametrize("name", SLIDES)
def test_a_slide_that_asks_for_too_much_is_refused_by_name(name, process, tmp_path):
    make, expected = SLIDES[name]
    (tmp_path / "slide.svs").write_bytes(make())
    outcome, told = process.outcome(("slide", str(tmp_path / "slide.svs")))
    assert outcome == expected, told
    assert process.most_mb < MOST_MB


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_asks_for_too_much_is_a_bad_mask(name, process, small_slide, tmp_path):
    (tmp_path / "mask.png").write_bytes(MASKS[name])
    outcome, told = process.outcome(("mask", (small_slide, str(tmp_path / "mask.png"))))
    assert outcome == "BadTissueMask", told
    assert process.most_mb < MOST_MB


@pytest.mark.parametrize("name", LABELS)
def test_a_label_file_that_asks_for_too_much_is_bad_labels(name, process, tmp_path):
    path = tmp_path / ("labels.sqlite" if callable(LABELS[name]) else "labels.json")
    path.write_bytes(LABELS[name](tmp_path / "made") if callable(LABELS[name]) else LABELS[name])
    outcome, told = process.outcome(("labels", str(path)))
    assert outcome == "BadLabels", told
    assert process.most_mb < MOST_MB


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_that_asks_for_too_much_is_a_bad_model(name, process, tmp_path):
    for file, content in zip(("weights.safetensors", "bundle.json"), BUNDLES[name], strict=True):
        (tmp_path / file).write_bytes(content)
    outcome, told = process.outcome(("bundle", str(tmp_path)))
    assert outcome == "BadModel", told
    assert process.most_mb < MOST_MB
