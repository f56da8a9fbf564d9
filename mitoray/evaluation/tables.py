"""One row of figures per domain, and one for all slides."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from mitoray.evaluation.bootstrap import slide_interval
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.evaluation.curves import ScoredOutcomes, average_precision, sensitivity_at
from mitoray.evaluation.matching import FloatArray, f1_score, precision, recall
from mitoray.evaluation.thresholds import best_threshold

ALL: Final = "all"


@dataclass(frozen=True)
class DomainScores:
    """Figures of the slides of a domain at the cohort's threshold. NaN where undefined, such as F1 of nothing at all.

    f1_pooled: of the counts summed over slides; f1_low, f1_high: its 95 % bootstrap interval by slide.
    f1_image_mean: mean of the slides' own F1, as the MIDOG++ paper describes, over the `n_judged` slides that have a
    label or a detection. average_precision (ap_low, ap_high): over all thresholds. own_threshold, own_f1: the best
    threshold for this domain alone. fp_per_mm2, sensitivity_at_*_fp_per_mm2: NaN unless every slide's area is known.
    """

    domain: str
    n_slides: int
    n_labels: int
    threshold: float
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1_pooled: float
    f1_low: float
    f1_high: float
    f1_image_mean: float
    n_judged: int
    average_precision: float
    ap_low: float
    ap_high: float
    own_threshold: float
    own_f1: float
    area_mm2: float
    fp_per_mm2: float
    sensitivity_at_1_fp_per_mm2: float
    sensitivity_at_5_fp_per_mm2: float

    def as_json(self) -> dict[str, object]:
        """The figures by name; null where NaN, which JSON does not have."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


def domain_table(
    cohort: MatchedCohort, threshold: float, *, repeats: int = 1000, seed: int = 0, grid: FloatArray | None = None
) -> list[DomainScores]:
    """Figures of every domain, sorted by name, and of all slides. repeats: bootstrap draws, 0 leaves intervals NaN.

    grid: thresholds to try for `own_threshold`; by default every one that makes a difference.
    """
    parts = [(domain, cohort.of_domain(domain)) for domain in cohort.domains]
    return [_row(name, part, threshold, repeats, seed, grid) for name, part in [*parts, (ALL, cohort)]]


def as_text(rows: Sequence[DomainScores]) -> str:
    """The table for a terminal, its main columns."""
    cells = [_cells(row) for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in cells[0]}
    lines = [{name: name for name in widths}, *cells]
    return "\n".join("  ".join(line[name].ljust(width) for name, width in widths.items()).rstrip() for line in lines)


def _cells(row: DomainScores) -> dict[str, str]:
    return {
        "domain": row.domain,
        "slides": f"{row.n_slides}",
        "labels": f"{row.n_labels}",
        "TP": f"{row.tp}",
        "FP": f"{row.fp}",
        "FN": f"{row.fn}",
        "precision": _3(row.precision),
        "recall": _3(row.recall),
        "F1 pooled (95 % interval)": f"{_3(row.f1_pooled)} ({_3(row.f1_low)} to {_3(row.f1_high)})",
        "F1 image mean": _3(row.f1_image_mean),
        "AP": _3(row.average_precision),
        "own threshold": _3(row.own_threshold),
        "own F1": _3(row.own_f1),
        "FP per mm²": _3(row.fp_per_mm2),
    }


def _row(
    name: str, cohort: MatchedCohort, threshold: float, repeats: int, seed: int, grid: FloatArray | None
) -> DomainScores:
    counts, outcomes = cohort.counts(threshold), ScoredOutcomes(cohort.matchings)
    whole = outcomes.sweep()
    own = best_threshold(whole, grid)
    per_image = np.array([f1_score(*row) for row in counts.tolist()])
    judged = per_image[~np.isnan(per_image)]
    tp, fp, fn = (int(n) for n in counts.sum(axis=0))
    area = cohort.area_mm2
    intervals = [(np.nan, np.nan)] * 2
    if repeats:
        statistics = (
            lambda times: f1_score(*(times @ counts).tolist()),
            lambda times: average_precision(outcomes.sweep(times)),
        )
        intervals = [slide_interval(s, len(counts), repeats=repeats, seed=seed) for s in statistics]
    return DomainScores(
        domain=name,
        n_slides=len(counts),
        n_labels=whole.n_labels,
        threshold=threshold,
        tp=tp,
        fp=fp,
        fn=fn,
        precision=precision(tp, fp),
        recall=recall(tp, fn),
        f1_pooled=f1_score(tp, fp, fn),
        f1_low=intervals[0][0],
        f1_high=intervals[0][1],
        f1_image_mean=float(judged.mean()) if len(judged) else np.nan,
        n_judged=len(judged),
        average_precision=average_precision(whole),
        ap_low=intervals[1][0],
        ap_high=intervals[1][1],
        own_threshold=own.threshold if own else np.nan,
        own_f1=own.f1 if own else np.nan,
        area_mm2=area or np.nan,
        fp_per_mm2=fp / area if area else np.nan,
        sensitivity_at_1_fp_per_mm2=sensitivity_at(whole, area, 1.0) if area else np.nan,
        sensitivity_at_5_fp_per_mm2=sensitivity_at(whole, area, 5.0) if area else np.nan,
    )


def _3(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
