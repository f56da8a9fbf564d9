"""Detectors, and the bundles they are stored in."""

from mitoray.models.bundle import Bundle, Metric, Normalisation, Training, save_bundle
from mitoray.models.detector import Detector, Points
from mitoray.models.model import Model, load_model
from mitoray.models.sources import load_bundle

__all__ = [
    "Bundle",
    "Detector",
    "Metric",
    "Model",
    "Normalisation",
    "Points",
    "Training",
    "load_bundle",
    "load_model",
    "save_bundle",
]
