"""Detects on whole labelled slides with a trained network, many at once, and makes the network a bundle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from mitoray.errors import SlideError, TrainingFailed
from mitoray.evaluation.cohort import EvaluatedSlide, MatchedCohort, match_cohort
from mitoray.evaluation.curves import average_precision, sweep
from mitoray.evaluation.thresholds import best_threshold
from mitoray.models import Bundle, Detector, Metric
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.placement import KEEP_MEMORY
from mitoray.training.detection import DETECTIONS, detect_slide
from mitoray.training.fit import Fitted, Network, Placement
from mitoray.training.slides import TrainingSlide, labels_within

Data = Literal["phantom", "real slides"]


@dataclass(frozen=True, eq=False)
class Detected:
    """Detections (schema `DETECTIONS`) on slides, and why others of them could not be read, by slide_id."""

    slides: tuple[TrainingSlide, ...]
    detections: pa.Table
    failed: Mapping[str, str]

    def matched(self, labels: pa.Table) -> MatchedCohort:
        """Matched one to one with the mitotic figures of the parts of the slides that are judged."""
        judged = [EvaluatedSlide(s.slide_id, s.mpp, s.domain, s.area_mm2) for s in self.slides]
        return match_cohort(self.detections, labels_within(self.slides, labels), judged)


def detect_slides(
    network: Network,
    weights: Mapping[str, torch.Tensor],
    slides: Sequence[TrainingSlide],
    placement: Placement,
    storage_options: Mapping[str, Any] | None = None,
) -> Detected:
    """Detections on all slides, by as many actors as workers trained. A slide that cannot be read is left out."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    numbers = ray.data.from_items(list(range(len(slides))), override_num_blocks=len(slides))
    work = (replace(network, initial=weights), tuple(slides), placement.threads, storage_options)
    mapped = numbers.map_batches(
        _DetectActor,
        fn_constructor_args=(ray.put(work),),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(placement.workers, len(slides))),
        num_cpus=placement.num_cpus,
        num_gpus=1 if placement.use_gpu else 0,
        runtime_env={"env_vars": KEEP_MEMORY},
    )
    tables = [DETECTIONS.empty_table()]
    failed: dict[str, str] = {}
    for table in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in table.to_pylist():  # type: ignore[union-attr]
            tables.append(pa.Table.from_pylist(row["detections"], schema=DETECTIONS))
            if row["error"]:
                failed[slides[row["item"]].slide_id] = row["error"]
    kept = tuple(slide for slide in slides if slide.slide_id not in failed)
    if not kept:
        raise TrainingFailed(f"None of {len(slides)} slides could be read to judge the model: {failed}.")
    return Detected(kept, pa.concat_tables(tables), failed)


class _DetectActor:
    """Holds a trained network and detects slide by slide."""

    def __init__(self, work: Any) -> None:
        network, self._slides, threads, self._storage_options = ray.get(work)
        torch.set_num_threads(threads)
        module = built(network.architecture, network.settings)
        module.load_state_dict(dict(network.initial))
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        self._detector: Detector = network.detector(module, device)

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        """For each slide its number, its detections, and what went wrong."""
        for number in numbers["item"].to_pylist():
            error, found = None, DETECTIONS.empty_table()
            try:
                found = detect_slide(self._detector, self._slides[number], storage_options=self._storage_options)
            except SlideError as raised:
                error = f"{type(raised).__name__}: {raised}"
            row = {"item": number, "error": error, "detections": found.to_pylist()}
            yield pa.Table.from_pylist([row], schema=_FOUND)


_FOUND = pa.schema(
    [("item", pa.int64()), ("error", pa.string()), ("detections", pa.list_(pa.struct(list(DETECTIONS))))]
)


def as_bundle(
    network: Network, fitted: Fitted, validation: MatchedCohort, *, name: str, origin: Origin, data: Data
) -> Bundle:
    """The trained network with the threshold of the best pooled F1 on the validation slides, which flatters that F1.

    A network that detects nothing there gets the threshold 1.
    """
    counts = sweep(validation.matchings)
    best = best_threshold(counts)
    threshold = min(1.0, max(0.0, best.threshold)) if best else 1.0
    figures = {
        "F1 on the validation slides, at the threshold that is best there": best.f1 if best else 0.0,
        "AP on the validation slides": average_precision(counts),
    }
    return Bundle(
        name=name,
        architecture=network.architecture,
        settings=dict(network.settings),
        mpp=network.mpp,
        threshold=round(threshold, 6),
        thresholds={},
        normalisation=network.normalisation,
        training=origin,
        metrics=tuple(Metric(name=k, value=round(float(v), 4), data=data) for k, v in figures.items()),
        weights=fitted.weights,
    )
