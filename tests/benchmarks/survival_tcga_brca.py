"""TCGA-CDR through mitoray beside lifelines on the raw file.

    python tests/benchmarks/survival_tcga_brca.py --clinical ../shared/data/tcga_brca/tcga_cdr_brca.csv

Real patients, no slides. The reference reads the CSV with pandas and calls lifelines; nothing of mitoray is in its way.
"""

import argparse

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test, proportional_hazard_test

from mitoray.survival.clinical import STAGES, ClinicalCohort, read_clinical
from mitoray.survival.columns import DAYS_PER_YEAR
from mitoray.survival.cox import cox, indicators, ordinal
from mitoray.survival.kaplan_meier import log_rank, survival_curves

TOLERANCE = 1e-9


def raw(path: str) -> pd.DataFrame:
    """The rows with a positive OS.time, read by pandas alone; stage I to IV by the text in front of the letters."""
    table = pd.read_csv(path)
    table = table[table["OS.time"] > 0].copy()
    stage = table["ajcc_pathologic_tumor_stage"].str.extract(r"^Stage (IV|I{1,3})[ABC]?$")[0]
    table["stage"], table["rank"] = stage, stage.map({"I": 1, "II": 2, "III": 3, "IV": 4})
    table["decades"] = table["age_at_initial_pathologic_diagnosis"] / 10
    return table


def differences(cohort: ClinicalCohort, table: pd.DataFrame) -> dict[str, float]:
    """The largest difference between mitoray and lifelines on the raw table, by what was computed."""
    patients = cohort.patients.to_pandas()
    staged, raw_staged = patients[patients["stage"].notna()], table[table["stage"].notna()]
    return {
        "Kaplan–Meier and medians by stage": _curves(staged, raw_staged),
        "log-rank by stage": _log_rank(staged, raw_staged),
        "Cox, age": _cox(
            patients, {"decades": patients["age_years"].to_numpy() / 10}, table[["OS", "OS.time", "decades"]]
        ),
        "Cox, stage as a step": _cox(
            patients, {"rank": ordinal(patients["stage"].tolist(), STAGES)}, table[["OS", "OS.time", "rank"]]
        ),
        "Cox, age and stage": _cox(
            patients,
            {
                "decades": patients["age_years"].to_numpy() / 10,
                "rank": ordinal(patients["stage"].tolist(), STAGES),
            },
            table[["OS", "OS.time", "decades", "rank"]],
        ),
        "Cox, stage in categories": _cox(
            patients,
            indicators(patients["stage"].tolist(), STAGES),
            raw_staged[["OS", "OS.time"]].assign(
                **{f"{s} vs I": (raw_staged["stage"] == s).astype(float) for s in STAGES[1:]}
            ),
        ),
    }


def _curves(ours: pd.DataFrame, table: pd.DataFrame) -> float:
    worst = 0.0
    curves = survival_curves(
        ours["time_days"].to_numpy() / DAYS_PER_YEAR, ours["event"].to_numpy(), ours["stage"].tolist(), STAGES
    )
    for curve in curves:
        group = table[table["stage"] == curve.group]
        fitted = KaplanMeierFitter().fit(group["OS.time"], group["OS"])
        limits = fitted.confidence_interval_survival_function_.to_numpy()
        pairs = [
            (curve.time, fitted.timeline / DAYS_PER_YEAR),
            (curve.survival, fitted.survival_function_.to_numpy()[:, 0]),
            (curve.low, limits[:, 0]),
            (curve.high, limits[:, 1]),
        ]
        if np.isfinite(curve.median) or np.isfinite(fitted.median_survival_time_):
            pairs.append((np.array([curve.median]), np.array([fitted.median_survival_time_ / DAYS_PER_YEAR])))
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in pairs))
    return worst


