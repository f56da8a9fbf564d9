"""How good a detector is: on phantoms, where every figure is known, and on real crops and real tissue."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mitoray.evaluation.matching import RADIUS_UM, Matching, f1_score, match
from mitoray.models import Detector, Metric
from mitoray.phantom import DOMAINS, Phantom, draw_phantom
from mitoray.training.patches import Patches

FLOOR: Final = 0.02
"""Scores below this are not looked at."""

SLIDE_UM: Final = 800.0
SLIDES_PER_DOMAIN: Final = 2


def phantom_matchings(detector: Detector, seed: int) -> dict[str, list[Matching]]:
    """By phantom domain: detections in slides drawn from `seed` on, matched one to one with the slides' figures."""
    matchings = {}
    for name, domain in DOMAINS.items():
        side_px = round(SLIDE_UM / domain.mpp)
        seeds = range(seed, seed + SLIDES_PER_DOMAIN)
        drawn = (draw_phantom(domain, seed=s, width_px=side_px, height_px=side_px) for s in seeds)
        matchings[name] = [match_phantom(detector, phantom) for phantom in drawn]
    return matchings


def match_phantom(detector: Detector, phantom: Phantom) -> Matching:
    """Detections in a drawn slide, all that score `FLOOR` or more, one to one with its figures."""
    scale = phantom.mpp / detector.mpp
    height, width = phantom.image.shape[:2]
    image = Image.fromarray(phantom.image).resize((round(width * scale), round(height * scale)))
    (points,) = detector.detect(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], FLOOR)
    figures = phantom.labels.filter(np.array(phantom.labels["kind"].to_pylist()) == "mitotic_figure")
    labels = (np.column_stack([figures["x_px"], figures["y_px"]]) + 0.5) * scale - 0.5
    return match(points.xy_px.astype(float), points.scores.astype(float), labels, RADIUS_UM / detector.mpp)


def f1_at(matchings: Sequence[Matching], threshold: float) -> float:
    """F1 over all slides summed, of detections that score above `threshold`."""
    tp, fp, fn = np.sum([matching.counts(threshold) for matching in matchings], axis=0)
    return float(f1_score(tp, fp, fn))


def crop_scores(detector: Detector, crops: Patches) -> NDArray[np.float32]:
    """float32 (n,): the best score within the matching radius of each crop's first figure, 0 where there is none."""
    scores = np.zeros(len(crops.images), np.float32)
    centres_px = crops.centres_px[:, 0].numpy()
    for i, (points, centre_px) in enumerate(zip(detector.detect(crops.images, FLOOR), centres_px, strict=True)):
        near = np.linalg.norm(points.xy_px - centre_px, axis=1) <= RADIUS_UM / detector.mpp
        scores[i] = points.scores[near].max(initial=0)
    return scores


def threshold_at(false_scores: NDArray[np.float32], area_mm2: float, fp_per_mm2: float) -> float:
    """The lowest threshold above which at most that many false positives per mm² score; at least `FLOOR`."""
    allowed = int(fp_per_mm2 * area_mm2)
    falling = np.sort(false_scores)[::-1]
    return float(falling[allowed]) if allowed < len(falling) else FLOOR


def metrics(
    detector: Detector, threshold: float, *, phantom_seed: int, crops: Mapping[str, Patches], tissue: torch.Tensor
) -> Iterator[Metric]:
    """What a bundle states of its detector, none of it from images that training or the threshold saw.

    crops: patches by name, each with a figure. tissue: uint8 (3, h, w) without figures, at the detector's µm/px.
    """
    matchings = phantom_matchings(detector, phantom_seed)
    every = [matching for of_domain in matchings.values() for matching in of_domain]
    yield _metric(f"F1 at threshold {threshold:g}, all domains", f1_at(every, threshold), "phantom")
    for domain, of_domain in matchings.items():
        if not any(len(matching.label_detection) for matching in of_domain):
            continue  # without figures F1 says nothing
        yield _metric(f"F1 at threshold {threshold:g}, {domain}", f1_at(of_domain, threshold), "phantom")
    false_scores = detector.detect(tissue[None], FLOOR)[0].scores
    area_mm2 = tissue.shape[1] * tissue.shape[2] * detector.mpp**2 / 1e6
    per_mm2 = float((false_scores > threshold).sum()) / area_mm2
    yield _metric(f"false positives per mm² at threshold {threshold:g}", per_mm2, "real tissue")
    for name, patches in crops.items():
        scores = crop_scores(detector, patches)
        for fp_per_mm2 in (5, 1):
            share = float((scores > threshold_at(false_scores, area_mm2, fp_per_mm2)).mean())
            yield _metric(f"sensitivity at {fp_per_mm2} false positives per mm², {name}", share, "real crops")
        yield _metric(
            f"sensitivity at threshold {threshold:g}, {name}", float((scores > threshold).mean()), "real crops"
        )


def _metric(name: str, value: float, data: str) -> Metric:
    return Metric.model_validate({"name": name, "value": round(value, 4), "data": data})
