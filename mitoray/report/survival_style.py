"""What the figures on survival have in common: colours, and the sentence on whom they are of."""

import textwrap
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mitoray.errors import BadOption

Cohort = Literal["simulated", "phantom", "real slides", "clinical table"]

_COHORTS: Final[dict[str, str]] = {
    "simulated": "Simulated patients, invented counts.",
    "phantom": "Drawn phantoms, no real tissue.",
    "real slides": "Real patients, real whole slides.",
    "clinical table": "Real patients, no slides.",
}

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Of Okabe and Ito 2008: told apart with every kind of colour blindness."""

Dashes = str | tuple[int, tuple[float, ...]]

LINES: Final[tuple[Dashes, ...]] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))
"""So that groups are told apart without any colour."""


def refuse_unknown(cohort: Cohort) -> None:
    """Raise BadOption for a kind of cohort that has no sentence."""
    if cohort not in _COHORTS:
        raise BadOption(f"The cohort {cohort!r} is unknown. Say whom the figure is of: {', '.join(_COHORTS)}.")


def caption(figure: Figure, cohort: Cohort, *notes: str) -> None:
    """Whom the figure is of, and notes, on as many lines as its width needs."""
    text = " ".join([_COHORTS[cohort], *notes])
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * 14.5)), fontsize="small", color="0.25")


def open_frame(axes: Axes) -> None:
    """Axes to the left and below only."""
    axes.spines[["top", "right"]].set_visible(False)


def p_text(p: float, name: str = "p") -> str:
    """As journals print it: p = 0.012, p < 0.001."""
    if np.isnan(p):
        return f"{name} undefined"
    if p < 0.001:
        return f"{name} < 0.001"
    return f"{name} = {p:.3f}" if p < 0.1 else f"{name} = {p:.2f}"
