"""Pairs of original and rescan, registered and looked at in Ray tasks; what is done is kept, and found again."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from mitoray.curation.registration import Registration
from mitoray.curation.registration_slides import Registering, register_slides
from mitoray.curation.rescan_pictures import examples_sheet, overlay, registration_picture, some_of
from mitoray.curation.rescans import carried, labels_of
from mitoray.curation_jobs import slide_scores
from mitoray.errors import SlideError
from mitoray.scoring.tasks import in_tasks
from mitoray.slide import open_slide, options_for
from mitoray.slide.reader import Slide
from mitoray.storage import Folder, file_stem
from mitoray.training.slides import TrainingSlide

REGISTRATIONS: Final = "registrations"
PICTURES: Final = "pictures"
SCORES: Final = "scores"
_CACHE_BYTES: Final = 128 << 20
_EXAMPLES: Final = 18
"""Of each state, on a sheet."""

Pair = tuple[TrainingSlide, TrainingSlide]
"""An original and a rescan of it."""


def registered(
    pairs: Sequence[Pair],
    labels: pa.Table,
    how: Registering,
    folder: Folder,
    storage_options: Mapping[str, Any] | None,
) -> tuple[dict[str, Registration], dict[str, str]]:
    """The registration by the rescan's slide_id, and why others could not be had. Those in the folder are not redone.

    Writes `registrations/<rescan>.json` and a picture of each.
    """
    found: dict[str, Registration] = {}
    failed: dict[str, str] = {}
    work = []
    for original, rescan in pairs:
        file = f"{REGISTRATIONS}/{file_stem(rescan.slide_id)}.json"
        if folder.exists(file):
            found[rescan.slide_id] = Registration.from_json(folder.read_json(file))
        else:
            work.append((original, rescan, labels_of(labels, original.slide_id)[1]))
    one = partial(_registered, how=how, storage_options=storage_options)
    with tqdm(total=len(pairs), initial=len(found), desc="registering", unit="rescan", disable=None) as bar:
        for slide_id, registration, picture, error in in_tasks(one, work):
            bar.update()
            if registration is None:
                failed[slide_id] = error or "nothing was found"
                continue
            stem = file_stem(slide_id)
            folder.write_bytes(f"{PICTURES}/{stem}-registration.png", picture)
            folder.write_json(f"{REGISTRATIONS}/{stem}.json", registration.to_json())
            found[slide_id] = registration
    return found, failed


def _registered(
    work: tuple[TrainingSlide, TrainingSlide, Any], how: Registering, storage_options: Mapping[str, Any] | None
) -> tuple[str, Registration | None, bytes, str | None]:
    original, rescan, near = work
    try:
        with _opened(original, storage_options) as one, _opened(rescan, storage_options) as other:
            found = register_slides(one, other, how, near)
            title = f"{original.slide_id} and its rescan {rescan.slide_id}"
            picture = registration_picture(*overlay(one, other, found), found, title)
    except SlideError as error:
        return rescan.slide_id, None, b"", f"{type(error).__name__}: {error}"
    return rescan.slide_id, found, picture, None


def all_carried(pairs: Sequence[Pair], labels: pa.Table, found: Mapping[str, Registration]) -> pa.Table:
    """Schema `CARRIED`, of all rescans that were registered."""
    return pa.concat_tables(
        carried(labels, original.slide_id, rescan.slide_id, found[rescan.slide_id])
        for original, rescan in pairs
        if rescan.slide_id in found
    )


def ensemble_scores(
    places: pa.Table,
    slides: Sequence[TrainingSlide],
    classifiers: Mapping[str, str],
    folder: Folder,
    storage_options: Mapping[str, Any] | None,
) -> tuple[dict[int, float], dict[str, str]]:
    """The mean score of the classifiers by row number of `places`, and why slides could not be read.

    classifiers: digest by URI. Scores of a slide are kept in the folder, and not computed again.
    """
    ids = np.array(places["slide_id"].to_pylist(), object)
    sums, failed = np.zeros(len(places)), {}
    for uri, digest in classifiers.items():
        left = []
        for slide in slides:
            file = _scores_file(digest, slide.slide_id)
            if folder.exists(file):
                sums[ids == slide.slide_id] += folder.read_table(file)["score"].to_numpy()
            elif (ids == slide.slide_id).any():
                left.append(slide)
        for slide_id, scores, error in slide_scores(places, left, uri, digest, storage_options):
            if error:
                failed[slide_id] = error
                continue
            own = np.array([scores[row] for row in np.flatnonzero(ids == slide_id).tolist()])
            folder.write_table(_scores_file(digest, slide_id), pa.table({"score": own}))
            sums[ids == slide_id] += own
    known = [row for row, slide_id in enumerate(ids.tolist()) if slide_id not in failed]
    return {row: float(sums[row]) / len(classifiers) for row in known}, failed


def _scores_file(digest: str, slide_id: str) -> str:
    return f"{SCORES}/{digest[:16]}/{file_stem(slide_id)}.parquet"


def draw_examples(
    pairs: Sequence[Pair], table: pa.Table, folder: Folder, storage_options: Mapping[str, Any] | None
) -> dict[str, str]:
    """Write a sheet of figures of each rescan; why others could not be drawn. table: as `with_states`."""
    work: dict[str, tuple[TrainingSlide, TrainingSlide, list[dict[str, Any]]]] = {}
    for original, rescan in pairs:
        work[rescan.slide_id] = original, rescan, []
    for row in table.to_pylist():
        if row["on_rescan"] and row["score"] is not None:
            work[row["slide_id"]][2].append(row)
    failed: dict[str, str] = {}
    for slide_id, picture, error in in_tasks(partial(_sheet, storage_options=storage_options), _not_empty(work)):
        if error:
            failed[slide_id] = error
        else:
            folder.write_bytes(f"{PICTURES}/{file_stem(slide_id)}-figures.png", picture)
    return failed


def _not_empty(work: Mapping[str, tuple[TrainingSlide, TrainingSlide, list[dict[str, Any]]]]) -> list[Any]:
    return [one for one in work.values() if one[2]]


def _sheet(
    work: tuple[TrainingSlide, TrainingSlide, list[dict[str, Any]]], storage_options: Mapping[str, Any] | None
) -> tuple[str, bytes, str | None]:
    original, rescan, rows = work
    title = f"Figures of {original.slide_id}, left, on {rescan.slide_id}, right, with the ensemble's score there"
    try:
        with _opened(original, storage_options) as one, _opened(rescan, storage_options) as other:
            return rescan.slide_id, examples_sheet(one, other, some_of(rows, _EXAMPLES), title), None
    except SlideError as error:
        return rescan.slide_id, b"", f"{type(error).__name__}: {error}"


def _opened(slide: TrainingSlide, storage_options: Mapping[str, Any] | None) -> Slide:
    options = options_for(slide.uri, storage_options)
    return open_slide(slide.uri, options, slide.mpp, tile_cache_bytes=_CACHE_BYTES)


def pairs_of(slides: Sequence[TrainingSlide], originals: Mapping[str, str]) -> Iterator[Pair]:
    """Original and rescan, where both could be opened."""
    by_id = {slide.slide_id: slide for slide in slides}
    for rescan, original in originals.items():
        if rescan in by_id and original in by_id:
            yield by_id[original], by_id[rescan]
