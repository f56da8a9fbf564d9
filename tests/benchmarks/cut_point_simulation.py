"""What the p of a searched cut is worth: `nice python tests/benchmarks/cut_point_simulation.py`, minutes on one core.

Simulated cohorts, no real patients. Without any effect, a test at 5 % should reject in 5 % of cohorts: the naive p of
the best cut rejects far more often. With a hazard ratio at 11 mitoses per 2 mm²: which cut is found, and its bootstrap.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mitoray.survival.cut_points import bootstrap_cut, search_cut
from mitoray.survival.simulated import Effect, simulate_patients

LEVEL = 0.05


@dataclass(frozen=True)
class Values:
    """What is searched: counts, which are tied, or values that are all different."""

    name: str
    jitter: float


COUNTS, DISTINCT = Values("counts", 0.0), Values("distinct values", 1.0)


def rejections(
    n_simulations: int, n_patients: int, permutations: int, values: Values, seed: int = 0
) -> dict[str, float]:
    """Share of cohorts without any effect in which each p is below 0.05."""
    rng = np.random.default_rng(seed)
    effect = Effect(hazard_ratio=1.0, hazard_per_year=0.08, with_age_and_stage=False)
    found: dict[str, list[float]] = {name: [] for name in ("naive", "LS 1992", "LS 1994", "permutation")}
    for i in tqdm(range(n_simulations), desc=f"no effect, {values.name}", leave=False, mininterval=5):
        patients = simulate_patients(n_patients, effect, rng)
        value = patients.count + values.jitter * rng.random(n_patients)
        search = search_cut(value, patients.time_years, patients.event, permutations=permutations, seed=i)
        for name, p in zip(
            found, (search.best_naive_p, search.p_1992, search.p_1994, search.permutation_p), strict=True
        ):
            found[name].append(p)
    return {name: float((np.array(ps) < LEVEL).mean()) for name, ps in found.items()}


def cuts_found(
    n_simulations: int, n_patients: int, hazard_ratio: float, repeats: int, seed: int = 0
) -> dict[str, float]:
    """With a true effect at 11: where the best cut falls, how wide its bootstrap interval is, how often it holds 11."""
    rng = np.random.default_rng(seed)
    cuts, lows, highs, power = [], [], [], []
    for i in tqdm(range(n_simulations), desc=f"hazard ratio {hazard_ratio:g}", leave=False, mininterval=5):
        patients = simulate_patients(n_patients, Effect(hazard_ratio, 11, 0.05, with_age_and_stage=False), rng)
        followed = (patients.count, patients.time_years, patients.event)
        search = search_cut(*followed, permutations=0)
        drawn = bootstrap_cut(*followed, repeats=repeats, seed=i)
        cuts.append(search.cut)
        lows.append(drawn.low)
        highs.append(drawn.high)
        power.append(search.p_1994 < LEVEL)
    low, high = np.array(lows), np.array(highs)
    return {
        "median cut": float(np.median(cuts)),
        "cut, 5th": float(np.quantile(cuts, 0.05)),
        "cut, 95th": float(np.quantile(cuts, 0.95)),
        "low, median": float(np.median(low)),
        "high, median": float(np.median(high)),
        "holds 11": float(((low <= 11) & (high >= 11)).mean()),
        "LS 1994 < 0.05": float(np.mean(power)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=400)
    parser.add_argument("--effects", type=int, default=100, help="cohorts with a true effect, of 1,000 patients")
    options = parser.parse_args()
    n = options.simulations
    error = np.sqrt(LEVEL * (1 - LEVEL) / n)
    print(
        f"No effect, {n} cohorts of {options.patients} patients: share with p < 0.05 (nominal 0.050 ± {2 * error:.3f})"
    )
    print(f"{'':18s}{'naive':>8s}{'LS 1992':>9s}{'LS 1994':>9s}{'permutation':>13s}")
    for values in (COUNTS, DISTINCT):
        shares = rejections(n, options.patients, options.permutations, values)
        print(f"{values.name:18s}{shares['naive']:8.3f}{shares['LS 1992']:9.3f}{shares['LS 1994']:9.3f}"
              f"{shares['permutation']:13.3f}")  # fmt: skip
    print(f"\nTrue effect at 11 per 2 mm², {options.effects} cohorts of 1,000 patients")
    for hazard_ratio in (1.5, 2.0, 3.0):
        row = cuts_found(options.effects, 1000, hazard_ratio, repeats=200)
        print(
            f"hazard ratio {hazard_ratio:g}: best cut {row['median cut']:g} (median; 90 % of cohorts "
            f"{row['cut, 5th']:g} to {row['cut, 95th']:g}); bootstrap interval {row['low, median']:g} to "
            f"{row['high, median']:g} (medians), holds 11 in {row['holds 11']:.0%}; LS 1994 p < 0.05 in "
            f"{row['LS 1994 < 0.05']:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
