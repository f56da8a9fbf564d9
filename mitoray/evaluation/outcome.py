"""What a search found, held against what there was before: on the slides searched, and on those that were not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from mitoray.evaluation.calibration import Method, Reliability, calibrated, reliability
from mitoray.evaluation.candidate_cache import CandidateCache
from mitoray.evaluation.ensembles import ALL, Thresholds, exact_thresholds, judged
from mitoray.models import Bundle, Metric
from mitoray.models.combination import Combination

SEARCHED: Final = "searched"
TEST: Final = "test"

Data = Literal["phantom", "real slides"]

_METRICS: Final = {SEARCHED: "F1 on slides that chose weights and thresholds", TEST: "F1 on slides not searched"}


@dataclass(frozen=True)
class Decision:
    """How scores become one (None: the detector's own score) and from which score a candidate counts."""

    combination: Combination | None
    thresholds: Thresholds


def decided(
    searched: CandidateCache, combination: Combination | None, method: Method, min_figures: int
) -> tuple[Decision, dict[str, str]]:
    """For given weights the calibration and, on calibrated scores, the thresholds; and why domains lack their own.

    Errors as of `calibrated` and `exact_thresholds`.
    """
    if combination is not None:
        scores = searched.scores(combination)
        calibration = calibrated(method, scores, searched.true(scores))
        combination = combination.model_copy(update={"calibration": calibration})
    thresholds, reasons = exact_thresholds(searched, searched.scores(combination), min_figures)
    return Decision(combination, thresholds), reasons


def decision_of(bundle: Bundle) -> Decision:
    """What a bundle decides now."""
    return Decision(bundle.combining if bundle.is_classifier else None, Thresholds(bundle.threshold, bundle.thresholds))


def renewed(
    present: Bundle, decision: Decision, parts: Mapping[str, CandidateCache], data: Data, as_name: str
) -> Bundle:
    """The same networks with what was decided, and F1 of each part in place of such figures of earlier searches."""
    values = {_METRICS[part]: f1_of(cache, decision) for part, cache in parts.items()}
    measured = [Metric(name=name, value=value, data=data) for name, value in values.items() if not np.isnan(value)]
    kept = [metric for metric in present.metrics if metric.name not in _METRICS.values()]
    return present.model_copy(
        update={
            "name": as_name,
            "combination": decision.combination,
            "threshold": decision.thresholds.everywhere,
            "thresholds": dict(decision.thresholds.by_domain),
            "metrics": (*kept, *measured),
        }
    )


def cautions(parts: Mapping[str, CandidateCache], decision: Decision, reasons: Mapping[str, str]) -> list[str]:
    """What whoever reads the figures should know, a sentence or two each."""
    said = [f"{domain}: {reason}; the threshold of all slides counts there." for domain, reason in reasons.items()]
    if TEST not in parts:
        said.append(
            "No slide is left to judge: F1 on the slides that chose the thresholds flatters. Give the manifest a "
            "column split, or --test-share."
        )
    if decision.thresholds.everywhere < parts[SEARCHED].scores(decision.combination).min():
        said.append(
            "The best threshold lies below every cached score: lower ones may be better still. Score the cohort with "
            "a lower --candidate-threshold."
        )
    return said


def same_networks(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles give every candidate the same members' scores, whatever they make of them."""
    networks = [(b.architecture, b.settings, b.mpp, b.members, b.normalisation, b.weights.keys()) for b in (one, other)]
    return networks[0] == networks[1] and all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )


def f1_of(cache: CandidateCache, decision: Decision) -> float:
    """Pooled F1 of all slides, each domain at its threshold."""
    return judged(cache, cache.scores(decision.combination), decision.thresholds)[ALL].f1


def compared(parts: Mapping[str, CandidateCache], before: Decision, after: Decision) -> list[dict[str, Any]]:
    """A row per part and domain: part, domain, slides, figures, threshold, F1 before, F1 after, F1 one threshold.

    "F1 one threshold": after, with the threshold of all slides in every domain.
    """
    rows = []
    for part, cache in parts.items():
        old = judged(cache, cache.scores(before.combination), before.thresholds)
        scores = cache.scores(after.combination)
        new = judged(cache, scores, after.thresholds)
        plain = judged(cache, scores, Thresholds(after.thresholds.everywhere))
        rows += [
            {
                "part": part,
                "domain": domain,
                "slides": new[domain].n_slides,
                "figures": new[domain].n_figures,
                "threshold": after.thresholds.of(domain),
                "F1 before": old[domain].f1,
                "F1 after": new[domain].f1,
                "F1 one threshold": plain[domain].f1,
            }
            for domain in new
        ]
    return rows


def reliabilities(cache: CandidateCache, combination: Combination | None) -> tuple[Reliability, Reliability | None]:
    """Of the scores without calibration, and with it; None where there is none."""
    raw = None if combination is None else combination.model_copy(update={"calibration": None})
    scores = cache.scores(raw)
    before = reliability(scores, cache.true(scores))
    if combination is None or combination.calibration is None:
        return before, None
    scores = cache.scores(combination)
    return before, reliability(scores, cache.true(scores))
