"""How far scores are from probabilities, before and after calibration."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mitoray.errors import BadOption
from mitoray.evaluation.calibration import Reliability
from mitoray.report.matrix_figure import Data

_DATA: Final[dict[str, str]] = {
    "phantom": "drawn phantoms, no real tissue",
    "real crops": "crops of real slides",
    "real slides": "real whole slides",
}


def reliability_figure(before: Reliability, after: Reliability | None, *, data: Data, part: str) -> Figure:
    """Share of true candidates against their probability, and below it how many candidates there are.

    after: of the same candidates, calibrated; None where nothing was. part: which candidates these are, such as "not
    searched". Raises BadOption for data that is not known.
    """
    if data not in _DATA:
        raise BadOption(f"The data {data!r} is unknown. Say what the figure is from: {', '.join(_DATA)}.")
    curves = [("not calibrated", before)] + ([] if after is None else [("calibrated", after)])
    figure = Figure(figsize=(1 + 3.5 * len(curves), 5), layout="constrained")
    panels = figure.subplots(2, len(curves), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
    for column, (title, curve) in enumerate(curves):
        _draw(panels[0, column], panels[1, column], curve)
        panels[0, column].set_title(f"{title}: ECE {curve.error:.3f}")
    panels[0, 0].set_ylabel("share that is true")
    panels[1, 0].set_ylabel("candidates")
    figure.supxlabel(
        f"score. {before.count.sum():,} candidates, {part}. Data: {_DATA[data]}.", fontsize="medium", wrap=True
    )
    return figure


def _draw(curve_axes: Axes, count_axes: Axes, curve: Reliability) -> None:
    bins = len(curve.count)
    filled = curve.count > 0
    curve_axes.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1, label="as a probability should")
    # An area as large as the bin's share: a few candidates far from the diagonal weigh little.
    curve_axes.plot(curve.mean_probability[filled], curve.share_true[filled], color="C0", linewidth=1)
    area = 10 + 110 * curve.count[filled] / max(1, int(curve.count.max()))
    curve_axes.scatter(curve.mean_probability[filled], curve.share_true[filled], s=area, color="C0", zorder=3)
    curve_axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    curve_axes.grid(alpha=0.3)
    curve_axes.legend(fontsize="small", loc="upper left")
    count_axes.bar((np.arange(bins) + 0.5) / bins, curve.count, width=0.9 / bins, color="0.5")
    count_axes.set_yscale("symlog", linthresh=1)
    count_axes.set_ylim(bottom=0)
