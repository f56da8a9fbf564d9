"""Precision against recall, sensitivity against false positives per mm², and scores by domain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mitoray.evaluation.cohort import MatchedCohort
from mitoray.evaluation.curves import Sweep, average_precision, froc


def pr_figure(sweeps: Mapping[str, Sweep]) -> Figure:
    """Precision-recall curves by domain, with their average precision."""
    figure, axes = _figure("recall", "precision")
    for name, counts in sweeps.items():
        axes.plot(counts.recall, counts.precision, label=f"{name} (AP {average_precision(counts):.3f})", **_style(name))
    axes.set_xlim(0, 1)
    axes.legend(fontsize="small")
    return figure


def froc_figure(sweeps: Mapping[str, Sweep], area_mm2: Mapping[str, float]) -> Figure:
    """FROC curves of the domains whose area is known; a logarithmic axis of false positives per mm²."""
    figure, axes = _figure("false positives per mm²", "sensitivity")
    for name, area in area_mm2.items():
        rate, sensitivity = froc(sweeps[name], area)
        axes.step(np.maximum(rate, 1e-6), sensitivity, where="post", label=name, **_style(name))  # log has no zero
    axes.set_xscale("log")
    axes.set_xlim(left=0.02)
    axes.legend(fontsize="small")
    return figure


def score_figure(cohorts: Mapping[str, MatchedCohort], thresholds: Mapping[str, float]) -> Figure:
    """Histograms of the scores of true and false detections, one panel per domain, with its threshold if it has one."""
    columns = min(3, max(1, len(cohorts)))
    rows = max(1, -(-len(cohorts) // columns))
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    edges = np.linspace(0, 1, 26)
    for axes, (name, cohort) in zip(grid, cohorts.items(), strict=False):
        true, false = (
            np.concatenate([getattr(matching, kind) for matching in cohort.matchings] or [np.zeros(0)])
            for kind in ("true_scores", "false_scores")
        )
        axes.hist(true, edges, color="#0072B2", alpha=0.75, label="figures")
        axes.hist(false, edges, histtype="step", color="#D55E00", linewidth=1.8, label="false")
        if name in thresholds:
            axes.axvline(thresholds[name], color="black", linestyle="--", linewidth=1, label="threshold")
        axes.set_title(name, fontsize="small")
        axes.set_yscale("symlog", linthresh=5)
    for axes in grid[len(cohorts) :]:
        axes.axis("off")
    grid[0].legend(fontsize="small")
    figure.supxlabel("score", fontsize="medium")
    figure.supylabel("detections", fontsize="medium")
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, ylim=(0, 1))
    axes.grid(alpha=0.3)
    return figure, axes


def _style(name: str) -> dict[str, Any]:
    return {"color": "black", "linewidth": 2.0} if name == "all" else {"linewidth": 1.2}
