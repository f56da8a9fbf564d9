"""Annotation files in, one label table out."""

from mitoray.labels.files import Dialect, read_labels, write_labels
from mitoray.labels.zones import read_zones

__all__ = ["Dialect", "read_labels", "read_zones", "write_labels"]
