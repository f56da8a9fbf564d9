"""Detectors and classifiers, and the bundles they are stored in."""

from mitoray.models.bundle import Bundle, Metric, Normalisation, Training, save_bundle
from mitoray.models.classifier import Classifier, Verdicts
from mitoray.models.combination import Combination
from mitoray.models.detector import Detector, Points
from mitoray.models.ensemble import ensemble_of
from mitoray.models.model import Model, load_model
from mitoray.models.sources import load_bundle

__all__ = [
    "Bundle",
    "Classifier",
    "Combination",
    "Detector",
    "Metric",
    "Model",
    "Normalisation",
    "Points",
    "Training",
    "Verdicts",
    "ensemble_of",
    "load_bundle",
    "load_model",
    "save_bundle",
]
