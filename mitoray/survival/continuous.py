"""Survival by the count itself: models that need no cut, and lose nothing to one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.stats import chi2

from mitoray.errors import BadOption
from mitoray.survival.censoring import BoolArray, FloatArray
from mitoray.survival.cox import CoxModel, cox
from mitoray.survival.splines import knots_of, spline_basis

Scale = Literal["log", "linear"]

LOG_COUNT: Final = "doubling of (count + 1)"

_Z_95: Final = 1.959963984540054


@dataclass(frozen=True)
class HazardCurve:
    """The hazard by count, relative to that at `reference`, with its pointwise 95 % interval.

    count, relative_hazard, low, high: (g,) float64. knots: counts. p: whether the count matters at all;
    nonlinear_p: whether bending the line helps (Wald tests). model: of the terms made
    orthogonal, so its likelihood and concordance mean something, its hazard ratios do not.
    """

    count: FloatArray
    relative_hazard: FloatArray
    low: FloatArray
    high: FloatArray
    reference: float
    knots: FloatArray
    scale: Scale
    p: float
    nonlinear_p: float
    model: CoxModel


def log_count(count: FloatArray) -> FloatArray:
    """log2(count + 1): of one unit per doubling, defined at 0. Raises BadOption for negative counts."""
    if (count < 0).any():
        raise BadOption("A count below 0 has no logarithm. Check the column of counts.")
    return np.asarray(np.log2(count + 1), dtype=np.float64)


def log_count_model(
    count: FloatArray, time: FloatArray, event: BoolArray, others: Mapping[str, FloatArray] | None = None
) -> CoxModel:
    """Cox's model of log2(count + 1): a hazard ratio per doubling, named LOG_COUNT, adjusted for other covariates.

    count: (n,) float64, 0 or more, NaN where missing; the rest, and errors, as in `cox`.
    """
    return cox(time, event, {LOG_COUNT: log_count(count), **(others or {})})


def linear_model(
    value: FloatArray, time: FloatArray, event: BoolArray, others: Mapping[str, FloatArray] | None = None
) -> CoxModel:
    """Cox's model of a value that is no count, such as a ratio: a hazard ratio per standard deviation.

    value: (n,) float64, NaN where missing; the rest, and errors, as in `cox`.
    """
    spread = float(np.nanstd(value))
    return cox(time, event, {f"standard deviation ({spread:.2g})": value / (spread or 1.0), **(others or {})})


def hazard_curve(
    count: FloatArray,
    time: FloatArray,
    event: BoolArray,
    *,
    scale: Scale = "log",
    n_knots: int = 4,
    reference: float | None = None,
    n_points: int = 200,
) -> HazardCurve:
    """The hazard as a restricted cubic spline in log2(count + 1), or in the value itself, over the range of the counts.

    count: (n,) float64, 0 or more for the scale "log"; time: (n,) float64, positive; event: (n,) bool. scale: "linear"
    for what is no count. reference: the count where the hazard is 1, by default the median. Raises BadOption where
    counts are too tied for the knots, and as `cox` does.
    """
    if not np.isfinite(count).all():
        raise BadOption("A count is missing or not finite. Leave such patients out first.")
    x, back = _scaled(count, scale), _UNSCALED[scale]
    knots = knots_of(x, n_knots)
    names = ["straight", *(f"bend {i}" for i in range(1, n_knots - 1))]
    basis = spline_basis(x, knots)
    # The terms are nearly collinear; made orthogonal, in this order, they span the same curves and converge.
    orthogonal, triangle = np.linalg.qr(basis - basis.mean(axis=0))
    model = cox(time, event, dict(zip(names, orthogonal.T * np.sqrt(len(x)), strict=True)))
    coefficients = np.array([model[name].coefficient for name in names])
    reference = float(np.median(count)) if reference is None else reference
    grid = np.linspace(x.min(), x.max(), n_points)
    contrast = spline_basis(grid, knots) - spline_basis(_scaled(np.array([reference]), scale), knots)
    contrast = np.linalg.solve(triangle.T, contrast.T).T * np.sqrt(len(x))
    effect = contrast @ coefficients
    error = np.sqrt(np.maximum(np.einsum("gi,ij,gj->g", contrast, model.covariance, contrast), 0))
    return HazardCurve(
        count=back(grid),
        relative_hazard=np.exp(effect),
        low=np.exp(effect - _Z_95 * error),
        high=np.exp(effect + _Z_95 * error),
        reference=reference,
        knots=back(knots),
        scale=scale,
        p=_wald_p(coefficients, model.covariance),
        nonlinear_p=_wald_p(coefficients[1:], model.covariance[1:, 1:]),
        model=model,
    )


_UNSCALED: Final[dict[Scale, Callable[[FloatArray], FloatArray]]] = {
    "log": lambda x: np.asarray(2**x - 1, dtype=np.float64),
    "linear": lambda x: x,
}


def _scaled(value: FloatArray, scale: Scale) -> FloatArray:
    return log_count(value) if scale == "log" else value


def _wald_p(coefficients: FloatArray, covariance: FloatArray) -> float:
    return float(chi2.sf(coefficients @ np.linalg.solve(covariance, coefficients), len(coefficients)))
