"""Feeds a classifier's training from tables of crops."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mitoray.errors import BadLabels, BadOption
from mitoray.models import Detector
from mitoray.training.crop_sampling import CropSampling, sample_figures_and_negatives, sample_subtypes
from mitoray.training.crops import CROPS, crop_images, crop_targets, read_crop_table
from mitoray.training.feed import Batch
from mitoray.training.material import held_out, shares_pixels
from mitoray.training.patches import Patches, centred

FACTS: Final = tuple(name for name in CROPS.names if name != "image")

Phase = Literal["all", "subtype"]


@dataclass(frozen=True, eq=False)
class CropFeed:
    """Feeds a training from tables of crops on disk or in object storage; see `mitoray.training.feed.Feed`.

    tables: paths or URIs of Parquet tables, as `read_crop_table` takes them; every worker holds their images in memory,
    27 MB per 1000 crops of 96 px. validate: cases that are not trained on, but validate; left_out: crops that do
    neither. patch_px: side that the network sees, at `mpp`; margin_px: what is shown around that, both sides together,
    as far as the crops go. phase: "subtype" gives the batches of the subtype head only.
    """

    tables: tuple[str, ...]
    validate: frozenset[str]
    left_out: frozenset[str]
    mpp: float
    patch_px: int
    margin_px: int
    sampling: CropSampling
    batch_size: int
    seed: int = 0
    phase: Phase = "all"
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def steps_per_epoch(self, workers: int) -> int:
        """Whole batches only, equally many for each worker; raises BadOption if there is not one."""
        size = self.batch_size if self.phase == "all" else self.sampling.subtype_batch_size
        if not (steps := self.sampling.patches // (workers * size)):
            raise BadOption(
                f"{self.sampling.patches} patches per epoch do not fill one batch of {size} for each of {workers} "
                "workers. Raise patches or lower the batch size."
            )
        return steps

    def epochs(self, first: int, last: int, rank: int, workers: int) -> Iterator[Iterable[Batch]]:
        """A worker's share of each epoch's batches."""
        for epoch in range(first, last):
            yield self._batches(epoch, rank, workers)

    @property
    def facts(self) -> pa.Table:
        """What is known of the crops that are trained on or validate: schema `CROPS` without images."""
        rows = np.concatenate([self._rows(validate=False), self._rows(validate=True)])
        return self._material[0].take(pa.array(rows))

    def validation(self) -> Patches:
        """The validation crops as they are, the uncertain ones among them without a target."""
        return self.patches(self._rows(validate=True))

    def patches(self, rows: np.ndarray) -> Patches:
        """The middles of the crops in these rows of the tables, with their targets."""
        facts, images = self._material
        chosen = torch.from_numpy(rows)
        targets = torch.from_numpy(crop_targets(facts.take(pa.array(rows))))
        return Patches(centred(images[chosen], self.patch_px).contiguous(), _middles(len(rows), self.patch_px), targets)

    def mine(self, detector: Detector) -> int:  # noqa: ARG002
        """Nothing: false positives of a detector become crops before the training."""
        return 0

    def training_images(self, most: int) -> torch.Tensor:
        """Some of the crops trained on, spread over all of them, uint8 (n, 3, s, s)."""
        rows = self._rows(validate=False)
        return self._material[1][torch.from_numpy(rows[:: max(1, len(rows) // most)])]

    def overlapping(self) -> frozenset[str]:
        """Crops of unknown slide to train on that show something of a crop that validates, as neighbours do."""
        facts, images = self._material
        unknown = np.array(facts["slide_id"].to_pylist(), object) == np.array(facts["crop_id"].to_pylist(), object)
        train, validate = (rows[unknown[rows]] for rows in (self._rows(validate=False), self._rows(validate=True)))
        seen = shares_pixels(images[torch.from_numpy(train)], images[torch.from_numpy(validate)])
        return frozenset(facts["crop_id"].take(pa.array(train[seen])).to_pylist())

    def _batches(self, epoch: int, rank: int, workers: int) -> Iterator[Batch]:
        steps, rows = self.steps_per_epoch(workers), self._rows(validate=False)
        facts = self._material[0].take(pa.array(rows))
        rng = np.random.default_rng([self.seed, epoch])
        sampling, both = self.sampling, []
        if self.phase == "all":
            size = self.batch_size
            drawn = rows[sample_figures_and_negatives(facts, steps * workers * size, rng, sampling)]
            both.append((drawn, size, 0))
        if sampling.subtype_task:
            size = sampling.subtype_batch_size
            both.append((rows[sample_subtypes(facts, steps * workers * size, rng)], size, 1))
        targets = crop_targets(self._material[0], sampling.ambiguous)
        shown = np.random.default_rng([self.seed, epoch, rank])
        for number in range(rank, steps * workers, workers):
            parts = [(drawn[number * size :][:size], task) for drawn, size, task in both]
            yield self._views(parts, targets, shown), 0

    def _views(self, parts: Sequence[tuple[np.ndarray, int]], targets: np.ndarray, rng: np.random.Generator) -> Patches:
        """Crops moved aside at random; of those drawn for one task, the other one's target is not told."""
        images = self._material[1]
        rows = np.concatenate([chosen for chosen, _ in parts])
        targets = targets[rows]
        task = np.concatenate([np.full(len(chosen), number) for chosen, number in parts])
        targets[np.arange(len(rows)), 1 - task] = np.nan
        shift_px = min(round(self.sampling.shift_um / self.mpp), (images.shape[-1] - self.patch_px) // 2)
        view_px = images.shape[-1] - 2 * shift_px
        corners = rng.integers(2 * shift_px + 1, size=(len(rows), 2))
        views = torch.stack(
            [images[i, :, y : y + view_px, x : x + view_px] for i, (x, y) in zip(rows, corners, strict=True)]
        )
        moved = shift_px - torch.from_numpy(corners).float()[:, None]
        return Patches(views, _middles(len(rows), view_px) + moved, torch.from_numpy(targets))

    def _rows(self, *, validate: bool) -> np.ndarray:
        facts = self._material[0]
        validates = np.array([case in self.validate for case in facts["case_id"].to_pylist()], bool)
        out = np.array([crop in self.left_out for crop in facts["crop_id"].to_pylist()], bool)
        return np.flatnonzero((validates == validate) & ~out)

    @cached_property
    def _material(self) -> tuple[pa.Table, torch.Tensor]:
        """All crops: what is known of them, and their images, uint8 (n, 3, s, s)."""
        side_px = self.patch_px + self.margin_px
        facts, images = [], []
        for uri in self.tables:
            crops = read_crop_table(uri, self.storage_options)
            if len(crops):
                facts.append(crops.select(list(FACTS)))
                images.append(crop_images(crops, self.mpp, side_px, self.patch_px))
        if not facts:
            raise BadLabels(f"None of {len(self.tables)} tables holds a crop. Give labelled slides or other tables.")
        side_px = min(part.shape[-1] for part in images)
        return pa.concat_tables(facts), torch.cat([centred(part, side_px) for part in images])

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: each worker reads its own."""
        return {known.name: getattr(self, known.name) for known in fields(self)}


def facts_of(tables: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> pa.Table:
    """What is known of the crops of these tables: `CROPS` without images. Raises BadLabels for an id used twice."""
    none = CROPS.empty_table().select(list(FACTS))
    facts = pa.concat_tables([none, *(read_crop_table(uri, storage_options, FACTS) for uri in tables)])
    ids = facts["crop_id"]
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids).to_pylist()
        twice = next(count["values"] for count in counts if count["counts"] > 1)
        raise BadLabels(f"Crop {twice!r} is in several tables, or twice in one. Give each table once.")
    return facts


def validation_cases(facts: pa.Table, share: float) -> frozenset[str]:
    """About a share of the cases, by their names, the same in every run and order."""
    cases = sorted(set(facts["case_id"].to_pylist()))
    return frozenset(case for case, out in zip(cases, held_out(cases, share), strict=True) if out)


def _middles(n: int, side_px: int) -> torch.Tensor:
    return torch.full((n, 1, 2), (side_px - 1) / 2)
