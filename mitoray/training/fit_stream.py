"""Patches of slides, streamed to a training by Ray Data: placed here, read by actors, wherever the slides lie."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from mitoray.errors import BadOption, SlideError
from mitoray.models import Detector
from mitoray.training.detection import false_positives
from mitoray.training.feed import Batch, Sampling
from mitoray.training.patches import Patches
from mitoray.training.reading import PatchReader
from mitoray.training.sampling import with_figures
from mitoray.training.slides import TrainingSlide

log = logging.getLogger(__name__)

_VALIDATION: Final = 1_000_000
"""Stands for the number of an epoch where validation patches are drawn, which no epoch reaches."""
_BATCHES_AT_ONCE: Final = 512
"""Placed ahead in one Ray Data pipeline; starting another one takes a second or two."""
_PREFETCH: Final = 3
READER_CPUS: Final = 0.1
"""What a reading actor reserves. It uses what the training leaves, and a small cluster must have room for both."""


@dataclass(frozen=True, eq=False)
class SlideFeed:
    """Feeds a training from labelled slides on disk or in object storage; see `Feed`.

    labels: schema `LABELS`, of all slides. readers: actors per worker that read patches ahead of it.
    """

    train: tuple[TrainingSlide, ...]
    validate: tuple[TrainingSlide, ...]
    labels: pa.Table
    mpp: float
    sampling: Sampling
    batch_size: int
    seed: int = 0
    readers: int = 1
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def steps_per_epoch(self, workers: int) -> int:
        """Whole batches only, equally many for each worker; raises BadOption if there is not one."""
        steps = self.sampling.patches // (workers * self.batch_size)
        if not steps:
            raise BadOption(
                f"{self.sampling.patches} patches per epoch do not fill one batch of {self.batch_size} for each of "
                f"{workers} workers. Raise patches or lower batch_size."
            )
        return steps

    def epochs(self, first: int, last: int, rank: int, workers: int) -> Iterator[Iterable[Batch]]:
        """A worker's batches, epoch by epoch, while actors read the next ones."""
        steps = self.steps_per_epoch(workers)
        at_once = max(1, _BATCHES_AT_ONCE // steps)
        for start in range(first, last, at_once):
            stop = min(last, start + at_once)
            batches = self._stream([b for epoch in range(start, stop) for b in self._placed(epoch, rank, workers)])
            for _ in range(start, stop):
                yield islice(batches, steps)

    def validation(self) -> Patches:
        """Validation patches, read here; those that cannot be are left out."""
        rng = np.random.default_rng([self.seed, _VALIDATION])
        n = self.sampling.validation_patches
        as_they_lie = replace(self.sampling, hard_share=0.0, domain_weights=None, domain_groups=None)
        places = as_they_lie.places(self.validate, self.labels, n, self.mpp, rng)
        patches, _ = _as_batch(self._reader(self.validate).read(self._known(places, self.validate)))
        return patches

    def mine(self, detector: Detector) -> int:
        """False positives on the slides trained on become imposters; the scheme must sample these to see them.

        Every worker looks at all slides, so that all sample alike. A slide that cannot be read is left out.
        """
        found = [self.labels.slice(0, 0)]
        for slide in self.train:
            try:
                found.append(false_positives(detector, slide, self.labels, storage_options=self.storage_options))
            except SlideError as error:
                log.warning("Slide %s is not looked at for false positives: %s", slide.slide_id, error)
        mined = pa.concat_tables(found)
        object.__setattr__(self, "labels", pa.concat_tables([self.labels, mined]))
        return len(mined)

    def _placed(self, epoch: int, rank: int, workers: int) -> list[pa.Table]:
        """The worker's share of an epoch's patches, one table per batch."""
        steps = self.steps_per_epoch(workers)
        rng = np.random.default_rng([self.seed, epoch])
        places = self.sampling.places(self.train, self.labels, steps * workers * self.batch_size, self.mpp, rng)
        patches = self._known(places, self.train)
        return [patches.slice((step * workers + rank) * self.batch_size, self.batch_size) for step in range(steps)]

    def _known(self, places: pa.Table, slides: tuple[TrainingSlide, ...]) -> pa.Table:
        return with_figures(places, slides, self.labels, self.mpp)

    def _reader(self, slides: tuple[TrainingSlide, ...]) -> PatchReader:
        return PatchReader(slides, self.mpp, self.sampling.patch_px, self.storage_options)

    def _stream(self, batches: list[pa.Table]) -> Iterator[Batch]:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True  # the same patches in the same order in every attempt
        # Only numbers enter the pipeline: tables would each be looked at by a task of a whole CPU first.
        numbers = ray.data.from_items(list(range(len(batches))), override_num_blocks=len(batches))
        read = numbers.map_batches(
            _ReadActor,
            fn_constructor_args=(
                ray.put(batches),
                (self.train, self.mpp, self.sampling.patch_px, self.storage_options),
            ),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=self.readers),
            num_cpus=READER_CPUS,
        )
        for batch in read.iter_batches(batch_size=self.batch_size, batch_format="numpy", prefetch_batches=_PREFETCH):
            yield _as_batch(batch)


class _ReadActor:
    """Reads batches of patches, of slides that it keeps open."""

    def __init__(self, batches: "ray.ObjectRef[list[pa.Table]]", reader: tuple[Any, ...]) -> None:
        self._batches: list[pa.Table] = ray.get(batches)
        self._reader = PatchReader(*reader)

    def __call__(self, numbers: pa.Table) -> dict[str, np.ndarray]:
        """Columns image, figures_px, failed: a row for each patch of the batch of that number."""
        return self._reader.read(pa.concat_tables(self._batches[i] for i in numbers["item"].to_pylist()))


def _as_batch(read: Mapping[str, np.ndarray]) -> Batch:
    failed = read["failed"].astype(bool)
    images = torch.from_numpy(np.ascontiguousarray(read["image"][~failed])).permute(0, 3, 1, 2)
    return Patches(images, torch.from_numpy(read["figures_px"][~failed].astype(np.float32))), int(failed.sum())
