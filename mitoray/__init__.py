"""Counts mitotic figures in whole slide images, over whole cohorts, on Ray."""

__version__ = "0.1.0"
