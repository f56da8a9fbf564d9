"""Detectors that look at the part of the cases that they were not trained on (Aubreville et al. 2020: ODAEL)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from mitoray.curation.missed import of_slides
from mitoray.models import load_bundle
from mitoray.storage import Folder
from mitoray.training.adaptation import network_of
from mitoray.training.corpus import Corpus, parted
from mitoray.training.experiments import Experiment, run_experiments
from mitoray.training.fit import Placement, Scaling
from mitoray.training.fit_judge import detect_slides
from mitoray.training.slides import TrainingSlide
from mitoray.training_jobs import Material, Prepared, area_rows, assembled, seeded


def part_trainings(
    material: Material,
    prepared: Prepared,
    parts: Sequence[tuple[TrainingSlide, ...]],
    how: Sequence[Any],
    scaling: Scaling,
    validation_share: float,
) -> list[Experiment]:
    """A training, called part-0 and so on, on all parts but one, for each; a share of the cases that train validates.

    how: Model, Sampling, Fitting and Augmentation. Raises BadLabels, BadOption.
    """
    model, sampling, fitting, augmentation = how
    labels, made = prepared.corpus.labels, []
    for number, held in enumerate(parts):
        others = tuple(slide for part in parts if part is not held for slide in part)
        own = Corpus(others, of_slides(labels, [slide.slide_id for slide in others]), {})
        train, validate = parted(own, "cases", {}, validation_share, fitting.seed)
        training = assembled(material, prepared, train, validate, model, sampling, fitting, augmentation, scaling)
        made.append(
            Experiment(
                f"part-{number}",
                seeded(training, fitting.seed + number),
                labels,
                validate,
                held,
                partial(area_rows, part=number),
                prepared.origin(material, ("Trained to find missed figures in other cases.",)),
                prepared.data,
                {"part": number},
            )
        )
    return made


def trained(
    made: Sequence[Experiment],
    output: Path,
    placement: Placement,
    at_once: int,
    max_failures: int,
    storage_options: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Train what is not trained yet; why others failed, by part."""
    with tqdm(total=len(made), desc="training", unit="part", disable=None) as bar:
        return run_experiments(
            made,
            output,
            placement,
            at_once=at_once,
            max_failures=max_failures,
            storage_options=storage_options,
            done=lambda _: bar.update(),
        )


def kept_detections(
    folder: Folder,
    number: int,
    uri: str,
    part: Sequence[TrainingSlide],
    placement: Placement,
    storage_options: Mapping[str, Any] | None,
) -> tuple[pa.Table, Mapping[str, str]]:
    """Detections of the bundle at `uri` on a part, and why slides could not be read.

    Those of a part that was read whole are kept in `folder`, and found there the next time.
    """
    file = f"detections/part-{number}.parquet"
    if folder.exists(file):
        return folder.read_table(file), {}
    bundle = load_bundle(uri, storage_options)
    found = detect_slides(network_of(bundle), bundle.weights, part, placement, storage_options)
    if not found.failed:
        folder.write_table(file, found.detections)
    return found.detections, found.failed
