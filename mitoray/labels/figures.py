"""Label tables drawn."""

import math

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

_COLUMNS = 3
_BINS = 20


def draw_counts_per_case(counts: pa.Table, by: str = "domain") -> Figure:
    """Histograms of the mitotic figures per case, a panel per group, as Fig. 2 of Aubreville et al. 2023.

    counts: schema `COUNTS`. by: the column that makes a group. The dashed line is the group's median.
    """
    values, figures = counts[by].to_pylist(), counts["mitotic_figure"].to_numpy()
    groups = list(dict.fromkeys(values))
    rows = math.ceil(len(groups) / _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False).ravel()
    bins = np.linspace(0, max(int(figures.max(initial=0)), 1), _BINS + 1)
    for panel, group in zip(panels, groups, strict=False):
        numbers = figures[[value == group for value in values]]
        panel.tick_params(labelbottom=True)
        panel.hist(numbers, bins=bins, color="#4477aa")
        panel.axvline(float(np.median(numbers)), color="black", linestyle="dashed", linewidth=1)
        panel.set_title(f"{group or 'unknown'} ({len(numbers)} cases)", fontsize=9, wrap=True)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.supxlabel("mitotic figures per case")
    figure.supylabel("cases")
    return figure
