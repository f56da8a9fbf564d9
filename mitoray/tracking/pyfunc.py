"""A bundle as an MLflow model: mlflow.pyfunc loads this file, stored beside the bundle, and nothing is unpickled.

Imported by nothing; `mitoray.tracking.registry` stores it with every version.
"""

import base64
import binascii
import io
from collections.abc import Iterable
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import BadOption
from mitoray.models import load_bundle
from mitoray.scoring.stages import classifier_scores


class MitoticFigureFinder(PythonModel):
    """Images in, points out; of a classifier, patches in, probabilities out. On the GPU where there is one."""

    def load_context(self, context: Any) -> None:
        """Called by MLflow, with the folder of the bundle."""
        self._bundle = load_bundle(context.artifacts["bundle"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._bundle.is_classifier:
            self._classifier = self._bundle.classifier(device)
        else:
            self._detector = self._bundle.detector(device)

    def predict(  # type: ignore[override]  # MLflow asks by name whether it takes its context too
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Mitotic figures in images at the bundle's µm/px, one after the other. Cohorts are for jobs/score_cohort.py.

        model_input: uint8 (n, h, w, 3), RGB; or a list of (h, w, 3); or a table whose column `image` holds PNG or JPEG
        files, as bytes or, from JSON, in base64.
        params: threshold, 0 to 1, from which a score counts; the bundle's own by default.

        Returns a row per figure: image (position in the input, from 0), x_px, y_px (px of that image; the centre of the
        top-left pixel is 0, 0), score (0 to 1; falling within an image). Raises BadOption for other input.

        A classifier takes patches of its own side, centred on candidates, and gives a row for each: image, score (of
        its networks alone, without a detector's), atypical_probability (NaN where it tells no subtypes).
        """
        if self._bundle.is_classifier:
            return self._classified(model_input)
        threshold = (params or {}).get("threshold", self._bundle.threshold)
        rows: dict[str, list[NDArray[Any]]] = {"image": [], "x_px": [], "y_px": [], "score": []}
        for number, image in enumerate(_images(model_input)):
            tensor = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
            (points,) = self._detector.detect(tensor, float(threshold))
            rows["image"].append(np.full(len(points), number))
            rows["x_px"].append(points.xy_px[:, 0])
            rows["y_px"].append(points.xy_px[:, 1])
            rows["score"].append(points.scores)
        kinds = {"image": np.int64, "x_px": np.float32, "y_px": np.float32, "score": np.float32}
        return pd.DataFrame({name: np.concatenate([*rows[name], ()]).astype(kind) for name, kind in kinds.items()})

    def _classified(self, model_input: Any) -> pd.DataFrame:
        side = self._classifier.patch_px
        patches = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in _images(model_input)]
        for number, patch in enumerate(patches):
            if patch.shape != (3, side, side):
                raise BadOption(f"image {number} is {tuple(patch.shape[1:])} px; the classifier takes {side} by {side}")
        verdicts = self._classifier.classify(
            torch.stack(patches) if patches else torch.empty((0, 3, side, side), dtype=torch.uint8)
        )
        return pd.DataFrame(
            {
                "image": np.arange(len(patches)),
                "score": classifier_scores(self._bundle.combining, verdicts.members).astype(np.float32),
                "atypical_probability": verdicts.atypical.astype(np.float32),
            }
        )


def _images(given: Any) -> Iterable[NDArray[np.uint8]]:
    if isinstance(given, pd.DataFrame):
        if "image" not in given.columns:
            raise BadOption(
                f"the table has the columns {list(given.columns)}; give one named image, of PNG or JPEG files"
            )
        return (_decoded(file, row) for row, file in enumerate(given["image"]))
    return (_checked(np.asarray(image), number) for number, image in enumerate(given))


def _checked(image: NDArray[Any], number: int) -> NDArray[np.uint8]:
    # Plain numbers in JSON arrive as int64.
    is_bytes = image.dtype == np.uint8 or (
        image.dtype.kind in "iu" and image.size and 0 <= image.min() <= image.max() <= 255
    )
    if not is_bytes or image.ndim != 3 or image.shape[2] != 3:
        raise BadOption(f"image {number} is {image.dtype} {image.shape}; give RGB as uint8 (h, w, 3)")
    return image.astype(np.uint8, copy=False)


def _decoded(file: Any, row: int) -> NDArray[np.uint8]:
    try:
        data = base64.b64decode(file, validate=True) if isinstance(file, str) else bytes(file)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, TypeError, binascii.Error, Image.DecompressionBombError) as error:
        raise BadOption(f"image {row} is no PNG or JPEG file ({type(error).__name__}); encode it again") from error


mlflow.models.set_model(MitoticFigureFinder())
