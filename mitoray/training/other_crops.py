"""What a classifier learns from besides published crops of figures: tissue without any, and phantoms."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from scipy.spatial import cKDTree

from mitoray.models import Detector
from mitoray.phantom import DOMAINS, draw_patches
from mitoray.training.crops import CROPS, png
from mitoray.training.material import NATIVE_MPP, at_mpp, read_real
from mitoray.training.patches import Tissue

CROP_UM: Final = 32.0
"""Side of a crop, as the published ones have it, so that no size tells figures from others."""
MISTAKE_SCORE: Final = 0.05
_DRAWN_PX: Final = 512
_FIELD_PX: Final = 1024


def other_crops(
    data_dir: Path, detector: Detector, *, random_negatives: int, phantom_patches: int, seed: int
) -> pa.Table:
    """Crops of 32 µm, schema `CROPS`, at the µm/px of what they are cut from.

    The detector's false positives, and `random_negatives` other places, in the tissue without figures that may be
    trained on; figures and imposters of `phantom_patches` drawn patches of each phantom domain, without subtypes: these
    are to be learned from real ones. Raises BadOption if a file is missing.
    """
    rng = np.random.default_rng(seed)
    rows = [*_tissue(read_real(data_dir).tissue, detector, random_negatives, rng), *_phantoms(phantom_patches, seed)]
    return pa.Table.from_pylist(rows, schema=CROPS)


def _tissue(image: torch.Tensor, detector: Detector, n: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    (points,) = detector.detect(at_mpp(image, detector.mpp)[None], MISTAKE_SCORE)
    mistakes = (points.xy_px.astype(float) + 0.5) * detector.mpp / NATIVE_MPP - 0.5
    reach = CROP_UM / NATIVE_MPP / 2
    anywhere = Tissue(image, NATIVE_MPP).places(n, rng) + rng.uniform(-reach, reach, (n, 2))
    if len(mistakes):
        anywhere = anywhere[cKDTree(mistakes).query(anywhere)[0] > reach / 2]
    for kind, places in (("mined", mistakes), ("random", anywhere)):
        for number, (x, y) in enumerate(places):
            # A field is a case, and no crop reaches into another: what trains and what validates share no tissue.
            column, row = (int(place // _FIELD_PX) for place in (x, y))
            field = image[:, row * _FIELD_PX :, column * _FIELD_PX :][:, :_FIELD_PX, :_FIELD_PX]
            crop = _cut(field, x - column * _FIELD_PX, y - row * _FIELD_PX, NATIVE_MPP)
            if crop is not None:
                yield _row(f"tissue-{kind}-{number}", f"tissue-{column}-{row}", "tissue", kind, NATIVE_MPP, crop)


def _phantoms(n: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, domain in DOMAINS.items():
        images, labels = draw_patches(name, n=n, size_px=_DRAWN_PX, seed=seed)
        for number, label in enumerate(labels.to_pylist()):
            image = torch.from_numpy(images[label["patch"]]).permute(2, 0, 1)
            crop = _cut(image, label["x_px"], label["y_px"], domain.mpp)
            if crop is not None and label["kind"] in ("mitotic_figure", "imposter"):
                case = f"{name}-{label['patch']}"
                yield _row(f"{name}-{number}", case, "phantom", label["kind"], domain.mpp, crop)


def _cut(image: torch.Tensor, x: float, y: float, mpp: float) -> torch.Tensor | None:
    """The crop around a point; None where it would reach past the image."""
    side = round(CROP_UM / mpp)
    left, top = (round(place - (side - 1) / 2) for place in (x, y))
    if left < 0 or top < 0 or left + side > image.shape[2] or top + side > image.shape[1]:
        return None
    return image[:, top : top + side, left : left + side]


def _row(crop_id: str, case: str, domain: str, kind: str, mpp: float, crop: torch.Tensor) -> dict[str, Any]:
    place = {"crop_id": crop_id, "slide_id": case, "case_id": case, "domain": domain}
    return {**place, "kind": kind, "mpp": mpp, "image": png(crop.permute(1, 2, 0).numpy())}
