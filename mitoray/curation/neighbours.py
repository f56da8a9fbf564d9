"""Which labels are at odds with those of the cells that look alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadOption, TooFewCells

Score = Literal["likelihood", "share"]

_AT_ONCE: Final = 1024
_TEMPERATURE: Final = 0.07


@dataclass(frozen=True)
class Neighbours:
    """Which cells are compared, and how.

    Args:
        neighbours: cells most alike (by the cosine of their embeddings) that each is compared with.
        score: share, of neighbours of other classes, 0 to 1, which finds most where labels are wrong at random; or
            likelihood, of any other class against the own one among those neighbours, nearer ones weighing more and
            rare classes as much as frequent ones, which does not rank the rare class first.
        same_slide: whether cells of the same slide are compared; without, a slide's stain cannot speak for its labels.
    """

    neighbours: int = 20
    score: Score = "share"
    same_slide: bool = True

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise BadOption(f"neighbours must be 1 or more, not {self.neighbours}.")


def oddness(
    embeddings: NDArray[np.float32],
    codes: NDArray[np.int64],
    how: Neighbours,
    slides: NDArray[np.int64] | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float64]:
    """How much each label is at odds with its neighbours', float64 (n,); a cell is never its own neighbour.

    embeddings: (n, d) of length 1; codes: classes 0, 1, …; slides: a number of each cell's slide, for `same_slide`
    false; done: called with the number of cells done. likelihood is the logarithm of the most likely other class' odds
    against the own one: above 0, another fits better. O(n² d). Raises TooFewCells where there are fewer than
    `neighbours` others.
    """
    n, k = len(codes), how.neighbours
    counts = np.bincount(codes)
    scores = np.empty(n)
    for first in range(0, n, _AT_ONCE):
        rows = np.arange(first, min(first + _AT_ONCE, n))
        alike = embeddings[rows] @ embeddings.T
        alike[np.arange(len(rows)), rows] = -np.inf
        if not how.same_slide and slides is not None:
            alike[slides[rows][:, None] == slides[None]] = -np.inf
        if (fewest := int(np.isfinite(alike).sum(1).min())) < k:
            where = "" if how.same_slide else " of other slides"
            raise TooFewCells(
                f"A cell has {fewest} others{where} to be compared with, not {k}. Ask for fewer neighbours, or give "
                "more cells."
            )
        nearest = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        cosine = np.take_along_axis(alike, nearest, axis=1).astype(np.float64)
        of_other = codes[nearest]
        if how.score == "share":
            # Of equal shares, the one whose neighbours are nearer goes first.
            scores[rows] = (of_other != codes[rows][:, None]).mean(1) + 1e-6 * cosine.mean(1)
        else:
            scores[rows] = _log_odds(cosine, of_other, codes[rows], counts)
        done(len(rows))
    return scores


def _log_odds(
    cosine: NDArray[np.float64], of_other: NDArray[np.int64], own: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log of the odds of the best other class against the own, each class' weight by the number of its other cells."""
    weight = np.exp((cosine - cosine.max(1, keepdims=True)) / _TEMPERATURE)
    at = np.arange(len(own))
    mass = np.stack([(weight * (of_other == code)).sum(1) for code in range(len(counts))], axis=1)
    others = np.tile(counts, (len(own), 1))
    others[at, own] -= 1
    # Half a neighbour spread over all classes keeps the odds finite.
    density = (mass + 0.5 / len(counts)) / np.maximum(others, 1)
    mine = density[at, own].copy()
    density[at, own] = 0
    odds: NDArray[np.float64] = np.log(density.max(1) / mine)
    return odds


def ranked(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells by how much they are at odds, most first; ties in their order."""
    return np.argsort(-scores, kind="stable")
