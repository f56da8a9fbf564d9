"""The counts published for the CMC-trained models on the 11 AMIDA test images of TUPAC16 (Aubreville et al. 2020)."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitoray.evaluation.matching import match, match_linked, nms

TUPAC = Path(__file__).parents[2] / "../shared/data/tupac"
RADIUS_PX = 25.0
THRESHOLD = 0.63

pytestmark = pytest.mark.skipif(not TUPAC.is_dir(), reason="needs the public TUPAC16 labels in ../shared/data/tupac")


def published_detections(stage):
    """Centres in px and scores of the published boxes, by slide."""
    table = pq.read_table(TUPAC / f"detections_amida_test_{stage}_stage.parquet")
    slide = np.array(table["slide"].to_pylist())
    x1, y1, x2, y2, score = (table[c].to_numpy().astype(float) for c in ("x1", "y1", "x2", "y2", "score"))
    points = np.stack([x1 + (x2 - x1) / 2, y1 + (y2 - y1) / 2], axis=1)
    return {name: (points[slide == name], score[slide == name]) for name in np.unique(slide)}


def mitotic_figures(labels):
    """Label centres in px by slide, from the SlideRunner database."""
    with closing(sqlite3.connect(f"file:{TUPAC / labels}_labels.sqlite?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT s.filename, c.coordinateX, c.coordinateY FROM Annotations a JOIN Slides s ON s.uid = a.slide "
            "JOIN Annotations_coordinates c ON c.annoId = a.uid WHERE a.agreedClass = 1 AND a.deleted = 0"
        ).fetchall()
    return {name: np.array([r[1:] for r in rows if r[0] == name], dtype=float) for name in {r[0] for r in rows}}


def counts(stage, labels, rule):
    truth = mitotic_figures(labels)
    total = np.zeros(3, dtype=int)
    for name, (points, scores) in published_detections(stage).items():
        kept = nms(points, scores, RADIUS_PX)
        matching = rule(points[kept], scores[kept], truth.get(name, np.empty((0, 2))), RADIUS_PX)
        total += matching.counts(THRESHOLD)
    return tuple(total.tolist())


@pytest.mark.parametrize(
    ("stage", "labels", "published"),
    [
        ("dual", "alternative", (435, 196, 173)),
        ("single", "alternative", (263, 75, 345)),
        ("dual", "original", (362, 270, 171)),
        ("single", "original", (227, 110, 306)),
    ],
)
def test_linked_matching_gives_the_published_tp_fp_fn(stage, labels, published):
    assert counts(stage, labels, match_linked) == published


@pytest.mark.parametrize(
    ("stage", "labels", "stricter"),
    [
        ("dual", "alternative", (434, 200, 174)),
        ("single", "alternative", (262, 75, 346)),
        ("dual", "original", (362, 272, 171)),
        ("single", "original", (227, 110, 306)),
    ],
)
def test_one_to_one_matching_never_finds_more_and_keeps_every_detection_and_label_in_the_books(stage, labels, stricter):
    tp, fp, fn = counts(stage, labels, match)
    linked_tp, linked_fp, linked_fn = counts(stage, labels, match_linked)
    assert tp + fn == linked_tp + linked_fn
    assert tp <= linked_tp
    assert fp >= linked_fp
    kept = sum((s[nms(p, s, RADIUS_PX)] > THRESHOLD).sum() for p, s in published_detections(stage).values())
    assert tp + fp == kept
    assert (tp, fp, fn) == stricter
