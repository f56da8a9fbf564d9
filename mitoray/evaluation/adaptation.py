"""What adapting detectors to another domain brings: the table "source only / TO / TO+MS / TL".

Table 4 of Aubreville et al. 2020 brings models of canine tumours to human ones. TO: the threshold is chosen on the
training part of the target domain. MS: and the model too, among those of a run. TL: the model is trained on, there
(transfer learning).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.errors import BadTrialScores
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.evaluation.curves import average_precision, sweep
from mitoray.evaluation.tables import domain_table
from mitoray.evaluation.thresholds import best_threshold

Method = Literal["source only", "TO", "TO+MS", "TL"]
METHODS: Final[tuple[Method, ...]] = ("source only", "TO", "TO+MS", "TL")

SelectBy = Literal["f1", "ap"]

ADAPTATION: Final = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("f1_pooled", pa.float64()),
        pa.field("ap", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("n_figures", pa.int64()),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("f1_chosen", pa.float64()),
    ]
)
"""Columns of adaptation.csv, one row per run of a source model and method.

`f1_pooled`, `ap`: on the test part of the target domain, null where undefined. `threshold`: null where nothing was
detected on the slides that should have chosen it; F1 is then 0. `model`: the bundle that was judged. `n_figures`: those
of the test part. `f1_chosen`: F1 on the slides that chose threshold and model, which flatters; null for source only.
"""


@dataclass(frozen=True)
class Choice:
    """The best threshold of a model on the slides it may be chosen on, with its F1 and the model's AP there.

    threshold: None where nothing was detected; F1 and AP are then 0.
    """

    threshold: float | None
    f1: float
    ap: float


@dataclass(frozen=True)
class Adapted:
    """One line of the table: mean and sample deviation (n − 1; NaN for one run) over the runs where they are defined.

    n_runs: runs that the method was applied to. best_run: the one of the highest `f1_chosen`, and best_f1 its F1 on the
    test part; None and NaN for source only. The paper gives one number without a deviation for TO and MS, as a choice
    among its five runs would.
    """

    method: Method
    n_runs: int
    f1_mean: float
    f1_sd: float
    ap_mean: float
    ap_sd: float
    best_run: str | None
    best_f1: float


def best_choice(training_part: MatchedCohort) -> Choice:
    """Threshold optimisation: exact, over every threshold that makes a difference. Raises BadTrialScores."""
    counts = sweep(training_part.matchings)
    if counts.n_labels == 0:
        raise BadTrialScores(
            f"The {len(training_part.slides)} slides that should choose a threshold hold no mitotic figure. Choose on "
            "slides that do."
        )
    best = best_threshold(counts)
    if best is None:
        return Choice(None, 0.0, 0.0)
    return Choice(best.threshold, best.f1, average_precision(counts))


def selected(choices: Mapping[str, Choice], by: SelectBy = "f1") -> str:
    """Model selection: the name of the best candidate; of equals the first."""
    if not choices:
        raise BadTrialScores("There are no candidates to select from. Give a run at least one model.")
    return max(choices, key=lambda name: choices[name].f1 if by == "f1" else choices[name].ap)


def adaptation_row(
    test: MatchedCohort,
    *,
    run: str,
    method: Method,
    model: str,
    domain: str,
    threshold: float | None,
    f1_chosen: float | None = None,
) -> dict[str, Any]:
    """A row of `ADAPTATION`: the model on the test part, with detections that score above the threshold."""
    whole = domain_table(test, np.inf if threshold is None else threshold, repeats=0)[-1]
    return {
        "run": run,
        "method": method,
        "f1_pooled": _defined(whole.f1_pooled),
        "ap": _defined(whole.average_precision),
        "threshold": threshold,
        "model": model,
        "n_figures": whole.n_labels,
        "domain": domain,
        "f1_chosen": f1_chosen,
    }


def tuned_rows(validation: MatchedCohort, test: MatchedCohort, **which: Any) -> list[dict[str, Any]]:
    """The row of a model trained on, with the threshold that is best on its validation slides."""
    choice = best_choice(validation)
    return [adaptation_row(test, method="TL", threshold=choice.threshold, f1_chosen=choice.f1, **which)]


def adaptation_table(rows: Sequence[Mapping[str, Any]]) -> list[Adapted]:
    """The table, a line for each method that any run has, in the order of `METHODS`.

    Raises BadTrialScores for no rows, an unknown method, and for a run that has a method twice.
    """
    if not rows:
        raise BadTrialScores("There are no rows of adapted models. Judge at least one run.")
    if unknown := [row["method"] for row in rows if row["method"] not in METHODS]:
        raise BadTrialScores(f"The method {unknown[0]!r} is unknown. There are {', '.join(METHODS)}.")
    keys = [(row["run"], row["method"]) for row in rows]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise BadTrialScores(f"Run {twice[0][0]!r} has two rows of {twice[0][1]!r}. Keep one.")
    return [_line(method, own) for method in METHODS if (own := [row for row in rows if row["method"] == method])]


def as_text(table: Sequence[Adapted]) -> str:
    """The table for a terminal."""
    head = ("method", "runs", "F1, mean ± sd", "AP, mean ± sd", "best of the runs")
    lines: list[tuple[str, ...]] = [head]
    for line in table:
        best = f"{_3(line.best_f1)} ({line.best_run})" if line.best_run else "–"
        spread = [f"{_3(m)} ± {_3(s)}" for m, s in ((line.f1_mean, line.f1_sd), (line.ap_mean, line.ap_sd))]
        lines.append((line.method, str(line.n_runs), *spread, best))
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() for cells in lines)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a CSV file of `ADAPTATION`."""
    file = io.BytesIO()
    pacsv.write_csv(pa.Table.from_pylist([dict(row) for row in rows], schema=ADAPTATION), file)
    return file.getvalue()


def from_csv(content: bytes) -> list[dict[str, Any]]:
    """The rows of such a file. Raises BadTrialScores."""
    columns = dict(zip(ADAPTATION.names, ADAPTATION.types, strict=True))
    options = pacsv.ConvertOptions(column_types=columns, include_columns=ADAPTATION.names, null_values=["", "nan"])
    try:
        rows: list[dict[str, Any]] = pacsv.read_csv(io.BytesIO(content), convert_options=options).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise BadTrialScores(f"The CSV file of adapted models cannot be read: {error}. Write it again.") from error
    return rows


def table_rows(table: Sequence[Adapted]) -> list[dict[str, Any]]:
    """The table's lines by name; null where NaN."""
    return [{k: _defined(v) if isinstance(v, float) else v for k, v in asdict(line).items()} for line in table]


def _line(method: Method, rows: Sequence[Mapping[str, Any]]) -> Adapted:
    f1, ap = (np.array([row[name] for row in rows if row[name] is not None]) for name in ("f1_pooled", "ap"))
    chosen = [row for row in rows if row["f1_chosen"] is not None]
    best = max(chosen, key=lambda row: float(row["f1_chosen"]), default=None)
    best_f1 = np.nan if best is None or best["f1_pooled"] is None else float(best["f1_pooled"])
    return Adapted(
        method, len(rows), _mean(f1), _sd(f1), _mean(ap), _sd(ap), None if best is None else best["run"], best_f1
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _3(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
