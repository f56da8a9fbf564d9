"""Domain matrices as heat maps, as Fig. 3 and 4 of Aubreville et al. 2023, and F1 against training area."""

import textwrap
from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter

from mitoray.errors import BadOption
from mitoray.evaluation.ablation import AreaCurve
from mitoray.evaluation.matching import FloatArray
from mitoray.evaluation.matrix import ALL, DomainMatrix, folds_text

Data = Literal["phantom", "real crops", "real slides"]

_DATA: Final[dict[str, str]] = {
    "phantom": "Data: drawn phantoms, no real tissue.",
    "real crops": "Data: crops of real slides.",
    "real slides": "Data: real whole slides.",
}

_METRICS: Final[dict[str, str]] = {
    "f1_pooled": "F1 (counts pooled over slides)",
    "f1_image_mean": "F1 (mean of slides)",
    "ap": "average precision",
}

_TITLES: Final[dict[str, str]] = {
    "single": "Trained on one domain, tested on all",
    "leave-one-out": "Trained on all domains but one, tested on all",
    "all": "Trained on all domains, tested on each",
}

_ROW_AXIS: Final[dict[str, str]] = {"single": "trained on", "leave-one-out": "trained without", "all": "trained on"}

_FRAMES: Final[dict[str, str]] = {
    "single": "Framed: tested on the trained domain.",
    "leave-one-out": "Framed: tested on the domain left out.",
}

_MAP: Final = "viridis"
"""Rises in lightness alone, so that it reads alike with and without red-green colour blindness, and in grey."""

_DIFFERENCE_MAP: Final = "PuOr"
_LARGEST_DIFFERENCE: Final = 0.3
"""Where the difference panel's scale ends, fixed so that figures can be compared."""

_CELL_INCHES: Final = 0.82
_NAME_CHARACTERS: Final = 22
_NAME_LINES: Final = 3


def matrix_figure(matrix: DomainMatrix, published: DomainMatrix | None = None, *, data: Data) -> Figure:
    """The matrix as an annotated heat map: rows trained on (or left out), columns tested on, mean and ± sd in the cell.

    published: another matrix of the same rows and columns, as `published_like` gives it; it is drawn beside, and ours
    minus it as a third panel. data: what the figure is about, said below it. The scale is 0 to 1 whatever the values;
    that of the difference is −0.3 to 0.3. Cells without a value are grey; `*` marks cells that lack folds. Raises
    BadOption for matrices that do not fit.
    """
    _refuse_unknown(data)
    panels = [("ours", matrix)] if published is None else [("ours", matrix), ("published (MIDOG++)", published)]
    if published is not None and (
        (published.row_names, published.column_names, published.protocol)
        != (matrix.row_names, matrix.column_names, matrix.protocol)
    ):
        raise BadOption("The two matrices have other rows, columns or protocols. Draw only matrices that match.")
    n_rows, n_columns = matrix.mean.shape
    n_panels = 1 if published is None else 3
    figure = Figure(
        figsize=(
            max(6.0, 2.6 + n_panels * (n_columns * _CELL_INCHES + 0.5) + 1.6 * (n_panels > 1)),
            3.0 + n_rows * 0.62,
        ),
        layout="constrained",
    )
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    scale = ScalarMappable(Normalize(0, 1), colormaps[_MAP])
    for place, (title, panel) in zip(axes, panels, strict=False):
        _panel(place, panel, _cell_lines(panel), panel.mean, scale)
        if published is not None:
            place.set_title(title, fontsize="medium")
    metric = _METRICS[matrix.metric]
    figure.colorbar(scale, ax=list(axes[: len(panels)]), label=metric, fraction=0.04, pad=0.02, aspect=30)
    if published is not None:
        difference = matrix.mean - published.mean
        limits = Normalize(-_LARGEST_DIFFERENCE, _LARGEST_DIFFERENCE)
        contrast = ScalarMappable(limits, colormaps[_DIFFERENCE_MAP])
        _panel(axes[2], matrix, _signed(difference), difference, contrast)
        axes[2].set_title("ours − published", fontsize="medium")
        figure.colorbar(contrast, ax=axes[2], label="difference", extend="both", fraction=0.08, pad=0.04)
    for place in axes[1:]:
        place.set_ylabel("")
        place.tick_params(labelleft=False)
    figure.suptitle(_TITLES[matrix.protocol], fontweight="bold")
    _caption(figure, data, f"Cells: {folds_text(matrix)}.", _FRAMES.get(matrix.protocol, ""))
    return figure


