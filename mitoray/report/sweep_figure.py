"""What a search of settings found."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure


def sweep_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Best validation AP of each trial against each setting searched; hollow where a trial was stopped early.

    rows: as a sweep gives them: values (by setting), best, stopped.
    """
    judged = [row for row in rows if row["best"] is not None]
    names = list(judged[0]["values"]) if judged else []
    figure = Figure(figsize=(3.2 * max(1, len(names)), 3.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=False):
        for stopped, label in ((False, "ran to its end"), (True, "stopped early")):
            of_kind = [row for row in judged if row["stopped"] == stopped]
            values = [row["values"][name] for row in of_kind]
            axes.plot(
                [str(v) if isinstance(v, bool | str) else v for v in values],
                [row["best"] for row in of_kind],
                "o",
                markerfacecolor="none" if stopped else "C0",
                markeredgecolor="C0",
                label=label,
            )
        numbers = [row["values"][name] for row in judged if isinstance(row["values"][name], int | float)]
        if len(numbers) == len(judged) and min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            axes.set_xscale("log")
        axes.set(xlabel=name, ylim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("best validation AP")
    panels[-1].legend(fontsize="small", loc="lower right")
    return figure
