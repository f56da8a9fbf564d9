"""How often the intervals of a count hold the truth, on phantoms: nominal against observed.

python tests/benchmarks/count_interval_coverage.py

Phantom slides are drawn anew, the shipped detector scores them, its scores are calibrated on some (isotonic), and on
the others each field is asked: does the interval hold the true number of figures among the candidates? And would it
hold all figures drawn, those missed included, which it does not claim to? Fields are squares laid without regard to the
figures, and the densest circle of each slide, chosen by the detections that score above the threshold. The sampling
interval is held to strewn figures, for which it is made, and to the phantoms', which cluster and leave glass free.
"""

import argparse
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch

from mitoray.counting.hotspot import densest_circle
from mitoray.counting.intervals import calibrated_interval, count_distribution, sampling_interval
from mitoray.evaluation.calibration import calibrated, expected_calibration_error
from mitoray.evaluation.matching import RADIUS_UM, match
from mitoray.models import load_bundle
from mitoray.phantom import DOMAINS, draw_cohort
from mitoray.training.detection import detect_slide
from mitoray.training.slides import open_training_slide

SIDE_UM = 800.0
FIELD_UM = 400.0
HOTSPOT_MM2 = 0.2


@dataclass(frozen=True)
class Scored:
    """A phantom's candidates and figures. µm; `label` (n,): the figure that a candidate stands for, -1 for none."""

    domain: str
    candidates_um: np.ndarray
    scores: np.ndarray
    label: np.ndarray
    figures_um: np.ndarray


def scored_phantoms(folder: Path, n: int, seed: int, floor: float, model: str) -> list[Scored]:
    domains = [name for name, domain in DOMAINS.items() if domain.mpp == 0.25]
    bundle = load_bundle(model)
    detector, side_px = bundle.detector(), round(SIDE_UM / 0.25)
    manifest, labels = draw_cohort(folder, n_slides=n, seed=seed, width_px=side_px, height_px=side_px, domains=domains)
    phantoms = []
    for row in manifest.to_pylist():
        found = detect_slide(detector, open_training_slide(row["slide_id"], row["uri"]), floor=floor)
        own = labels.filter(
            pc.and_(pc.equal(labels["slide_id"], row["slide_id"]), pc.equal(labels["kind"], "mitotic_figure"))
        )
        points, figures = (np.column_stack([t["x_px"], t["y_px"]]).astype(float) * 0.25 for t in (found, own))
        scores = found["score"].to_numpy()
        phantoms.append(
            Scored(row["domain"], points, scores, match(points, scores, figures, RADIUS_UM).detection_label, figures)
        )
    return phantoms


def in_square(points_um: np.ndarray, corner_um: tuple[float, float]) -> np.ndarray:
    offsets = points_um - np.array(corner_um)
    return ((offsets >= 0) & (offsets < FIELD_UM)).all(axis=1)


def squares() -> list[tuple[float, float]]:
    steps = np.arange(0, SIDE_UM, FIELD_UM)
    return [(x, y) for x in steps for y in steps]


