"""How sure a mitotic count is: two intervals that answer two questions, and are never to be mixed up.

`calibrated_interval` asks how many of the candidates in a field are figures. `sampling_interval` asks which density a
tumour has in which a field of this area holds so many. Neither says what the other does, and both together are not yet
everything: figures that are no candidate at all, the choice of the slide and the fixation are in neither.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainccinv, gammaincinv

from mitoray.errors import BadOption

LEVEL: Final = 0.90
"""Of intervals where nothing else is asked for: one in twenty lies below, one in twenty above."""

_LONG: Final = 128
"""Distributions from this length on are convolved by Fourier transforms, to 1e-15 of probability."""


@dataclass(frozen=True)
class CountInterval:
    """`low` to `high`, both included, at `level`; `expected` is the mean."""

    low: float
    high: float
    expected: float
    level: float


def count_distribution(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Probabilities (n + 1,) of 0, 1, …, n figures among n candidates with these probabilities (n,).

    The Poisson-binomial distribution, exactly, by convolving halves. Independent candidates are assumed. Raises
    BadOption for what is no probability.
    """
    p = np.asarray(probabilities, np.float64).ravel()
    if not ((p >= 0) & (p <= 1)).all():
        raise BadOption("probabilities must lie between 0 and 1; a count's interval needs calibrated scores")
    parts = list(np.column_stack([1 - p, p])) or [np.ones(1)]
    while len(parts) > 1:
        pairs = [_convolved(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    distribution: NDArray[np.float64] = parts[0] / parts[0].sum()
    return distribution


def calibrated_interval(probabilities: ArrayLike, level: float = LEVEL) -> CountInterval:
    """How many of a field's candidates are mitotic figures, given calibrated scores: the central interval.

    probabilities: (n,), of every candidate in the field that was kept, those below the threshold included: the lowest
    kept score bounds what the interval can know of. At most (1 - level) / 2 of the probability lies on either side,
    which for whole numbers makes it a little too wide. `expected` is the sum of the probabilities.

    Not in it: figures that no candidate stands for (missed, or below the lowest score kept), errors of the calibration
    itself and candidates that err together (a badly stained slide), and where the field lies. Raises BadOption.
    """
    distribution = count_distribution(probabilities)
    tail = _tail(level)
    below = np.cumsum(distribution)
    above = np.cumsum(distribution[::-1])[::-1]
    low = int(np.flatnonzero(below > tail)[0])
    high = int(np.flatnonzero(above > tail)[-1])
    return CountInterval(low, high, float(np.arange(len(distribution)) @ distribution), level)


def sampling_interval(
    count: int, counted_mm2: float = 1.0, per_mm2: float | None = None, level: float = LEVEL
) -> CountInterval:
    """Which mean count a tumour has of which one field of `counted_mm2` held `count` figures (Garwood 1936, exact).

    Figures strewn at random with one density are taken for granted (a Poisson process). Given per `per_mm2`; None: per
    field, as `count` is. Covers the tumour's mean at least with probability `level`, for a field that was laid without
    regard to the figures. For the densest field it is the interval of a field like this one, not of the tumour: the
    densest was chosen because it has many. Not in it: the detector's errors. Raises BadOption.
    """
    if count < 0 or count != int(count):
        raise BadOption(f"a count must be a whole number and not negative, not {count}")
    for name, area in (("counted_mm2", counted_mm2), ("per_mm2", counted_mm2 if per_mm2 is None else per_mm2)):
        if not (np.isfinite(area) and area > 0):
            raise BadOption(f"{name} must be a positive number of mm², not {area}")
    tail, scale = _tail(level), 1.0 if per_mm2 is None else per_mm2 / counted_mm2
    low = float(gammaincinv(count, tail)) if count else 0.0
    high = float(gammainccinv(count + 1, tail))
    return CountInterval(low * scale, high * scale, count * scale, level)


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise BadOption(f"level must lie between 0 and 1, such as 0.9, not {level}")
    return (1 - level) / 2


def _convolved(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    if min(len(a), len(b)) < _LONG:
        return np.convolve(a, b)
    from scipy.signal import fftconvolve  # a second to import, in each worker, for the few slides with so many

    product: NDArray[np.float64] = np.maximum(fftconvolve(a, b), 0.0)
    return product
