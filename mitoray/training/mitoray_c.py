"""How the shipped classifier is judged, and what its bundle says of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import torch

from mitoray.evaluation.subtypes import Measured, subtype_quality
from mitoray.models import Bundle, Classifier, Metric
from mitoray.models import Training as Origin
from mitoray.models.combination import Combination
from mitoray.training.material import EVALUATION_FILE, patches_at_mpp, read_crops
from mitoray.training.mitoray_s import DATA, LICENCE
from mitoray.training.patches import centred

NAME: Final = "mitoray-c"
_BATCH: Final = 256

NOTES: Final = (
    "A baseline for research, not for diagnosis.",
    "Tells atypical from normal figures. Its score of a figure against a look-alike does not count: no real "
    "look-alikes were labelled in training, and on real tissue the shipped detector alone does better. The detector's "
    "score is final.",
    "Trained on crops of real figures with their subtypes, drawn figures and imposters without, and real tissue of one "
    "canine mammary slide.",
    "The metrics of real crops are of AMi-Br, human breast, three scanners, no crop of which trained or validated. "
    "Crops that validated (a fifth, for the best epoch) may show parts of crops that trained, where figures lie close.",
)


def judged_on_crops(classifier: Classifier, data_dir: Path, repeats: int = 1000) -> dict[str, Measured]:
    """Atypical against normal figures on AMi-Br, by scanner; intervals over slides. Raises as `subtype_quality`."""
    _, crops = read_crops(data_dir / EVALUATION_FILE)
    table = pq.read_table(data_dir / EVALUATION_FILE, columns=["subtype", "slide", "scanner"])
    patches = centred(patches_at_mpp(crops, classifier.mpp).images, classifier.patch_px)
    probability = np.concatenate([classifier.classify(part).atypical for part in torch.split(patches, _BATCH)])
    is_atypical = np.array(table["subtype"].to_pylist()) == "atypical"
    return subtype_quality(
        probability.astype(float), is_atypical, table["slide"].to_pylist(), table["scanner"].to_pylist(), repeats
    )


def shipped_classifier(trained: Bundle, detector: Bundle, measured: Mapping[str, Measured]) -> Bundle:
    """The trained bundle as it is shipped: subtypes for what the detector finds, at the detector's own score.

    Nothing below the detector's threshold is looked at, since nothing there could count.
    """
    return trained.model_copy(
        update={
            "name": NAME,
            "threshold": detector.threshold,
            "thresholds": detector.thresholds,
            "candidate_threshold": detector.threshold,
            "combination": Combination(weights=(0.0,), detector_weight=1.0),
            "training": Origin(data=DATA, licence=LICENCE, notes=NOTES),
            "metrics": tuple(_metrics(measured)),
        }
    )


def _metrics(measured: Mapping[str, Measured]) -> Iterator[Metric]:
    for name, found in measured.items():
        values = {"AMi-Br": found.value, "AMi-Br, 95 % from": found.low, "AMi-Br, 95 % to": found.high}
        values |= {f"AMi-Br, {scanner}": value for scanner, value in found.by_group.items()}
        for where, value in values.items():
            yield Metric(name=f"atypical or normal, {name}, {where}", value=round(value, 4), data="real crops")
