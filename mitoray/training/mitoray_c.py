"""What the shipped classifier learns from besides published crops of figures: tissue without any, and phantoms."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from scipy.spatial import cKDTree

from mitoray.models import Detector
from mitoray.phantom import DOMAINS, draw_patches
from mitoray.slide import segment_tissue
from mitoray.training.crops import CROPS
from mitoray.training.material import NATIVE_MPP, at_mpp, read_real

CROP_UM: Final = 32.0
"""Side of a crop, as the published ones have it, so that no size tells figures from others."""
MISTAKE_SCORE: Final = 0.05
_LOOK_PX: Final = 16
_DRAWN_PX: Final = 512


def other_crops(
    data_dir: Path, detector: Detector, *, random_negatives: int, phantom_patches: int, seed: int
) -> pa.Table:
    """Crops, schema `CROPS`, at 0.25 µm/px.

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
    small = at_mpp(image, NATIVE_MPP * _LOOK_PX).permute(1, 2, 0).numpy()
    row, column = np.nonzero(segment_tissue(small, NATIVE_MPP * _LOOK_PX))
    chosen = rng.choice(len(row), n)
    anywhere = np.column_stack([column[chosen], row[chosen]]) * _LOOK_PX + rng.uniform(0, _LOOK_PX, (n, 2))
    if len(mistakes):
        anywhere = anywhere[cKDTree(mistakes).query(anywhere)[0] > CROP_UM / 4 / NATIVE_MPP]
    for kind, places in (("mined", mistakes), ("random", anywhere)):
        for number, (x, y) in enumerate(places):
            if (crop := _cut(image, x, y, NATIVE_MPP)) is not None:
                # Neighbours show the same tissue: they stay in one part of the training, as a case.
                case = f"tissue-{int(x // 1024)}-{int(y // 1024)}"
                yield _row(f"tissue-{kind}-{number}", case, "tissue", kind, None, NATIVE_MPP, crop)


def _phantoms(n: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, domain in DOMAINS.items():
        images, labels = draw_patches(name, n=n, size_px=_DRAWN_PX, seed=seed)
        for number, label in enumerate(labels.to_pylist()):
            image = torch.from_numpy(images[label["patch"]]).permute(2, 0, 1)
            crop = _cut(image, label["x_px"], label["y_px"], domain.mpp)
            if crop is not None and label["kind"] in ("mitotic_figure", "imposter"):
                case = f"{name}-{label['patch']}"
                yield _row(f"{name}-{number}", case, "phantom", label["kind"], None, domain.mpp, crop)


def _cut(image: torch.Tensor, x: float, y: float, mpp: float) -> torch.Tensor | None:
    """The crop around a point; None where it would reach past the image."""
    side = round(CROP_UM / mpp)
    left, top = (round(place - (side - 1) / 2) for place in (x, y))
    if left < 0 or top < 0 or left + side > image.shape[2] or top + side > image.shape[1]:
        return None
    return image[:, top : top + side, left : left + side]


def _row(
    crop_id: str, case: str, domain: str, kind: str, subtype: str | None, mpp: float, crop: torch.Tensor
) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(crop.permute(1, 2, 0).numpy()).save(file, "PNG")
    place = {"crop_id": crop_id, "slide_id": case, "case_id": case, "domain": domain}
    return {**place, "kind": kind, "subtype": subtype, "mpp": mpp, "image": file.getvalue()}
