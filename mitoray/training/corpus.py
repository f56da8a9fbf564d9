"""The labelled slides of a training: opened, split into parts, and their colours measured."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mitoray.errors import BadLabels, SlideError
from mitoray.models import Normalisation
from mitoray.training.feed import Sampling
from mitoray.training.normalisation import tissue_statistics
from mitoray.training.protocols import LabelledSlide
from mitoray.training.reading import PatchReader
from mitoray.training.sampling import with_figures
from mitoray.training.slides import TrainingSlide, labels_within, lower_half, open_training_slide, upper_half

log = logging.getLogger(__name__)

_OPENED_AT_ONCE: Final = 16
_STATISTICS_PATCHES: Final = 128
_STATISTICS_SEED: Final = 17


class Source(Protocol):
    """A slide as a manifest names it; `error` says why it cannot be taken."""

    @property
    def slide_id(self) -> str: ...  # noqa: D102
    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def case_id(self) -> str | None: ...  # noqa: D102
    @property
    def domain(self) -> str | None: ...  # noqa: D102
    @property
    def mpp(self) -> float | None: ...  # noqa: D102
    @property
    def error(self) -> SlideError | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labelled slides (labels: schema `LABELS`), and why others of the manifest could not be opened, by slide_id."""

    slides: tuple[TrainingSlide, ...]
    labels: pa.Table
    failed: Mapping[str, str]

    def of(self, slide_ids: Iterable[str]) -> tuple[TrainingSlide, ...]:
        """The slides of these ids that could be opened."""
        wanted = frozenset(slide_ids)
        return tuple(slide for slide in self.slides if slide.slide_id in wanted)

    def figures(self) -> dict[str, int]:
        """Mitotic figures on each slide."""
        figures = dict.fromkeys((slide.slide_id for slide in self.slides), 0)
        for slide_id in self.labels.filter(pc.equal(self.labels["kind"], "mitotic_figure"))["slide_id"].to_pylist():
            figures[slide_id] += 1
        return figures

    def labelled(self, splits: Mapping[str, str | None]) -> list[LabelledSlide]:
        """The slides as an experiment is planned with them. Raises BadLabels for a slide without a domain."""
        if unnamed := [slide.slide_id for slide in self.slides if slide.domain is None]:
            raise BadLabels(f"Slide {unnamed[0]!r} has no domain in the manifest. Fill the column domain.")
        figures = self.figures()
        return [
            LabelledSlide(s.slide_id, s.case_id, s.domain or "", splits.get(s.slide_id), figures[s.slide_id])
            for s in self.slides
        ]


def open_corpus(
    sources: Iterable[Source],
    labels: pa.Table,
    storage_options: Mapping[str, Any] | None = None,
    opened: Callable[[], object] = lambda: None,
) -> Corpus:
    """Open the slides of a manifest, several at once; one that fails is left out, named, and warned of.

    opened: called after each slide. Raises BadLabels if none can be opened, or if labels and slides do not fit.
    """

    def attempt(source: Source) -> TrainingSlide | str:
        try:
            if source.error:
                raise source.error
            return open_training_slide(
                source.slide_id,
                source.uri,
                case_id=source.case_id,
                domain=source.domain,
                mpp=source.mpp,
                storage_options=storage_options,
            )
        except SlideError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            opened()

    given = list(sources)
    with ThreadPoolExecutor(_OPENED_AT_ONCE, thread_name_prefix="open") as pool:
        found = dict(zip((source.slide_id for source in given), pool.map(attempt, given), strict=True))
    failed = {slide_id: result for slide_id, result in found.items() if isinstance(result, str)}
    slides = tuple(result for result in found.values() if isinstance(result, TrainingSlide))
    for slide_id, error in failed.items():
        log.warning("Slide %s is left out: %s", slide_id, error)
    if not slides:
        first = next((f"; the first, {slide_id}: {error}" for slide_id, error in failed.items()), "")
        raise BadLabels(f"None of {len(given)} slides could be opened. Correct the column uri of the manifest{first}")
    return Corpus(slides, labels_within(slides, labels), failed)