def _log_rank(ours: pd.DataFrame, table: pd.DataFrame) -> float:
    test = log_rank(ours["time_days"].to_numpy(), ours["event"].to_numpy(), ours["stage"].tolist())
    reference = multivariate_logrank_test(table["OS.time"], table["stage"], table["OS"])
    return max(abs(test.statistic - reference.test_statistic), abs(test.p - reference.p_value))


def _cox(ours: pd.DataFrame, covariates: dict[str, np.ndarray], table: pd.DataFrame) -> float:
    model = cox(ours["time_days"].to_numpy(), ours["event"].to_numpy(), covariates)
    table = table.dropna()
    fitter = CoxPHFitter().fit(table, "OS.time", "OS")
    summary = fitter.summary
    proportional = proportional_hazard_test(fitter, table, time_transform="rank").summary["p"]
    worst = abs(model.c_index - fitter.concordance_index_)
    for ratio in model.ratios:
        row = summary.loc[ratio.name]
        pairs = [
            (ratio.ratio, row["exp(coef)"]),
            (ratio.low, row["exp(coef) lower 95%"]),
            (ratio.high, row["exp(coef) upper 95%"]),
            (ratio.p, row["p"]),
            (ratio.proportional_p, proportional[ratio.name]),
        ]
        worst = max(worst, *(abs(a - b) for a, b in pairs))
    return float(worst)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clinical", required=True, help="TCGA-CDR table of TCGA-BRCA, CSV")
    path = parser.parse_args().clinical
    cohort, table = read_clinical(path), raw(path)
    everyone = pd.read_csv(path)
    print(f"{cohort.n_rows:,} patients, {int(everyone['OS'].sum())} deaths")
    for reason, n in cohort.reasons.items():
        print(f"  excluded: {n}, {reason}")
    events = cohort.patients["event"].to_pylist()
    print(f"  included: {len(events):,}, {sum(events)} deaths")
    patients = cohort.patients.to_pandas()
    time, event = patients["time_days"].to_numpy() / DAYS_PER_YEAR, patients["event"].to_numpy()
    staged = patients["stage"].notna().to_numpy()
    print(f"\n  with stage I to IV: {staged.sum():,}")
    for curve in survival_curves(time[staged], event[staged], patients["stage"][staged].tolist(), STAGES):
        five, ten = curve.at(np.array([5.0, 10.0]))
        print(f"  stage {curve.group:3s} {curve.n:4d} patients, {curve.n_events:3d} deaths, survival after 5 / 10 "
              f"years {five:.3f} / {ten:.3f}, median {curve.median:.1f} years")  # fmt: skip
    test = log_rank(time[staged], event[staged], patients["stage"][staged].tolist())
    print(f"  log-rank: chi² {test.statistic:.2f}, {test.degrees} degrees of freedom, p {test.p:.2g}")
    age = patients["age_years"].to_numpy() / 10
    steps = ordinal(patients["stage"].tolist(), STAGES)
    for name, covariates in {
        "age": {"age, per 10 years": age},
        "stage": {"stage, per step": steps},
        "age and stage": {"age, per 10 years": age, "stage, per step": steps},
        "stage in categories": indicators(patients["stage"].tolist(), STAGES, "stage "),
    }.items():
        model = cox(time, event, covariates)
        print(f"  Cox, {name}: {model.n:,} patients, {model.n_events} deaths, C-index {model.c_index:.4f}")
        for r in model.ratios:
            print(f"    {r.name}: hazard ratio {r.ratio:.3f} ({r.low:.3f} to {r.high:.3f}), p {r.p:.2g}, "
                  f"proportional hazards p {r.proportional_p:.2g}")  # fmt: skip
    print(f"\nLargest difference to lifelines on the raw CSV (allowed: {TOLERANCE:g})")
    found = differences(cohort, table)
    for name, difference in found.items():
        print(f"  {name}: {difference:.1e}")
    if max(found.values()) > TOLERANCE:
        raise SystemExit("mitoray differs from lifelines")


if __name__ == "__main__":
    main()
