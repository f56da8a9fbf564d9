from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from mitoray.errors import SlideNotFound
from mitoray.evaluation.matching import RADIUS_UM
from mitoray.labels.schema import LABELS
from mitoray.models import load_bundle
from mitoray.phantom import domain_named, draw_phantom, write_slide
from mitoray.slide import Rect, open_slide
from mitoray.training import detection
from mitoray.training.detection import DETECTIONS, MISTAKE_SCORE, detect_slide, false_positives
from mitoray.training.feed import MINED
from mitoray.training.slides import open_training_slide

DOMAIN = "phantom-lymphoma-a"
CORE_UM = 128.0


@pytest.fixture(scope="module")
def detector():
    return load_bundle("mitoray-s").detector()


@pytest.fixture(scope="module")
def slide_and_labels(tmp_path_factory):
    """A slide of 400 by 300 µm with many figures and look-alikes."""
    domain = domain_named(DOMAIN)
    tumour = replace(domain.tumour, figures_per_mm2=400.0, imposters_per_mm2=400.0)
    phantom = draw_phantom(replace(domain, tumour=tumour), seed=31, width_px=1600, height_px=1200)
    path = tmp_path_factory.mktemp("slide") / "crowded.svs"
    write_slide(phantom, path)
    return open_training_slide(phantom.slide_id, str(path), domain=DOMAIN), phantom.labels


@pytest.fixture(autouse=True)
def small_cores(monkeypatch):
    monkeypatch.setattr(detection, "CORE_UM", CORE_UM)


@pytest.fixture(scope="module")
def at_once(detector, slide_and_labels):
    """Places, level-0 px, and scores from one look at the whole slide."""
    slide, _ = slide_and_labels
    with open_slide(slide.uri) as pixels:
        image = pixels.read_region(slide.sampled, detector.mpp)
    (found,) = detector.detect(torch.tensor(image).permute(2, 0, 1)[None], 0.1)
    return slide.sampled.to_level0(found.xy_px.astype(float), image.shape[:2]), found.scores


def places(table):
    return np.column_stack([table["x_px"], table["y_px"]]), table["score"].to_numpy()


def away(slide, xy_px, part, margin_um):
    """Whether points lie further than the margin from the part's border."""
    return part.expanded(-round(margin_um / slide.mpp)).contains(xy_px)


def assert_same(slide, some, others, score):
    """Each of some points that score so high has its like among the others."""
    (xy_px, scores), (other_px, other_scores) = some, others
    rows = np.flatnonzero(scores >= score)
    assert len(rows) >= 5
    apart_um = np.linalg.norm(xy_px[rows, None] - other_px[None], axis=2) * slide.mpp
    nearest = apart_um.argmin(axis=1)
    assert apart_um.min(axis=1).max() <= 1.0
    np.testing.assert_allclose(other_scores[nearest], scores[rows], atol=0.05)


def test_a_slide_in_parts_is_a_slide_at_once_away_from_its_border(detector, slide_and_labels, at_once):
    slide, _ = slide_and_labels
    found = detect_slide(detector, slide)
    assert found.schema == DETECTIONS
    assert set(found["slide_id"].to_pylist()) == {slide.slide_id}
    parts = places(found)
    inner = [tuple(column[away(slide, one[0], slide.sampled, 30)] for column in one) for one in (parts, at_once)]
    assert slide.width_px * slide.mpp > 3 * CORE_UM
    assert_same(slide, inner[0], at_once, 0.2)
    assert_same(slide, inner[1], parts, 0.2)


def test_no_figure_is_found_twice_where_parts_meet(detector, slide_and_labels):
    slide, _ = slide_and_labels
    xy_px, scores = places(detect_slide(detector, slide))
    apart_um = np.linalg.norm(xy_px[:, None] - xy_px[None], axis=2) * slide.mpp
    assert apart_um[~np.eye(len(xy_px), dtype=bool)].min() > RADIUS_UM
    assert (np.diff(scores) <= 0).all()


