"""The distribution of mitotic counts by domain, laid out for an SVG whose x are per cent of its width."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

NO_DOMAIN: Final = "no domain given"

_LINEAR_UP_TO: Final = 60
_TICKS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_EDGE: Final = 2.0
_DOT_SHARE: Final = 1.6
"""Per cent of the width within which two dots would cover each other."""
_LAYER_PX: Final = 5.0
_MOST_LAYERS: Final = 5


@dataclass(frozen=True)
class Dot:
    """One slide: x in per cent, y in px from the strip's middle."""

    x: float
    y: float


@dataclass(frozen=True)
class DomainCounts:
    """Counts of one domain's slides: least, quartiles, most, and the same as x in per cent; a dot per slide."""

    domain: str
    n_slides: int
    least: float
    first_quartile: float
    median: float
    third_quartile: float
    most: float
    box: tuple[float, float, float]
    dots: tuple[Dot, ...]

    @property
    def told(self) -> str:
        """The strip in words."""
        slides = "1 slide" if self.n_slides == 1 else f"{self.n_slides} slides"
        return (
            f"{self.domain}: {slides}, median {self.median:g}, quartiles {self.first_quartile:g} to "
            f"{self.third_quartile:g}, range {self.least:g} to {self.most:g}"
        )


@dataclass(frozen=True)
class Distribution:
    """All domains, on one scale. ticks: (count, x in per cent). logarithmic: of one plus the count."""

    domains: tuple[DomainCounts, ...]
    ticks: tuple[tuple[int, float], ...]
    logarithmic: bool


def distribution(rows: Sequence[Mapping[str, Any]]) -> Distribution:
    """The counts of the slides that have one, domains by their medians, highest first."""
    by_domain: dict[str, list[float]] = {}
    for row in rows:
        if row["mitotic_count"] is not None:
            by_domain.setdefault(row["domain"] or NO_DOMAIN, []).append(row["mitotic_count"])
    top = max((max(counts) for counts in by_domain.values()), default=0)
    scale = Scale(top)
    domains = [_domain(name, np.sort(counts), scale) for name, counts in by_domain.items()]
    domains.sort(key=lambda one: (-one.median, one.domain))
    return Distribution(tuple(domains), scale.ticks, scale.logarithmic)


@dataclass(frozen=True)
class Scale:
    """From counts to per cent of a width: as they are up to 60, logarithmic beyond, where few slides have most."""

    top: float

    @property
    def logarithmic(self) -> bool:
        """Whether x goes with the logarithm of one plus the count."""
        return self.top > _LINEAR_UP_TO

    def x(self, count: float) -> float:
        """Per cent."""
        top = max(self.top, 1)
        share = math.log1p(count) / math.log1p(top) if self.logarithmic else count / top
        return round(_EDGE + (100 - 2 * _EDGE) * share, 2)

    @property
    def ticks(self) -> tuple[tuple[int, float], ...]:
        """Counts to write below, and where."""
        if self.logarithmic:
            return tuple((tick, self.x(tick)) for tick in _TICKS if tick <= self.top)
        step = next(step for step in (1, 2, 5, 10, 20) if max(self.top, 1) / step <= 6)
        return tuple((tick, self.x(tick)) for tick in range(0, int(max(self.top, 1)) + 1, step))


def _domain(name: str, counts: Any, scale: Scale) -> DomainCounts:
    first, median, third = (float(value) for value in np.percentile(counts, [25, 50, 75]))
    return DomainCounts(
        domain=name,
        n_slides=len(counts),
        least=float(counts[0]),
        first_quartile=first,
        median=median,
        third_quartile=third,
        most=float(counts[-1]),
        box=(scale.x(first), scale.x(median), scale.x(third)),
        dots=_stacked([scale.x(float(count)) for count in counts]),
    )


def _stacked(places: Sequence[float]) -> tuple[Dot, ...]:
    """Dots at these x, those that would cover each other above and below the middle in turn, in a few layers."""
    dots: list[Dot] = []
    layer, since = 0, -math.inf
    for x in places:
        layer, since = (layer + 1, since) if x - since < _DOT_SHARE else (0, x)
        step = layer % _MOST_LAYERS
        dots.append(Dot(x, _LAYER_PX * math.ceil(step / 2) * (1 if step % 2 else -1)))
    return tuple(dots)