def held(name: str, fields: list[tuple[np.ndarray, int, int]], level: float) -> None:
    """fields: probabilities of the candidates, true figures among them, all figures drawn."""
    among = [(calibrated_interval(p, level), true) for p, true, _ in fields]
    drawn = [(calibrated_interval(p, level), n) for p, _, n in fields]
    share, of_all = (np.mean([i.low <= n <= i.high for i, n in pairs]) for pairs in (among, drawn))
    below, above = np.mean([n < i.low for i, n in among]), np.mean([n > i.high for i, n in among])
    width = np.mean([i.high - i.low for i, _ in among])
    # Whole numbers make an interval hold more than its level: what it holds by the distribution it is made from.
    promised = np.mean(
        [
            count_distribution(p)[int(i.low) : int(i.high) + 1].sum()
            for (p, *_), (i, _) in zip(fields, among, strict=True)
        ]
    )
    n_candidates, n_true, n_drawn = (
        np.mean(column) for column in zip(*[(len(p), *n) for p, *n in fields], strict=True)
    )
    print(
        f"{name:26s} {len(fields):4d} fields, {n_true:5.1f} figures among {n_candidates:5.1f} candidates, "
        f"{n_drawn:5.1f} drawn; nominal {level:.0%}, by whole numbers {promised:.1%}: held {share:.1%} "
        f"(below {below:.1%}, above {above:.1%}), mean width {width:.1f}; of all drawn held {of_all:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mitoray-s", help="URI of a detector's bundle")
    parser.add_argument("--calibrate-on", type=int, default=18, help="phantom slides to calibrate on")
    parser.add_argument("--slides", type=int, default=36, help="phantom slides to count on")
    parser.add_argument("--floor", type=float, default=0.05, help="lowest score of a candidate")
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=77_000, help="of the first slide")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    given = parser.parse_args()
    logging.getLogger("mitoray").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        known = scored_phantoms(Path(folder) / "known", given.calibrate_on, given.seed, given.floor, given.model)
        asked = scored_phantoms(Path(folder) / "asked", given.slides, given.seed + 10_000, given.floor, given.model)
    scores, truths = (np.concatenate(parts) for parts in zip(*[(s.scores, s.label >= 0) for s in known], strict=True))
    curve = calibrated("isotonic", scores, truths)
    assert curve is not None
    new, new_truths = (np.concatenate(p) for p in zip(*[(s.scores, s.label >= 0) for s in asked], strict=True))
    print(
        f"phantoms, {given.model}: calibrated on {len(scores)} candidates ({truths.mean():.0%} true); on {len(new)} "
        f"others the calibration error is {expected_calibration_error(new, new_truths):.3f} before and "
        f"{expected_calibration_error(curve(new), new_truths):.3f} after"
    )
    threshold = load_bundle(given.model).threshold
    for name, probability in (("calibrated, squares", curve), ("uncalibrated, squares", lambda s: s)):
        fields = []
        for slide in asked:
            for corner in squares():
                inside = in_square(slide.candidates_um, corner)
                fields.append(
                    (
                        probability(slide.scores[inside]),
                        int((slide.label[inside] >= 0).sum()),
                        int(in_square(slide.figures_um, corner).sum()),
                    )
                )
        held(name, fields, given.level)
    hotspots = []
    for slide in asked:
        hotspot = densest_circle(slide.candidates_um[slide.scores >= threshold], HOTSPOT_MM2)
        if hotspot:
            inside = hotspot.contains(slide.candidates_um)
            true, drawn = (slide.label[inside] >= 0).sum(), hotspot.contains(slide.figures_um).sum()
            hotspots.append((curve(slide.scores[inside]), int(true), int(drawn)))
    held(f"calibrated, densest {HOTSPOT_MM2} mm²", hotspots, given.level)
    rng = np.random.default_rng(given.seed)
    for mean in (0.5, 2, 5, 11, 40):
        covered = [
            i.low <= mean <= i.high
            for i in (sampling_interval(n, level=given.level) for n in rng.poisson(mean, 20_000))
        ]
        print(
            f"sampling, strewn figures: mean {mean:4} a field: nominal {given.level:.0%}: "
            f"held {np.mean(covered):.1%} of 20,000"
        )
    covered = []
    for domain in {slide.domain for slide in asked}:
        counts = [in_square(s.figures_um, corner).sum() for s in asked if s.domain == domain for corner in squares()]
        covered += [
            i.low <= np.mean(counts) <= i.high for i in (sampling_interval(int(n), level=given.level) for n in counts)
        ]
    print(
        f"sampling, drawn figures of phantoms, mean of their domain: nominal {given.level:.0%}: "
        f"held {np.mean(covered):.1%} of {len(covered)} fields"
    )


if __name__ == "__main__":
    main()