def test_only_the_sampled_part_is_looked_at_but_with_its_surroundings(detector, slide_and_labels, at_once):
    slide, _ = slide_and_labels
    part = Rect(480, 320, 840, 700)
    xy_px, scores = places(detect_slide(detector, replace(slide, area=part)))
    assert part.contains(xy_px).all()
    inside = part.contains(at_once[0])
    firm = away(slide, at_once[0], part, 7) & inside  # one at the very border may be suppressed from beyond it
    assert_same(slide, (at_once[0][firm], at_once[1][firm]), (xy_px, scores), 0.2)
    assert len(xy_px) < len(detect_slide(detector, slide))


def test_the_floor_leaves_out_what_scores_less(detector, slide_and_labels):
    slide, _ = slide_and_labels
    low, high = (detect_slide(detector, slide, floor=floor) for floor in (0.05, 0.4))
    assert 0 < len(high) < len(low)
    assert high["score"].to_numpy().min() >= 0.4
    assert high.to_pylist() == low.to_pylist()[: len(high)]


def test_blank_glass_gives_an_empty_table(detector, tmp_path, slide_and_labels):
    phantom = draw_phantom(domain_named(DOMAIN), seed=1, width_px=300, height_px=300)
    write_slide(replace(phantom, image=np.full_like(phantom.image, 244)), tmp_path / "glass.svs")
    slide = open_training_slide("glass", str(tmp_path / "glass.svs"))
    found = detect_slide(detector, slide, floor=0.3)
    assert len(found) == 0
    assert found.schema == DETECTIONS
    _, labels = slide_and_labels
    assert false_positives(detector, slide, labels).schema == LABELS


def test_false_positives_are_far_from_every_label(detector, slide_and_labels):
    slide, labels = slide_and_labels
    found = places(detect_slide(detector, slide, floor=MISTAKE_SCORE))[0]
    labelled = np.column_stack([labels["x_px"], labels["y_px"]])
    far = np.linalg.norm(found[:, None] - labelled[None], axis=2).min(axis=1) * slide.mpp > 2 * RADIUS_UM
    assert not far.all()
    mistakes = false_positives(detector, slide, labels)
    assert mistakes.schema == LABELS
    np.testing.assert_array_equal(np.column_stack([mistakes["x_px"], mistakes["y_px"]]), found[far])


def test_a_detection_without_a_label_becomes_an_imposter_of_its_slide(detector, slide_and_labels):
    slide, labels = slide_and_labels
    found = detect_slide(detector, slide, floor=MISTAKE_SCORE)
    elsewhere = labels.set_column(1, LABELS.field("slide_id"), pa.array(["another"] * len(labels)))
    for nothing_here in (labels.slice(0, 0), elsewhere):
        mistakes = false_positives(detector, slide, nothing_here)
        assert len(mistakes) == len(found) >= 8
        columns = {name: set(mistakes[name].to_pylist()) for name in ("dataset", "slide_id", "kind", "domain")}
        expected = {"dataset": {MINED}, "slide_id": {slide.slide_id}, "kind": {"imposter"}, "domain": {DOMAIN}}
        assert columns == expected
    assert len(false_positives(detector, slide, elsewhere, score=0.6)) < len(found)


def test_a_missed_label_of_any_kind_protects_its_place(detector, slide_and_labels):
    slide, labels = slide_and_labels
    (first, *_) = detect_slide(detector, slide, floor=MISTAKE_SCORE).to_pylist()
    around = round(1.9 * RADIUS_UM / slide.mpp)
    one = {"slide_id": slide.slide_id, "x_px": first["x_px"] + around, "y_px": first["y_px"], "kind": "uncertain"}
    protected = false_positives(detector, slide, pa.Table.from_pylist([one], schema=LABELS))
    everything = false_positives(detector, slide, labels.slice(0, 0))
    assert len(protected) < len(everything)
    assert (first["x_px"], first["y_px"]) not in zip(
        protected["x_px"].to_pylist(), protected["y_px"].to_pylist(), strict=True
    )


def test_a_slide_that_is_gone_is_named(detector, slide_and_labels, tmp_path):
    slide, _ = slide_and_labels
    with pytest.raises(SlideNotFound, match="gone"):
        detect_slide(detector, replace(slide, uri=str(tmp_path / "gone.svs")))
