"""Places patches on slides: anywhere, or so that they hold a label of a kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitoray.errors import BadLabels, BadOption
from mitoray.training.slides import TrainingSlide, centres_px, kind_is, slide_numbers, within_sampled

REASONS: Final = ("random", "mitotic_figure", "imposter")
RANDOM, FIGURE, IMPOSTER = range(3)

PLACES: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.int64(), nullable=False),
        pa.field("y_px", pa.int64(), nullable=False),
        pa.field("side_px", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Patches to read. `x_px, y_px`: top-left corner, level-0 px. `reason`: the kind of label that the patch was placed to
hold, or "random"; it may hold others as well.
"""


@dataclass(frozen=True, eq=False)
class _Targets:
    """Labels of one kind, slide by slide. xy_px: (k, 2) int64, the pixels of their centres; counts: (m,) per slide."""

    xy_px: NDArray[np.int64]
    counts: NDArray[np.int64]

    def pick(self, slide: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The pixel of a random label of each of these slides, (n, 2)."""
        first = np.cumsum(self.counts) - self.counts
        picked: NDArray[np.int64] = self.xy_px[first[slide] + rng.integers(self.counts[slide])]
        return picked


@dataclass(frozen=True, eq=False)
class Ground:
    """Where patches may lie, slide by slide: sides (m,), first and last top-left corners (m, 2), in level-0 px."""

    ids: pa.Array
    side_px: NDArray[np.int64]
    first_px: NDArray[np.int64]
    last_px: NDArray[np.int64]
    targets: Mapping[int, _Targets]

    @classmethod
    def of(cls, slides: Sequence[TrainingSlide], labels: pa.Table, n: int, patch_um: float) -> "Ground":
        """Checks what every sampler is given. Raises BadOption, BadLabels."""
        if n < 1:
            raise BadOption(f"n is {n}; ask for at least one patch")
        if not slides:
            raise BadOption("there is no slide to sample; give at least one")
        ids = [slide.slide_id for slide in slides]
        if len(set(ids)) < len(ids):
            raise BadOption("a slide_id stands for several slides; give each slide its own")
        side_px = np.array([round(patch_um / slide.mpp) if patch_um > 0 else 0 for slide in slides], np.int64)
        if side_px.min() < 1:
            raise BadOption(f"patch_um is {patch_um}; give the side of a patch in µm, at least one pixel")
        parts = [slide.sampled for slide in slides]
        first = np.array([(part.x_px, part.y_px) for part in parts], np.int64)
        extent = np.array([(part.width_px, part.height_px) for part in parts], np.int64)
        number, xy_px = slide_numbers(slides, labels), centres_px(labels)
        inside = within_sampled(slides, number, xy_px)
        targets = {}
        for kind in (FIGURE, IMPOSTER):
            rows = np.flatnonzero(inside & kind_is(labels, (REASONS[kind],)))
            rows = rows[np.argsort(number[rows], kind="stable")]
            pixels = np.floor(xy_px[rows] + 0.5).astype(np.int64)
            targets[kind] = _Targets(pixels, np.bincount(number[rows], minlength=len(slides)))
        if not len(targets[FIGURE].xy_px):
            raise without_figures(slides)
        return cls(pa.array(ids), side_px, first, first + np.maximum(extent - side_px[:, None], 0), targets)

    def counts(self, kind: int) -> NDArray[np.int64]:
        """What a slide offers of a kind, (m,) int64: its labels; of random places, one as good as another."""
        return np.ones(len(self.ids), np.int64) if kind == RANDOM else self.targets[kind].counts

    def places(self, slide: NDArray[np.int64], reason: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """A patch for each slide number and reason, (n,) int64 each, the label anywhere in it."""
        low, high = self.first_px[slide], self.last_px[slide]
        for kind, targets in self.targets.items():
            rows = np.flatnonzero(reason == kind)
            pixel = targets.pick(slide[rows], rng)
            low[rows] = np.maximum(low[rows], pixel - self.side_px[slide[rows], None] + 1)
            high[rows] = np.minimum(high[rows], pixel)
        corner = rng.integers(low, high, endpoint=True)
        names = pa.array(REASONS).take(pa.array(reason))
        columns = [self.ids.take(pa.array(slide)), corner[:, 0], corner[:, 1], self.side_px[slide], names]
        return pa.table([pa.array(column) for column in columns], schema=PLACES)


def allotted(shares: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`n` numbers in random order, each as often as its share says; what whole numbers leave over falls by chance."""
    exact = shares / shares.sum() * n
    times = np.floor(exact + 1e-9).astype(np.int64)
    left = n - int(times.sum())
    if left:
        rest = np.maximum(exact - times, 0)
        times[rng.choice(len(shares), left, replace=False, p=rest / rest.sum())] += 1
    return rng.permutation(np.repeat(np.arange(len(shares)), times))


def without_figures(slides: Sequence[TrainingSlide]) -> BadLabels:
    """The error for slides on which no mitotic figure may be sampled."""
    domains = ", ".join(sorted({slide.domain or "unknown" for slide in slides}))
    return BadLabels(
        f"None of {len(slides)} slides (domains: {domains}) has a mitotic figure where it may be sampled. Check that "
        "labels and slides have the same slide_id, that the kind is 'mitotic_figure', and the part to sample."
    )
