"""Cuts crops out of many labelled slides at once, each written as soon as it is whole."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from mitoray.errors import SlideError
from mitoray.models import load_bundle
from mitoray.models.placement import KEEP_MEMORY
from mitoray.storage import Folder, file_stem
from mitoray.training.crop_extraction import Extraction, slide_crops
from mitoray.training.fit import Placement
from mitoray.training.slides import TrainingSlide

log = logging.getLogger(__name__)

FOLDER: Final = "crops"
_DONE: Final = pa.schema([("item", pa.int64()), ("error", pa.string())])


def extract_crops(
    folder: Folder,
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    extraction: Extraction,
    placement: Placement,
    *,
    mpp: float,
    side_px: int,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    on_slide: Callable[[], object] = lambda: None,
) -> tuple[list[str], dict[str, str]]:
    """Write `crops/SLIDE.parquet` (schema `CROPS`) for each slide that has none yet, in the folder.

    Returns the URIs of the tables, and why other slides gave none, by slide_id. on_slide: called after each slide.
    """
    there = set(folder.names(FOLDER, ".parquet"))
    to_do = [slide for slide in slides if _name(slide) not in there]
    failed: dict[str, str] = {}
    for _ in range(len(slides) - len(to_do)):
        on_slide()
    if to_do:
        work = (folder, to_do, labels, extraction, mpp, side_px, seed, placement.threads, storage_options)
        for number, error in _worked(work, len(to_do), placement, bool(extraction.detector)):
            on_slide()
            if error:
                failed[to_do[number].slide_id] = error
                log.warning("Slide %s gives no crops: %s", to_do[number].slide_id, error)
    return [f"{folder.uri}/{_name(slide)}" for slide in slides if slide.slide_id not in failed], failed


def _worked(work: Any, n: int, placement: Placement, detects: bool) -> Iterator[tuple[int, str | None]]:
    """The number of each slide as it is done, and what went wrong."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    numbers = ray.data.from_items(list(range(n)), override_num_blocks=n)
    mapped = numbers.map_batches(
        _CropActor,
        fn_constructor_args=(ray.put(work),),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(placement.workers, n)),
        num_cpus=placement.num_cpus,
        num_gpus=1 if placement.use_gpu and detects else 0,
        runtime_env={"env_vars": KEEP_MEMORY},
    )
    for table in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in table.to_pylist():  # type: ignore[union-attr]
            yield row["item"], row["error"]


class _CropActor:
    """Holds a detector, where one is to be mined, and cuts slide by slide."""

    def __init__(self, work: Any) -> None:
        self._folder, self._slides, self._labels, self._extraction, mpp, side_px, seed, threads, options = ray.get(work)
        torch.set_num_threads(threads)
        self._options: dict[str, Any] = {"mpp": mpp, "side_px": side_px, "seed": seed, "storage_options": options}
        if self._extraction.detector:
            device = "cuda" if ray.get_gpu_ids() else "cpu"
            self._options["detector"] = load_bundle(self._extraction.detector, options).detector(device, threads)

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        """For each slide its number, and what went wrong; the crops are written here."""
        for number in numbers["item"].to_pylist():
            slide, error = self._slides[number], None
            try:
                crops = slide_crops(slide, self._labels, self._extraction, **self._options)
                self._folder.write_table(_name(slide), crops)
            except SlideError as raised:
                error = f"{type(raised).__name__}: {raised}"
            yield pa.Table.from_pylist([{"item": number, "error": error}], schema=_DONE)


def _name(slide: TrainingSlide) -> str:
    return f"{FOLDER}/{file_stem(slide.slide_id)}.parquet"
