"""What more training material brings: F1 against annotated area or number of slides (Bertram et al. 2019, Fig. 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from mitoray.errors import BadTrialScores
from mitoray.evaluation.matching import FloatArray, IntArray

HPF_MM2: Final = 0.237
"""Area of one high power field, mm²: Meuten et al., as taken by Bertram et al. 2019."""

Amount = Literal["area_hpf", "n_slides"]


@dataclass(frozen=True)
class AreaCurve:
    """Mean and standard deviation of F1 over repeats, for each amount of training material.

    measure: what the amounts are, high power fields per slide (0.237 mm² each) or slides. amount: (k,) float64, rising.
    mean, sd: (k,) float64; sd divides by n − 1 and is NaN for a single repeat. n_repeats: (k,) int64.
    """

    measure: Amount
    amount: FloatArray
    mean: FloatArray
    sd: FloatArray
    n_repeats: IntArray


def area_curve(rows: Sequence[Mapping[str, Any]]) -> AreaCurve:
    """Summarise an ablation: one row per trained model, with `area_hpf` or `n_slides`, `repeat` and `f1`.

    Raises BadTrialScores for no rows, rows with both measures or neither, a model that occurs twice, an amount that is
    not above 0 or an F1 outside 0 to 1.
    """
    measure: Amount | None = None
    found: dict[float, dict[Any, float]] = {}
    for number, row in enumerate(rows, start=1):
        measures: list[Amount] = [name for name in ("area_hpf", "n_slides") if row.get(name) is not None]
        if len(measures) != 1 or measure not in (None, measures[0]) or not {"repeat", "f1"} <= row.keys():
            raise BadTrialScores(
                f"Row {number} of the ablation has the columns {', '.join(row)}. Give every row repeat, f1, and either "
                "area_hpf or n_slides, the same in all."
            )
        measure = measures[0]
        amount, f1 = float(row[measure]), float(row["f1"])
        if not (np.isfinite(amount) and amount > 0 and 0 <= f1 <= 1):
            raise BadTrialScores(
                f"Row {number} of the ablation has {measure} {amount} and f1 {f1}. The one must be above 0, the other "
                "within 0 to 1."
            )
        repeats = found.setdefault(amount, {})
        if row["repeat"] in repeats:
            raise BadTrialScores(f"Row {number} of the ablation repeats {measure} {amount:g}, repeat {row['repeat']}.")
        repeats[row["repeat"]] = f1
    if measure is None:
        raise BadTrialScores("The ablation has no rows. Score at least one model.")
    amounts = sorted(found)
    values = [np.array(list(found[amount].values())) for amount in amounts]
    return AreaCurve(
        measure=measure,
        amount=np.array(amounts),
        mean=np.array([v.mean() for v in values]),
        sd=np.array([v.std(ddof=1) if len(v) > 1 else np.nan for v in values]),
        n_repeats=np.array([len(v) for v in values], dtype=np.int64),
    )
