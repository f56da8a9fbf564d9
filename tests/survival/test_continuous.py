import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from mitoray.errors import BadOption
from mitoray.survival.continuous import LOG_COUNT, hazard_curve, linear_model, log_count, log_count_model
from mitoray.survival.cox import cox
from mitoray.survival.splines import knots_of, spline_basis

KNOTS = np.array([0.0, 1.5, 4.0, 7.0])


def test_the_basis_is_straight_beyond_the_outer_knots_and_smooth_between():
    for outside in (np.linspace(-5, 0, 50), np.linspace(7, 20, 50)):
        assert np.abs(np.diff(spline_basis(outside, KNOTS), 2, axis=0)).max() < 1e-9
    fine = np.linspace(-1, 8, 90_001)
    curvature = np.diff(spline_basis(fine, KNOTS), 2, axis=0) / 1e-4**2
    assert np.abs(np.diff(curvature, axis=0)).max() < 0.05  # the second derivative has no jump


def test_the_basis_spans_all_natural_cubic_splines_on_the_knots():
    rng = np.random.default_rng(0)
    natural = CubicSpline(KNOTS, rng.normal(size=4), bc_type="natural")
    x = np.linspace(0, 7, 200)
    design = np.column_stack([np.ones(200), spline_basis(x, KNOTS)])
    fitted = design @ np.linalg.lstsq(design, natural(x), rcond=None)[0]
    np.testing.assert_allclose(fitted, natural(x), atol=1e-9)


def test_the_curve_is_one_at_the_reference_and_has_the_likelihood_of_another_basis(patients):
    curve = hazard_curve(patients.count, patients.time_years, patients.event, reference=11.0)
    at = np.interp(np.log2(12), np.log2(curve.count + 1), np.log(curve.relative_hazard))
    assert at == pytest.approx(0, abs=1e-3)
    x = log_count(patients.count)
    knots = np.log2(curve.knots + 1)
    cardinal = [CubicSpline(knots, column, bc_type="natural") for column in np.eye(4)[1:]]

    def natural(spline):
        low, high = spline(knots[0]), spline(knots[-1])
        slopes = spline(knots[0], 1), spline(knots[-1], 1)
        inner = spline(np.clip(x, knots[0], knots[-1]))
        below = np.where(x < knots[0], low + slopes[0] * (x - knots[0]), inner)
        return np.where(x > knots[-1], high + slopes[1] * (x - knots[-1]), below)

    other = cox(patients.time_years, patients.event, {f"b{i}": natural(s) for i, s in enumerate(cardinal)})
    assert curve.model.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5)
    assert (curve.low <= curve.relative_hazard).all()
    assert (curve.relative_hazard <= curve.high).all()


def test_an_effect_that_is_linear_in_the_logarithm_is_found_within_its_interval():
    rng = np.random.default_rng(3)
    count = rng.poisson(rng.gamma(1.0, 25, 3000)).astype(float)
    time = rng.exponential(1 / (0.02 * 1.25 ** np.log2(count + 1)))
    event = time < 15
    time = np.minimum(time, 15)
    ratio = log_count_model(count, time, event)[LOG_COUNT]
    assert ratio.low < 1.25 < ratio.high
    assert ratio.p < 1e-6
    curve = hazard_curve(count, time, event, reference=15.0)
    truth = 1.25 ** (np.log2(curve.count + 1) - 4)
    inside = (curve.low <= truth) & (truth <= curve.high)
    assert inside.mean() > 0.9
    assert curve.p < 1e-6
    assert curve.nonlinear_p > 0.01


def test_ratios_are_taken_as_they_are_per_standard_deviation(patients):
    known = np.isfinite(patients.atypical_ratio)
    ratio = patients.atypical_ratio[known]
    model = linear_model(ratio, patients.time_years[known], patients.event[known])
    plain = cox(patients.time_years[known], patients.event[known], {"x": ratio})
    assert model.ratios[0].coefficient == pytest.approx(plain["x"].coefficient * np.std(ratio), rel=1e-6)


def test_counts_below_zero_missing_or_too_tied_are_refused(patients):
    followed = (patients.time_years, patients.event)
    with pytest.raises(BadOption, match="below 0"):
        log_count(np.array([3.0, -1.0]))
    with pytest.raises(BadOption, match="missing or not finite"):
        hazard_curve(np.full(300, np.nan), *followed)
    with pytest.raises(BadOption, match="Take fewer knots"):
        hazard_curve(np.repeat([0.0, 5.0], 150), *followed)
    with pytest.raises(BadOption, match="3, 4 or 5 knots"):
        knots_of(patients.count, 7)
