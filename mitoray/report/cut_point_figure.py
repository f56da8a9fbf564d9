"""What a search for a cut found: naive and honest p along all cuts, and where other samples would have cut."""

from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mitoray.report.survival_style import COLOURS, Cohort, caption, open_frame, p_text, refuse_unknown
from mitoray.survival.cut_points import CutBootstrap, CutSearch

_NOMINAL: Final = 0.05
_BARS: Final = 40


def cut_point_figure(
    search: CutSearch,
    bootstrap: CutBootstrap,
    *,
    value: str,
    cohort: Cohort,
    published: float | None = None,
    title: str = "",
) -> Figure:
    """Above, p against the cut, as if it had been the only one and corrected for the search; below, the bootstrap.

    value: what is cut, with its unit. published: a cut from elsewhere to mark. Permutations are needed for the honest
    curve, bootstrap draws for the lower panel; each is left out without.
    """
    refuse_unknown(cohort)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    naive, honest = COLOURS[1], COLOURS[0]
    marker = {"marker": "o", "markersize": 3.5} if len(search.cuts) <= 120 else {}
    axes.plot(search.cuts, search.naive_p, color=naive, linewidth=1.2, linestyle=(0, (5, 1.5)), **marker,
              label="naive: as if this had been the only cut")  # fmt: skip
    if len(search.maxima):
        axes.plot(search.cuts, search.honest_p, color=honest, linewidth=1.8, label="honest: corrected by permutation")
    axes.axhline(_NOMINAL, color="0.45", linewidth=0.8, linestyle=":", label="0.05")
    axes.plot([search.cut], [search.best_naive_p], "*", markersize=13, color=naive, markeredgecolor="white", zorder=5)
    axes.annotate(
        f"{search.cut:.4g}", (search.cut, search.best_naive_p), (7, -4), textcoords="offset points", ha="left",
        va="top", fontsize="small", color="0.15", fontweight="bold",
    )  # fmt: skip
    axes.set_yscale("log")
    lowest = min(search.best_naive_p, _NOMINAL)
    axes.set_ylim(max(lowest * 0.3, 1e-16), 1.6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{p:g}"))
    axes.set_ylabel("p (log-rank)")
    axes.grid(alpha=0.25)
    axes.tick_params(labelbottom=True)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    if len(bootstrap.cuts):
        if _counts(search):
            edges = np.arange(bootstrap.cuts.min() - 0.5, bootstrap.cuts.max() + 1)
        else:
            edges = np.linspace(bootstrap.cuts.min(), bootstrap.cuts.max() + 1e-12, _BARS + 1)
        shares = np.full(len(bootstrap.cuts), 100 / len(bootstrap.cuts))
        below.hist(bootstrap.cuts, edges, weights=shares, color="0.65", edgecolor="white", linewidth=0.3)
        below.axvspan(bootstrap.low, bootstrap.high, color=honest, alpha=0.12, linewidth=0, zorder=0)
        below.set_title(
            f"best cut in {len(bootstrap.cuts):,} bootstrap samples; shaded: 95 % interval, "
            f"{bootstrap.low:.4g} to {bootstrap.high:.4g}",
            loc="left", fontsize="small",
        )  # fmt: skip
    below.set(xlabel=f"cut: {value}", ylabel="samples, %")
    if _counts(search):
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    if published is not None:
        for place in (axes, below):
            place.axvline(published, color="black", linewidth=1, linestyle="-.", zorder=1,
                          label=f"published: {published:g}")  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, fontsize="small", frameon=False)
    for place in (axes, below):
        open_frame(place)
    caption(figure, cohort, *_values(search))
    return figure


def _counts(search: CutSearch) -> bool:
    return bool((search.cuts == np.round(search.cuts)).all())


def _values(search: CutSearch) -> list[str]:
    corrected = p_text(search.p_1994, "Lausen–Schumacher p")
    permuted = "" if not len(search.maxima) else f", {p_text(search.permutation_p, 'permutation p')}"
    return [
        f"{search.n:,} patients, {search.n_events:,} events, {len(search.cuts)} cuts with at least "
        f"{search.min_share:.0%} of patients on either side.",
        f"Best cut: {p_text(search.best_naive_p, 'naive p')}, {corrected}{permuted}.",
    ]
