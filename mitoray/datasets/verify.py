"""Is what was fetched what the catalogue promises?"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from mitoray.datasets.assemble import LABELS_NAME
from mitoray.datasets.catalogue import Dataset, LabelSet
from mitoray.datasets.destination import Destination
from mitoray.datasets.listing import RemoteFile

_SIZE_TOLERANCE: Final = 0.1
"""The published sizes of whole datasets are rounded, and count in 10^9 or in 2^30 bytes."""


def differences(
    dataset: Dataset,
    destination: Destination,
    listing: Sequence[RemoteFile],
    chosen: Sequence[RemoteFile],
    label_set: LabelSet | None = None,
) -> list[str]:
    """What differs, one sentence each; empty if all is as it should be.

    listing: all files that the services announced. chosen: those that should be here; if that is all of them, the
    labels in `labels.parquet` are counted too, against `label_set`. Sizes are compared to the byte, for each file.
    """
    here = destination.sizes("slides") | destination.sizes("labels")
    finished = destination.finished()
    found = [
        f"{file.path} has {here[file.path]:,} of {file.size_bytes:,} bytes, or was not verified."
        if file.path in here
        else f"{file.path} is missing."
        for file in chosen
        if file.path not in finished
    ]
    slides = [file for file in listing if file.path.startswith("slides/")]
    if len(slides) != dataset.slides:
        found.append(f"The services list {len(slides)} slides, the catalogue {dataset.slides}.")
    gigabytes = sum(file.size_bytes for file in slides) / 1e9
    if dataset.gigabytes and abs(gigabytes / dataset.gigabytes - 1) > _SIZE_TOLERANCE:
        found.append(f"The slides have {gigabytes:.3g} GB, in the catalogue {dataset.gigabytes:.3g} GB.")
    if label_set and len(chosen) == len(listing):
        found += _label_differences(destination, label_set)
    return found


def _label_differences(destination: Destination, label_set: LabelSet) -> list[str]:
    try:
        kinds = Counter(destination.read_table(LABELS_NAME)["kind"].to_pylist())
    except FileNotFoundError:
        return [f"{LABELS_NAME} is missing."]
    published = {"mitotic_figure": label_set.mitotic_figures, "imposter": label_set.imposters}
    return [
        f"{LABELS_NAME} holds {kinds[kind]:,} labels of kind {kind}, the catalogue {count:,}."
        for kind, count in published.items()
        if kinds[kind] != count
    ]
