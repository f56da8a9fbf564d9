"""Atypical and normal mitotic figures: their ratio, from the figures whose subtype is clear."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from mitoray.errors import BadOption

CONFIDENCE: Final = 0.9
"""Probability that a subtype must pass, for either (Fick et al. 2024, §2.5: "p > 0.9")."""


@dataclass(frozen=True)
class Subtypes:
    """Figures by subtype; `n_unclear` passed the confidence for neither."""

    n_atypical: int
    n_normal: int
    n_unclear: int

    @property
    def ratio(self) -> float | None:
        """Atypical per normal figure (Lashen et al. 2022, Fick et al. 2024); None without any normal one."""
        return self.n_atypical / self.n_normal if self.n_normal else None

    def __add__(self, other: "Subtypes") -> "Subtypes":
        """Those of both sets of figures, as of several slides of one case."""
        return Subtypes(
            self.n_atypical + other.n_atypical, self.n_normal + other.n_normal, self.n_unclear + other.n_unclear
        )


def subtypes(atypical_probability: ArrayLike, confidence: float = CONFIDENCE) -> Subtypes | None:
    """Count atypical and normal figures among those whose subtype is clear, after Fick et al. 2024.

    atypical_probability: (n,) in [0, 1], of the figures that count, of a hotspot or a whole slide; NaN where a figure
    was not judged, which leaves it out. Atypical from above `confidence`, normal from below 1 - `confidence`. None
    where there are figures and none of them was judged: nothing told subtypes. Raises BadOption for a confidence
    outside 0.5 to 1, or what is no probability.
    """
    if not 0.5 <= confidence < 1:
        raise BadOption(f"confidence must lie from 0.5 to below 1, not {confidence}")
    p = np.asarray(atypical_probability, np.float64).ravel()
    judged = p[~np.isnan(p)]
    if not ((judged >= 0) & (judged <= 1)).all():
        raise BadOption("atypical_probability must lie between 0 and 1")
    if len(p) and not len(judged):
        return None
    n_atypical, n_normal = int((judged > confidence).sum()), int((1 - judged > confidence).sum())
    return Subtypes(n_atypical, n_normal, len(judged) - n_atypical - n_normal)
