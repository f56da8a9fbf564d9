"""Precision against recall, and sensitivity against false positives per mm²."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, ylim=(0, 1))
    axes.grid(alpha=0.3)
    return figure, axes


def _style(name: str) -> dict[str, Any]:
    return {"color": "black", "linewidth": 2.0} if name == "all" else {"linewidth": 1.2}
