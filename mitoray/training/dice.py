"""Throws of dice, one per image."""

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float]
"""Lowest and highest value."""


def chosen(rng: np.random.Generator, n: int, probability: float) -> NDArray[np.int64]:
    """Which of `n` images are changed, each with that probability."""
    return np.flatnonzero(rng.random(n) < probability)


def uniform_or(
    neutral: float, rng: np.random.Generator, n: int, probability: float, span: Span, columns: int = 1
) -> NDArray[np.float64]:
    """(n, columns): each row from the span with that probability, or else all `neutral`.

    The dice are thrown for every row, so that a probability does not move the dice of what comes after.
    """
    hit = rng.random((n, 1)) < probability
    return np.where(hit, rng.uniform(*span, (n, columns)), neutral)
