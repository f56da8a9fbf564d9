"""The catalogue of public datasets: what they hold, where their files are, how they get here whole."""

from mitoray.datasets.assemble import write_labels_table, write_manifest
from mitoray.datasets.catalogue import Dataset, Domain, LabelSet, Source, catalogue, dataset_named
from mitoray.datasets.destination import Destination
from mitoray.datasets.download import fetch_file
from mitoray.datasets.listing import RemoteFile, remote_files
from mitoray.datasets.verify import differences

__all__ = [
    "Dataset",
    "Destination",
    "Domain",
    "LabelSet",
    "RemoteFile",
    "Source",
    "catalogue",
    "dataset_named",
    "differences",
    "fetch_file",
    "remote_files",
    "write_labels_table",
    "write_manifest",
]
