"""Hazard ratios as a forest plot, and the hazard as a curve of the count."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mitoray.errors import BadOption
from mitoray.report.survival_style import COLOURS, Cohort, caption, open_frame, p_text, refuse_unknown
from mitoray.survival.censoring import FloatArray
from mitoray.survival.continuous import HazardCurve
from mitoray.survival.cox import CoxModel, HazardRatio

_TICKS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_COUNT_TICKS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def forest_figure(models: Sequence[tuple[str, CoxModel]], *, cohort: Cohort, title: str = "") -> Figure:
    """Hazard ratios with 95 % intervals of one or more models, each under its name, on a logarithmic axis.

    Arrows mark intervals that reach beyond 0.05 or 50. Raises BadOption without any model.
    """
    refuse_unknown(cohort)
    if not models:
        raise BadOption("A forest plot needs a model whose hazard ratios are defined.")
    lines: list[tuple[str, HazardRatio | None]] = []
    for name, model in models:
        lines.append((f"{name}: {model.n_events} events in {model.n:,}, C-index {model.c_index:.2f}", None))
        lines += [(ratio.name, ratio) for ratio in model.ratios]
    figure = Figure(figsize=(8.8, 1.5 + 0.33 * len(lines)), layout="constrained")
    axes = figure.subplots()
    ratios = [ratio for _, ratio in lines if ratio is not None]
    low = max(_TICKS[0], min(0.5, *(r.low for r in ratios)) / 1.15)
    high = min(_TICKS[-1], max(2.0, *(r.high for r in ratios)) * 1.15)
    for row, (text, ratio) in enumerate(lines):
        if ratio is None:
            axes.text(-0.02, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center",
                      fontsize="small", fontweight="bold")  # fmt: skip
            continue
        axes.text(-0.02, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center", parse_math=False)
        axes.plot([max(ratio.low, low), min(ratio.high, high)], [row, row], color=COLOURS[0], linewidth=1.6)
        if low <= ratio.ratio <= high:
            axes.plot([ratio.ratio], [row], "s", color=COLOURS[0], markersize=6)
        for end, beyond, arrow in ((low, ratio.low < low, "<"), (high, ratio.high > high, ">")):
            if beyond:
                axes.plot([end], [row], arrow, color=COLOURS[0], markersize=6, clip_on=False)
        numbers = f"{ratio.ratio:.2f} ({_short(ratio.low)} to {_short(ratio.high)}), {p_text(ratio.p)}"
        axes.text(1.02, row, numbers, transform=axes.get_yaxis_transform(), ha="left", va="center")
    axes.axvline(1, color="0.45", linewidth=0.8)
    axes.set(xscale="log", xlim=(low, high), ylim=(len(lines) - 0.4, -0.6), xlabel="hazard ratio (95 % interval)")
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([])
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["left", "top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontweight="bold", fontsize="medium")
    caption(figure, cohort)
    return figure


def hazard_curve_figure(
    curve: HazardCurve,
    counts: FloatArray,
    *,
    value: str,
    cohort: Cohort,
    published: float | None = None,
    title: str = "",
) -> Figure:
    """The hazard by count, relative to that of the median patient, with its 95 % band and the counts as a histogram.

    counts: (n,) float64, those of the patients. value: what was counted, with its unit. published: a cut to mark.
    """
    refuse_unknown(cohort)
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    logarithmic = curve.scale == "log"

    def place_of(count: FloatArray) -> FloatArray:
        return np.asarray(np.log2(count + 1) if logarithmic else count, dtype=np.float64)

    x = place_of(curve.count)
    axes.fill_between(x, curve.low, curve.high, color=COLOURS[0], alpha=0.18, linewidth=0, label="95 % interval")
    axes.plot(x, curve.relative_hazard, color=COLOURS[0], linewidth=2, label="restricted cubic spline")
    axes.axhline(1, color="0.45", linewidth=0.8)
    axes.plot(place_of(np.array([curve.reference])), [1], "o", color=COLOURS[0], markersize=6,
              label=f"reference: median, {curve.reference:.3g}")  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(max(0.1, curve.low.min() / 1.1), min(20, curve.high.max() * 1.1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda h, _: f"{h:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda h, _: f"{h:g}" if f"{h:e}"[0] in "25" else ""))
    axes.set_ylabel("relative hazard")
    axes.grid(alpha=0.25)
    below.hist(place_of(counts), bins=40, color="0.65", edgecolor="white", linewidth=0.3)
    below.set(xlabel=f"{value} (logarithmic in count + 1)" if logarithmic else value, ylabel="patients")
    if logarithmic:
        ticks = [tick for tick in _COUNT_TICKS if curve.count.min() - 1e-9 <= tick <= curve.count.max() * 1.001]
        below.set_xticks([np.log2(tick + 1) for tick in ticks], [f"{tick:g}" for tick in ticks])
    below.plot(place_of(curve.knots), np.zeros(len(curve.knots)), "^", color=COLOURS[0], markersize=5,
               clip_on=False, zorder=4)  # fmt: skip
    if published is not None:
        for place in (axes, below):
            place.axvline(float(place_of(np.array([published]))[0]), color="black", linewidth=1, linestyle="-.",
                          label=f"published cut: {published:g}")  # fmt: skip
    axes.legend(fontsize="small", loc="upper left", framealpha=0.9)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    for place in (axes, below):
        open_frame(place)
    model = curve.model
    caption(
        figure,
        cohort,
        f"Cox model, {model.n_events} events in {model.n:,} patients; {p_text(curve.p)} for any effect, "
        f"{p_text(curve.nonlinear_p)} for bending. Triangles: knots.",
    )
    return figure


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.1e}"
