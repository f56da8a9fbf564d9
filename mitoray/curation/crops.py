"""Crops around places of slides: for experts as files, for a classifier as patches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from mitoray.models import load_bundle
from mitoray.models.classifiers import BATCH
from mitoray.slide import open_slide, options_for
from mitoray.training.crop_extraction import crop_around
from mitoray.training.crops import png
from mitoray.training.slides import TrainingSlide

CROP_PX: Final = 128
"""Side of a crop for experts (Aubreville et al. 2020, Methods)."""
CROP_MPP: Final = 0.25


def expert_crops(
    table: pa.Table,
    slides: Iterable[TrainingSlide],
    storage_options: Mapping[str, Any] | None = None,
    *,
    side_px: int = CROP_PX,
    mpp: float = CROP_MPP,
    done: Callable[[int], object] = lambda _: None,
) -> Iterator[tuple[str, bytes]]:
    """candidate_id and a PNG of `side_px` px at `mpp` µm/px around each place, slide by slide; white beyond the slide.

    table: with `candidate_id, slide_id, x_px, y_px`. done: called with the crops of each slide. Raises SlideError.
    """
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_slide.setdefault(row["slide_id"], []).append(row)
    for slide in slides:
        rows = by_slide.get(slide.slide_id, [])
        if not rows:
            continue
        with open_slide(slide.uri, options_for(slide.uri, storage_options), slide.mpp) as pixels:
            for row in sorted(rows, key=lambda row: (row["y_px"], row["x_px"])):
                yield row["candidate_id"], png(crop_around(pixels, row["x_px"], row["y_px"], mpp, side_px))
        done(len(rows))


def classified(
    work: tuple[TrainingSlide, pa.Table],
    classifier: str,
    digest: str,
    storage_options: Mapping[str, Any] | None = None,
) -> list[float]:
    """A classifier's score of a mitotic figure, 0 to 1, of every place on a slide, in their order. Raises SlideError.

    work: the slide, and its places with `x_px, y_px`. classifier: bundle's URI; digest: which it must have.
    """
    slide, places = work
    bundle = load_bundle(classifier, storage_options, digest)
    model, weights = bundle.classifier(), np.array(bundle.combining.weights)
    scores: list[float] = []
    with open_slide(slide.uri, options_for(slide.uri, storage_options), slide.mpp) as pixels:
        points = list(zip(places["x_px"].to_pylist(), places["y_px"].to_pylist(), strict=True))
        for start in range(0, len(points), BATCH):
            images = [crop_around(pixels, x, y, model.mpp, model.patch_px) for x, y in points[start : start + BATCH]]
            members = model.classify(torch.tensor(np.stack(images)).permute(0, 3, 1, 2)).members
            scores += np.average(members, axis=1, weights=weights if weights.any() else None).tolist()
    return scores
