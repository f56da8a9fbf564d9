"""How the scores of a detector and of classifiers become one: a weighted mean, and a calibration after it."""

from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

_STRICT: Final = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
_Score = Annotated[float, Field(ge=0, le=1)]
_Weight = Annotated[float, Field(ge=0)]
_LEAST: Final = 1e-6
"""Scores this near to 0 and 1 are taken as that far from them, where their log-odds are needed."""


class Temperature(BaseModel):
    """Log-odds divided by a temperature, and shifted (Guo et al. 2017; the shift after Platt 1999)."""

    model_config = _STRICT
    kind: Literal["temperature"] = "temperature"
    temperature: Annotated[float, Field(gt=0)]
    bias: float = 0.0

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n,) of scores (n,) in [0, 1]."""
        clipped = np.clip(scores, _LEAST, 1 - _LEAST)
        log_odds = np.log(clipped / (1 - clipped)) / self.temperature + self.bias
        probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
        return probabilities


class Isotonic(BaseModel):
    """A rising curve through knots, straight between them (Zadrozny and Elkan 2002)."""

    model_config = _STRICT
    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[_Score, ...]
    probabilities: tuple[_Score, ...]

    @model_validator(mode="after")
    def _rises(self) -> "Isotonic":
        x, y = np.array(self.scores), np.array(self.probabilities)
        if len(x) < 2 or len(x) != len(y) or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise ValueError("needs two knots or more, with rising scores and probabilities that do not fall")
        return self

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n,) of scores (n,) in [0, 1]."""
        probabilities: NDArray[np.float64] = np.interp(scores, self.scores, self.probabilities)
        return probabilities


Calibration = Annotated[Temperature | Isotonic, Field(discriminator="kind")]


class Combination(BaseModel):
    """The final score of a candidate.

    weights: of the classifiers, in the order of the members. detector_weight: of the detector's own score. Only their
    ratios count. calibration: applied to the weighted mean; None leaves it.
    """

    model_config = _STRICT
    weights: tuple[_Weight, ...] = (1.0,)
    detector_weight: _Weight = 0.0
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _weighs(self) -> "Combination":
        if sum(self.weights) + self.detector_weight <= 0:
            raise ValueError("all weights are 0")
        return self

    def scores(self, detector_scores: ArrayLike, member_scores: ArrayLike) -> NDArray[np.float64]:
        """Final scores (n,) in [0, 1] of detector scores (n,) and the members' mitosis scores (n, m)."""
        of_members = np.asarray(member_scores, np.float64).reshape(-1, len(self.weights))
        total = sum(self.weights) + self.detector_weight
        mean = of_members @ np.array(self.weights) + self.detector_weight * np.asarray(detector_scores, np.float64)
        mean = mean / total
        return self.calibration(mean) if self.calibration else mean
