"""Survival curves with the numbers at risk below them, as Fig. 3 of Fick et al. 2024 with what reviewers ask for."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mitoray.errors import BadOption
from mitoray.report.survival_style import COLOURS, LINES, Cohort, Dashes, caption, open_frame, p_text, refuse_unknown
from mitoray.survival.analysis import GroupComparison
from mitoray.survival.censoring import FloatArray
from mitoray.survival.kaplan_meier import Curve, LogRank

MOST_GROUPS: Final = len(COLOURS)

_NOTES_BELOW: Final = 0.25
"""Survival above which the lines of tests fit below the curves."""
_LABEL_CHARACTERS: Final = 44
"""The longest label of a legend beside which they fit."""


def kaplan_meier_figure(
    curves: Sequence[Curve],
    at_risk_years: FloatArray,
    at_risk: Mapping[str, Sequence[int]],
    *,
    cohort: Cohort,
    endpoint: str = "overall survival",
    group_title: str = "",
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """Kaplan–Meier curves with 95 % bands, censored patients as ticks, and a table of the numbers at risk.

    curves: times in years. at_risk: by group, at each of at_risk_years. group_title: what the groups are by, above the
    legend. notes: tests, such as `test_notes` gives. Raises BadOption for more groups than there are colours.
    """
    refuse_unknown(cohort)
    if not 1 <= len(curves) <= MOST_GROUPS:
        raise BadOption(f"A figure shows 1 to {MOST_GROUPS} groups, not {len(curves)}. Join some.")
    figure = Figure(figsize=(6.4, 4.6 + 0.24 * len(curves)), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 0.35 + 0.3 * len(curves)))
    for curve, colour, line in zip(curves, COLOURS, LINES * 2, strict=False):
        _draw(axes, curve, colour, line)
    longest = float(at_risk_years[-1])
    axes.set(ylim=(0, 1.02), xlim=(-0.02 * longest, 1.03 * longest), ylabel=endpoint)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.legend(title=group_title or None, loc="lower left", fontsize="small", title_fontsize="small", framealpha=0.9)
    axes.tick_params(labelbottom=True)
    axes.set_xticks(at_risk_years)
    axes.set_xlabel("years since diagnosis")
    open_frame(axes)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    if notes:
        # Where all curves end high, the lower right is free; where one ends low, the upper right is.
        widest = max(len(_label(curve)) for curve in curves)
        low = min(float(curve.low[-1]) for curve in curves) > _NOTES_BELOW and widest <= _LABEL_CHARACTERS
        axes.text(
            0.99,
            0.03 if low else 0.99,
            "\n".join(notes),
            transform=axes.transAxes,
            ha="right",
            va="bottom" if low else "top",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
        )
    _numbers(below, [curve.group for curve in curves], at_risk_years, at_risk)
    caption(figure, cohort, "Bands: 95 % intervals; ticks: end of follow-up.")
    return figure


def comparison_figure(
    comparison: GroupComparison,
    *,
    value: str,
    cohort: Cohort,
    endpoint: str = "overall survival",
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """The two groups of a cut, with their log-rank p and hazard ratio. value: what was cut, with its unit."""
    return kaplan_meier_figure(
        comparison.curves,
        comparison.at_risk_years,
        comparison.at_risk,
        cohort=cohort,
        endpoint=endpoint,
        group_title=value,
        title=title,
        notes=[*test_notes(comparison), *notes],
    )


def test_notes(comparison: GroupComparison) -> list[str]:
    """Hazard ratio and log-rank p of a comparison, as lines of text; nothing where undefined."""
    lines = []
    if comparison.univariable is not None:
        ratio = comparison.univariable.ratios[0]
        lines.append(f"hazard ratio {ratio.ratio:.2f} (95 % {ratio.low:.2f} to {ratio.high:.2f})")
    return lines + ([log_rank_note(comparison.log_rank)] if comparison.log_rank else [])


def log_rank_note(test: LogRank) -> str:
    """The test's p as a line of text."""
    return p_text(test.p, "log-rank p")


def _draw(axes: Axes, curve: Curve, colour: str, line: Dashes) -> None:
    axes.fill_between(curve.time, curve.low, curve.high, step="post", color=colour, alpha=0.15, linewidth=0)
    axes.step(
        curve.time, curve.survival, where="post", color=colour, linestyle=line, linewidth=1.8, label=_label(curve)
    )
    heights = curve.at(curve.censored_at)
    axes.plot(curve.censored_at, heights, "|", color=colour, markersize=5, markeredgewidth=0.7, alpha=0.6)


def _label(curve: Curve) -> str:
    median = "not reached" if np.isinf(curve.median) else f"{curve.median:.1f} years"
    return f"{curve.group}: {curve.n_events} events in {curve.n}, median {median}"


def _numbers(axes: Axes, groups: Sequence[str], years: FloatArray, at_risk: Mapping[str, Sequence[int]]) -> None:
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False, pad=8)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_title("number at risk", loc="left", fontsize="small")
    for row, group in enumerate(groups):
        axes.get_yticklabels()[row].set_color(COLOURS[row])
        for year, count in zip(years, at_risk[group], strict=True):
            axes.text(year, row, f"{count:,}", ha="center", va="center", fontsize="small")
