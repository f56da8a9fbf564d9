"""Coarse alignment of a rescan to its original: features on thumbnails, and the rigid map that most agree on."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from skimage.feature import SIFT, match_descriptors
from skimage.measure import ransac
from skimage.transform import EuclideanTransform

from mitoray.curation.registration import Affine, affine_of

Density = NDArray[np.float32]

_RATIO: Final = 0.85
"""Of the distances to the best and to the second-best match, at most."""
_RESIDUAL_PX: Final = 4.0
_TRIALS: Final = 3000
_FEWEST_FEATURES: Final = 6
_MOST_FEATURES: Final = 5000
"""Of an image, the coarsest ones: all are compared with all."""
_STIFFNESS: Final = 5.0
"""Weight, in features, of the rigid map against the affine one: few features in a row must not bend it."""


def density(rgb: NDArray[np.uint8]) -> Density:
    """Optical density, natural logarithm, mean of the channels: (h, w) float32, 0 on glass, whatever white is there."""
    white = np.maximum(np.percentile(rgb.reshape(-1, 3), 99, axis=0), 1.0)
    light = np.clip(rgb.astype(np.float32), 1, None) / white.astype(np.float32)
    dense: Density = -np.log(np.minimum(light, 1)).mean(axis=2, dtype=np.float32)
    return dense


def features(image: Density) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Places (n, 2) px as x, y, and descriptors (n, d), of an image (h, w); none on one without texture."""
    spread = float(np.ptp(image))
    empty = np.empty((0, 2)), np.empty((0, 128), np.float32)
    if spread < 1e-3:
        return empty
    finder: Any = SIFT(upsampling=1)  # type: ignore[no-untyped-call]
    try:
        finder.detect_and_extract((image - image.min()) / spread)
    except RuntimeError:  # scikit-image's word for no features
        return empty
    kept = np.argsort(-finder.sigmas, kind="stable")[:_MOST_FEATURES]
    return finder.keypoints[kept, ::-1].astype(np.float64), finder.descriptors[kept].astype(np.float32)


def coarse_affine(original: Density, rescan: Density, mpp: float, seed: int = 0) -> tuple[Affine | None, int]:
    """The map of µm on the original to µm on the rescan, and how many matched features agree with it.

    original, rescan: `density` of thumbnails, both at `mpp` µm/px, the corner at 0. None where nothing can be matched.
    Finds turns and shifts of any size, and scales within a few percent; not mirror images.
    """
    (from_px, one), (to_px, other) = features(original), features(rescan)
    if min(len(one), len(other)) < _FEWEST_FEATURES:
        return None, 0
    pairs = match_descriptors(one, other, cross_check=True, max_ratio=_RATIO)  # type: ignore[no-untyped-call]
    if len(pairs) < _FEWEST_FEATURES:
        return None, len(pairs)
    source, target = ((px[pairs[:, i]] + 0.5) * mpp for i, px in enumerate((from_px, to_px)))
    model, agree = ransac(  # type: ignore[no-untyped-call]
        (source, target),
        EuclideanTransform,
        min_samples=2,
        residual_threshold=_RESIDUAL_PX * mpp,
        max_trials=_TRIALS,
        rng=np.random.default_rng(seed),
    )
    if not model or agree is None or agree.sum() < 3:
        return None, 0 if agree is None else int(agree.sum())
    return affine_of(_bent(model.params[:2], source[agree], target[agree])), int(agree.sum())


def _bent(rigid: NDArray[np.float64], source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2, 3) affine map that fits best, held near the rigid one."""
    centre = source.mean(axis=0)
    local = np.column_stack([source - centre, np.ones(len(source))])
    rest = target - (source @ rigid[:, :2].T + rigid[:, 2])
    held = np.diag([*(_STIFFNESS * (local[:, :2] ** 2).mean(axis=0)), 1e-9])
    change = np.linalg.solve(local.T @ local + held, local.T @ rest).T
    bent = rigid.copy()
    bent[:, :2] += change[:, :2]
    bent[:, 2] += change[:, 2] - change[:, :2] @ centre
    return bent
