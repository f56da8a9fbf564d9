"""From fetched files to the two tables that scoring and training start from: the manifest and the labels."""

import io
import tempfile
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from mitoray.datasets.ami_br import read_ami_br
from mitoray.datasets.catalogue import Dataset, LabelSet
from mitoray.datasets.destination import Destination
from mitoray.datasets.listing import RemoteFile
from mitoray.errors import DatasetIncomplete
from mitoray.labels import read_labels
from mitoray.labels.table import slide_id_of

MANIFEST_NAME: Final = "manifest.csv"
LABELS_NAME: Final = "labels.parquet"

MANIFEST: Final = pa.schema(
    [pa.field(name, pa.string()) for name in ("slide_id", "uri", "case_id", "domain")]
    + [pa.field("mpp", pa.float64())]
    + [pa.field(name, pa.string()) for name in ("tumor", "scanner", "laboratory", "species", "split")]
)
"""Columns of the manifest, null for what is not published. `mpp`: µm per px; `split`: `train` or `test`."""


def write_manifest(dataset: Dataset, destination: Destination) -> pa.Table:
    """The slides that have been fetched so far, in the schema `MANIFEST`; also written to `manifest.csv` if there are
    any.

    A slide without a case of its own in the service's listing is its own case, as in all of these datasets.
    """
    rows = [_row(dataset, destination, file) for file in _finished(destination, "slides/")]
    table = pa.Table.from_pylist(rows, schema=MANIFEST)
    if rows:
        buffer = io.BytesIO()
        pacsv.write_csv(table, buffer)
        destination.write(MANIFEST_NAME, buffer.getvalue())
    return table


def write_labels_table(dataset: Dataset, destination: Destination, label_set: LabelSet, slides: pa.Table) -> pa.Table:
    """The labels of one label set on the slides of the manifest, in the schema `LABELS`; also written to
    `labels.parquet`.

    A dataset that comes without slides keeps all labels. `domain` is the catalogue's, so that labels and manifest
    agree. Raises DatasetIncomplete without the label file, BadLabels.
    """
    file = next((f for f in _finished(destination, "labels/") if fnmatch(f.name, label_set.file)), None)
    if file is None:
        raise DatasetIncomplete(f"The label file {label_set.file} of {dataset.name} is not there. Fetch it first.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        with copy.open("wb") as output:
            output.writelines(destination.blocks(file.path))
        labels = read_ami_br(copy) if label_set.form == "ami-br" else read_labels(copy, dataset=dataset.name)
    if slides.num_rows:
        labels = labels.filter(pc.is_in(labels["slide_id"], value_set=slides["slide_id"].combine_chunks()))
    domains = [
        domain.name if (domain := dataset.domain_of(slide_id)) else stated
        for slide_id, stated in zip(labels["slide_id"].to_pylist(), labels["domain"].to_pylist(), strict=True)
    ]
    field = labels.schema.get_field_index("domain")
    labels = labels.set_column(field, labels.schema.field(field), pa.array(domains, pa.string()))
    destination.write_table(LABELS_NAME, labels)
    return labels


def _finished(destination: Destination, folder: str) -> list[RemoteFile]:
    return [file for path, file in sorted(destination.finished().items()) if path.startswith(folder)]


def _row(dataset: Dataset, destination: Destination, file: RemoteFile) -> dict[str, Any]:
    slide_id = slide_id_of(file.name)
    domain = dataset.domain_of(slide_id)
    return {
        "slide_id": slide_id,
        "uri": destination.uri_of(file.path),
        "case_id": file.case_id or slide_id,
        "split": dataset.split_of(slide_id),
    } | ({"domain": domain.name} | asdict(domain) if domain else {})