def parted(
    corpus: Corpus, how: Literal["cases", "halves"], splits: Mapping[str, str | None], share: float, seed: int
) -> tuple[tuple[TrainingSlide, ...], tuple[TrainingSlide, ...]]:
    """The slides that train and those that validate.

    how: "halves" trains on the upper half of each slide and validates on the lower one (Bertram et al. 2019); "cases"
    validates on the cases whose split is "validation", or, where there are none, on a share of each domain's cases.
    Slides whose split is "test" do neither. Raises BadLabels if either part would hold no mitotic figure, or a case
    falls into two.
    """
    _refuse_divided(corpus.slides, splits)
    known = corpus.of(s.slide_id for s in corpus.slides if splits.get(s.slide_id) != "test")
    if how == "halves":
        train, validate = tuple(map(upper_half, known)), tuple(map(lower_half, known))
    else:
        chosen = {s.slide_id for s in known if splits.get(s.slide_id) == "validation"}
        chosen = chosen or _drawn(known, corpus.figures(), share, seed)
        train = tuple(s for s in known if s.slide_id not in chosen)
        validate = tuple(s for s in known if s.slide_id in chosen)
    for purpose, part in (("train", train), ("validate", validate)):
        ids = pa.array([slide.slide_id for slide in part], pa.string())
        held = labels_within(part, corpus.labels.filter(pc.is_in(corpus.labels["slide_id"], value_set=ids)))
        if not pc.sum(pc.equal(held["kind"], "mitotic_figure")).as_py():
            raise BadLabels(
                f"The {len(part)} slides to {purpose} hold no mitotic figure. Add labelled cases, or choose another "
                "validation share or seed."
            )
    return train, validate


def _refuse_divided(slides: Sequence[TrainingSlide], splits: Mapping[str, str | None]) -> None:
    part_of_case: dict[str, str] = {}
    for slide in slides:
        part = splits.get(slide.slide_id) or "no part"
        if part_of_case.setdefault(slide.case_id, part) != part:
            raise BadLabels(
                f"Case {slide.case_id!r} has slides in {part_of_case[slide.case_id]} and in {part}. Keep cases whole."
            )


def _drawn(slides: Sequence[TrainingSlide], figures: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Slides of a share of each domain's cases, at least one where there are two, evenly over mitotic activity."""
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for domain in sorted({slide.domain or "" for slide in slides}):
        of_case: dict[str, int] = {}
        for slide in slides:
            if (slide.domain or "") == domain:
                of_case[slide.case_id] = of_case.get(slide.case_id, 0) + figures[slide.slide_id]
        ranked = sorted(of_case, key=lambda case: (of_case[case], case))
        n = min(max(1, round(share * len(ranked))), len(ranked) - 1)
        chosen |= {part[rng.integers(len(part))] for part in np.array_split(ranked, n) if n} if n else set()
    return {slide.slide_id for slide in slides if slide.case_id in chosen}


def normalisation_of(
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    sampling: Sampling,
    mpp: float,
    storage_options: Mapping[str, Any] | None = None,
) -> Normalisation:
    """Mean and standard deviation of the tissue that is trained on, from patches drawn as for training."""
    rng = np.random.default_rng(_STATISTICS_SEED)
    places = sampling.places(slides, labels, _STATISTICS_PATCHES, mpp, rng)
    reader = PatchReader(slides, mpp, sampling.patch_px, storage_options)

    def images() -> Iterable[torch.Tensor]:
        for start in range(0, len(places), 8):
            read = reader.read(with_figures(places.slice(start, 8), slides, labels, mpp))
            yield torch.from_numpy(read["image"][~read["failed"]]).permute(0, 3, 1, 2)

    return tissue_statistics(images())