def area_figure(curve: AreaCurve, *, data: Data) -> Figure:
    """F1 against the amount of training material, mean with bars of one sd, on a logarithmic axis.

    The number of repeats stands at each point. data: what the figure is about, said below it.
    """
    _refuse_unknown(data)
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(curve.amount, curve.mean, yerr=curve.sd, marker="o", capsize=4, color=colormaps[_MAP](0.15))
    for amount, mean, bar, n in zip(curve.amount, curve.mean, np.nan_to_num(curve.sd), curve.n_repeats, strict=True):
        below = mean - bar > 0.2
        axes.annotate(
            f"{mean:.2f}\nn = {n}",
            (amount, mean - bar if below else mean + bar),
            (0, -6 if below else 6),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize="small",
        )
    unit = "annotated area per slide, HPF (0.237 mm² each)" if curve.measure == "area_hpf" else "training slides"
    axes.set(xscale="log", xlabel=unit, ylabel="F1 (mean ± sd over repeats)", ylim=(0, 1))
    axes.set_xticks(curve.amount, [f"{amount:g}" for amount in curve.amount])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.set_title("F1 against training material", fontweight="bold")
    _caption(figure, data)
    return figure


def _panel(axes: Axes, matrix: DomainMatrix, cells: list[list[str]], values: FloatArray, scale: ScalarMappable) -> None:
    """One heat map with its names, its cells' texts, and frames around the cells of the same domain."""
    axes.set_facecolor("0.85")
    axes.imshow(scale.to_rgba(np.ma.masked_invalid(values)), aspect="auto")
    for i, j in np.ndindex(values.shape):
        empty = np.isnan(values[i, j])
        ink = "black" if empty else _ink(scale.to_rgba(values[i, j]))
        axes.text(j, i, "–" if empty else cells[i][j], ha="center", va="center", fontsize=8, color=ink)
        if matrix.own_domain[i, j]:
            axes.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor=ink, linewidth=1.8))
    if ALL in matrix.row_names[1:]:
        axes.axhline(matrix.row_names.index(ALL) - 0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(matrix.column_names)), [_short(name) for name in matrix.column_names])
    axes.set_yticks(range(len(matrix.row_names)), [_short(name) for name in matrix.row_names])
    axes.tick_params(length=0, labelsize=8)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set(xlabel="tested on", ylabel=_ROW_AXIS[matrix.protocol])
    axes.spines[:].set_visible(False)


def _cell_lines(matrix: DomainMatrix) -> list[list[str]]:
    """Mean above ± sd, two decimals; a star where folds are lacking."""
    short = matrix.n_folds < matrix.folds
    return [
        [
            f"{mean:.2f}{'*' if lacking else ''}" + ("" if np.isnan(sd) else f"\n± {sd:.2f}")
            for mean, sd, lacking in zip(*line, strict=True)
        ]
        for line in zip(matrix.mean, matrix.sd, short, strict=True)
    ]


def _short(name: str) -> str:
    """A domain's name on a few lines, without what cannot be printed."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return "\n".join(textwrap.wrap(plain, _NAME_CHARACTERS, max_lines=_NAME_LINES, placeholder=" …")) or "?"


def _signed(difference: FloatArray) -> list[list[str]]:
    return [[f"{value + 0.0:+.2f}".replace("-", "−") for value in line] for line in difference.round(2)]


def _ink(colour: Iterable[float]) -> Literal["black", "white"]:
    """Black or white, whichever stands out more on a colour: above a relative luminance of 0.18 black does (WCAG 2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in list(colour)[:3])
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"


def _caption(figure: Figure, data: Data, *notes: str) -> None:
    """What the figure is from, and notes, on as many lines as its width needs."""
    text = " ".join([_DATA[data], *notes]).strip()
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * 13)), fontsize="small")


def _refuse_unknown(data: Data) -> None:
    if data not in _DATA:
        raise BadOption(f"The data {data!r} is unknown. Say what the figure is from: {', '.join(_DATA)}.")
