"""The slides that training and validation see: labelled, opened once for size and µm/px, and limited to a part."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mitoray.counting.hotspot import densest_rectangle
from mitoray.errors import BadLabels, BadOption
from mitoray.slide import Rect, open_slide, options_for

log = logging.getLogger(__name__)

HPF_MM2: Final = 0.237
"""Area of one high-power field (Bertram et al. 2019, Technical Validation, after Meuten et al. 2016)."""
REFERENCE_HPF: Final = 10
"""High-power fields of the reference area around whose centre limited areas lie (Bertram et al. 2019, Table 5)."""
ASPECT: Final = 4 / 3
"""Width over height of limited areas (Bertram et al. 2019, Technical Validation)."""


@dataclass(frozen=True)
class TrainingSlide:
    """A labelled slide, or published region image. `mpp`: µm per level-0 px. Raises BadOption for an impossible area.

    area: the only part that may be sampled and judged, level-0 px; None for all of it.
    """

    slide_id: str
    uri: str
    case_id: str
    domain: str | None
    mpp: float
    width_px: int
    height_px: int
    area: Rect | None = None

    def __post_init__(self) -> None:
        part = self.sampled
        right, bottom = part.x_px + part.width_px, part.y_px + part.height_px
        inside = 0 <= part.x_px < right <= self.width_px and 0 <= part.y_px < bottom <= self.height_px
        if not inside:
            raise BadOption(
                f"Slide {self.slide_id!r}: the area {part} is empty or reaches past the {self.width_px} × "
                f"{self.height_px} px of the slide. Give a part of it, in level-0 px."
            )

    @property
    def sampled(self) -> Rect:
        """The part that may be sampled."""
        return self.area or Rect(0, 0, self.width_px, self.height_px)

    @property
    def area_mm2(self) -> float:
        """Area of that part."""
        return self.sampled.width_px * self.sampled.height_px * self.mpp**2 / 1e6


def open_training_slide(
    slide_id: str,
    uri: str,
    *,
    case_id: str | None = None,
    domain: str | None = None,
    mpp: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> TrainingSlide:
    """What training must know of a slide; reads its table of contents. A slide without case is a case of its own.

    mpp: µm per level-0 px, overrides the metadata. Errors: SlideError, as `open_slide`.
    """
    with open_slide(uri, options_for(uri, storage_options), mpp) as slide:
        return TrainingSlide(slide_id, uri, case_id or slide_id, domain, slide.mpp, slide.width_px, slide.height_px)


def is_remote(uri: str) -> bool:
    """Whether the file lies behind a network, as far as its URI tells."""
    return "://" in uri and not uri.startswith("file://")


def upper_half(slide: TrainingSlide) -> TrainingSlide:
    """The upper half of what may be sampled, to train on (Bertram et al. 2019, Technical Validation)."""
    part = slide.sampled
    return replace(slide, area=replace(part, height_px=part.height_px // 2))


def lower_half(slide: TrainingSlide) -> TrainingSlide:
    """The lower half, to validate on, with the middle row of an odd number of rows."""
    part = slide.sampled
    above = part.height_px // 2
    return replace(slide, area=replace(part, y_px=part.y_px + above, height_px=part.height_px - above))


def limited(
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    rng: np.random.Generator,
    *,
    area_mm2: float | None = None,
    n_slides: int | None = None,
) -> list[TrainingSlide]:
    """Less of each slide, or fewer slides: the ablation of Bertram et al. 2019, Technical Validation, Fig. 5 a and b.

    area_mm2: of each slide a rectangle of that area, 4:3, around the centre of its mitotically most active 10 HPF
    (`k * HPF_MM2`; 5, 10 and 50 HPF there). A pathologist chose these; here they are the rectangle that holds most
    labelled mitotic figures, or one at random where there is no figure. What would reach past the part that may be
    sampled is moved inside, and cut where it is larger. n_slides: that many, drawn at random, in the order given.
    Raises BadOption.
    """
    if n_slides is not None:
        if not 1 <= n_slides <= len(slides):
            raise BadOption(f"n_slides is {n_slides}; give 1 to {len(slides)}, the number of slides there are")
        slides = [slides[i] for i in np.sort(rng.permutation(len(slides))[:n_slides])]
    if area_mm2 is None:
        return list(slides)
    if not (np.isfinite(area_mm2) and area_mm2 > 0):
        raise BadOption(f"area_mm2 is {area_mm2}; give a positive number of mm² per slide")
    number, xy_px = slide_numbers(slides, labels), centres_px(labels)
    figures = kind_is(labels, ("mitotic_figure",)) & within_sampled(slides, number, xy_px)
    return [
        replace(slide, area=_around(slide, _most_active(slide, xy_px[figures & (number == i)], rng), area_mm2))
        for i, slide in enumerate(slides)
    ]


def _most_active(slide: TrainingSlide, figures_px: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, ...]:
    """x, y in px of the middle of the reference area."""
    found = densest_rectangle(figures_px * slide.mpp, REFERENCE_HPF * HPF_MM2, ASPECT)
    if found:
        return found.x_um / slide.mpp, found.y_um / slide.mpp
    part = slide.sampled
    x, y = rng.uniform((part.x_px, part.y_px), (part.x_px + part.width_px, part.y_px + part.height_px))
    return float(x), float(y)


def _around(slide: TrainingSlide, centre_px: tuple[float, ...], area_mm2: float) -> Rect:
    part = slide.sampled
    height_px = np.sqrt(area_mm2 * 1e6 / ASPECT) / slide.mpp
    starts, sides = [], []
    for centre, side, start, whole in (
        (centre_px[0], height_px * ASPECT, part.x_px, part.width_px),
        (centre_px[1], height_px, part.y_px, part.height_px),
    ):
        sides.append(min(max(round(side), 1), whole))
        starts.append(int(np.clip(round(centre - side / 2), start, start + whole - sides[-1])))
    return Rect(*starts, *sides)


def labels_within(slides: Sequence[TrainingSlide], labels: pa.Table) -> pa.Table:
    """The labels whose centre lies in the part of its slide that may be sampled.

    labels: schema `LABELS`; those of other slides are left out. Warns of centres outside the image, with their number.
    Raises BadLabels if these are more than half, or if no label belongs to any of the slides: then ids or resolution
    are wrong.
    """
    number, xy_px = slide_numbers(slides, labels), centres_px(labels)
    own = number >= 0
    if len(labels) and not own.any():
        raise BadLabels(
            f"None of {len(labels)} labels belongs to any of {len(slides)} slides: the labels name slides like "
            f"{labels['slide_id'][0].as_py()!r}, the slides are called like {slides[0].slide_id if slides else '-'!r}. "
            "Give both the same slide_id."
        )
    whole = [replace(slide, area=None) for slide in slides]
    outside = own & ~within_sampled(whole, number, xy_px)
    if outside.sum() > own.sum() / 2:
        worst = slides[int(np.bincount(number[outside]).argmax())]
        raise BadLabels(
            f"{outside.sum()} of {own.sum()} labels lie outside their slide, most on {worst.slide_id!r} with "
            f"{worst.width_px} × {worst.height_px} px. Check that labels and slides are of the same resolution and id."
        )
    if outside.any():
        log.warning("%d of %d labels lie outside their slide and are dropped", outside.sum(), own.sum())
    return labels.filter(pa.array(within_sampled(slides, number, xy_px)))


def slide_numbers(slides: Sequence[TrainingSlide], labels: pa.Table) -> NDArray[np.int64]:
    """The place in `slides` of each label's slide, (n,) int64, -1 for labels of other slides."""
    ids = pa.array([slide.slide_id for slide in slides], pa.string())
    found = pc.fill_null(pc.index_in(labels["slide_id"].cast(pa.string()), value_set=ids), -1)
    return np.asarray(found.to_numpy(), np.int64)


def centres_px(labels: pa.Table) -> NDArray[np.float64]:
    """Centres of the labels, (n, 2) level-0 px."""
    return np.column_stack([labels["x_px"].to_numpy(), labels["y_px"].to_numpy()])


def kind_is(labels: pa.Table, kinds: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels are of these kinds, (n,) bool."""
    return np.asarray(pc.is_in(labels["kind"].cast(pa.string()), value_set=pa.array(kinds, pa.string())).to_numpy())


def within_sampled(
    slides: Sequence[TrainingSlide], number: NDArray[np.int64], xy_px: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each of (n, 2) points of the slide `number` lies in its sampled part, (n,) bool; False for number -1."""
    inside = np.zeros(len(number), np.bool_)
    if slides:
        parts = [slide.sampled for slide in slides]
        start = np.array([(part.x_px, part.y_px) for part in parts])[number]
        side = np.array([(part.width_px, part.height_px) for part in parts])[number]
        inside = (number >= 0) & ((start <= xy_px + 0.5) & (xy_px + 0.5 < start + side)).all(axis=1)
    return inside
