"""How good a detector is: on phantoms, where every figure is known, and on real crops and real tissue."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mitoray.evaluation.matching import RADIUS_UM, Matching, f1_score, match
from mitoray.models import Detector, Metric
from mitoray.phantom import DOMAINS, Phantom, draw_phantom
from mitoray.slide import Rect, open_slide
from mitoray.training.material import Evaluation, at_mpp, patches_at_mpp
from mitoray.training.patches import Patches

FLOOR: Final = 0.02
"""Scores below this are not looked at."""

SLIDE_UM: Final = 800.0
SLIDES_PER_DOMAIN: Final = 2
RATES_PER_MM2: Final = (5.0, 1.0)
"""False positives per mm² at which sensitivity is stated."""


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


def crop_matchings(detector: Detector, crops: Patches) -> list[Matching]:
    """Detections in crops at the detector's µm/px, one to one with the crops' figures."""
    radius_px = RADIUS_UM / detector.mpp
    return [
        match(points.xy_px.astype(float), points.scores.astype(float), centres[~np.isnan(centres[:, 0])], radius_px)
        for points, centres in zip(detector.detect(crops.images, FLOOR), crops.centres_px.numpy(), strict=True)
    ]


def f1_at(matchings: Sequence[Matching], threshold: float) -> float:
    """F1 over all images summed, of detections that score above `threshold`."""
    tp, fp, fn = np.sum([matching.counts(threshold) for matching in matchings], axis=0)
    return float(f1_score(tp, fp, fn))


def sensitivity_above(matchings: Sequence[Matching], threshold: float) -> float:
    """Share of the figures found with a score above `threshold`."""
    found = sum(int((matching.true_scores > threshold).sum()) for matching in matchings)
    return found / sum(len(matching.label_detection) for matching in matchings)


def threshold_at(false_scores: NDArray[np.float32], area_mm2: float, fp_per_mm2: float) -> float:
    """The lowest threshold above which at most that many false positives per mm² score; at least `FLOOR`."""
    allowed = int(fp_per_mm2 * area_mm2)
    falling = np.sort(false_scores)[::-1]
    return float(falling[allowed]) if allowed < len(falling) else FLOOR


def false_scores(detector: Detector, real: Evaluation) -> dict[str, tuple[NDArray[np.float32], float]]:
    """Scores of all detections where no figure is known, and the area in mm²; glass counts as area."""
    with open_slide(str(real.coarse_slide)) as slide:
        whole = Rect(0, 0, slide.width_px, slide.height_px)
        coarse = torch.from_numpy(slide.read_region(whole, detector.mpp).copy()).permute(2, 0, 1)
        native_mpp = slide.mpp
    images = {
        "held-out region at 0.25 µm/px": at_mpp(real.tissue, detector.mpp),
        f"slide at {native_mpp:g} µm/px": coarse,
    }
    return {
        place: (
            detector.detect(image[None], FLOOR)[0].scores,
            image.shape[1] * image.shape[2] * detector.mpp**2 / 1e6,
        )
        for place, image in images.items()
    }


def metrics(detector: Detector, threshold: float, *, phantom_seed: int, real: Evaluation) -> Iterator[Metric]:
    """What a bundle states of its detector, none of it from images that training or the threshold saw."""
    matchings = phantom_matchings(detector, phantom_seed)
    every = [matching for of_domain in matchings.values() for matching in of_domain]
    yield _metric(f"F1 at threshold {threshold:g}, all domains", f1_at(every, threshold), "phantom")
    for domain, of_domain in matchings.items():
        if any(len(matching.label_detection) for matching in of_domain):  # without figures F1 says nothing
            yield _metric(f"F1 at threshold {threshold:g}, {domain}", f1_at(of_domain, threshold), "phantom")
    of_scanner = {name: crop_matchings(detector, patches_at_mpp(c, detector.mpp)) for name, c in real.crops.items()}
    for scanner, of_crops in of_scanner.items():
        yield _metric(f"F1 at threshold {threshold:g}, AMi-Br, {scanner}", f1_at(of_crops, threshold), "real crops")
    crops = [matching for of_crops in of_scanner.values() for matching in of_crops]
    yield _metric(f"sensitivity at threshold {threshold:g}, AMi-Br", sensitivity_above(crops, threshold), "real crops")
    for place, (scores, area_mm2) in false_scores(detector, real).items():
        per_mm2 = float((scores > threshold).sum()) / area_mm2
        yield _metric(f"false positives per mm² at threshold {threshold:g}, {place}", per_mm2, "real tissue")
        for rate in RATES_PER_MM2:
            share = sensitivity_above(crops, threshold_at(scores, area_mm2, rate))
            yield _metric(f"sensitivity, AMi-Br, at {rate:g} false positives per mm², {place}", share, "real crops")


def _metric(name: str, value: float, data: str) -> Metric:
    return Metric.model_validate({"name": name, "value": round(value, 4), "data": data})
