"""What is trained, and how its epochs are judged."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import torch

from mitoray.models import Detector, Normalisation
from mitoray.models.bundle import Setting, classifier_around, detector_around
from mitoray.models.classifiers import CLASSIFIERS
from mitoray.training.patches import Patches
from mitoray.training.validation import validated, validated_classifier

BEST_BY: Final = "val_ap"
"""Average precision on the validation patches; in the phase "subtype" the subtype's area under the ROC curve."""


@dataclass(frozen=True)
class Network:
    """What is trained. mpp: µm/px of its input; initial: weights to begin with, by the network's own names.

    phase: "subtype" trains a classifier's subtype head alone, all else frozen (Fick et al. 2024, §2.4).
    """

    architecture: str
    mpp: float
    normalisation: Normalisation
    settings: Mapping[str, Setting] = field(default_factory=dict)
    initial: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)
    phase: Literal["all", "subtype"] = "all"

    def detector(self, module: torch.nn.Module, device: torch.device) -> Detector:
        """A detector with a copy of the module's present weights."""
        return detector_around(self.architecture, copy.deepcopy(module), self.mpp, self.normalisation, device)

    def judged(self, module: torch.nn.Module, device: torch.device, patches: Patches) -> dict[str, float]:
        """How well the module's present weights do on validation patches, `BEST_BY` among it. Raises BadLabels."""
        if self.architecture not in CLASSIFIERS:
            return validated(self.detector(module, device), patches).metrics()
        classifier = classifier_around(self.architecture, copy.deepcopy(module), self.mpp, self.normalisation, device)
        figures, subtypes = validated_classifier(classifier, patches)
        metrics = {**figures.metrics(), **(subtypes.metrics() if subtypes else {})}
        if self.phase == "subtype":
            metrics[BEST_BY] = subtypes.auc if subtypes else 0.0
        return metrics
