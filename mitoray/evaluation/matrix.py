"""The domain matrix: trained on (or without) the row's domain, tested on the column's (Aubreville et al. 2023)."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from mitoray.errors import BadOption
from mitoray.evaluation.matching import FloatArray, IntArray
from mitoray.evaluation.trials import Protocol, checked_trial_scores

Metric = Literal["f1_pooled", "f1_image_mean", "ap"]

ALL: Final = "all"
"""Name of the row of models trained on all domains."""

CSV_COLUMNS: Final = ("protocol", "metric", "domain", "test_domain", "mean", "sd", "n_folds")

_NAME_CHARACTERS: Final = 64
"""Longest name in a terminal: tumour, scanner, laboratory and species of any MIDOG++ domain fit."""

_FIRST_COLUMN: Final[dict[str, str]] = {"single": "trained on", "leave-one-out": "trained without", "all": "trained on"}


@dataclass(frozen=True)
class DomainMatrix:
    """Mean and standard deviation over folds of one metric, for each row of models and each test domain.

    row_names: trained domains (single) or left-out ones (leave-one-out), and last "all" if such models are there too.
    column_names: test domains, those of the rows first and in their order, so that row and column i are one domain.
    mean, sd: (rows, columns) float64; NaN where no fold has a value. sd divides by n − 1 and is NaN for a single fold.
    The MIDOG++ paper does not say which divisor it takes, nor does its code compute it; for 5 folds, dividing by n
    would give 0.89 times as much. n_folds: (rows, columns) int64, folds with a value. folds: how many there should be,
    the most that any row of models has.
    """

    protocol: Protocol
    metric: Metric
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    mean: FloatArray
    sd: FloatArray
    n_folds: IntArray
    folds: int

    @property
    def incomplete(self) -> list[tuple[str, str, int]]:
        """Row, column and number of folds of each cell with fewer folds than there should be."""
        cells = np.argwhere(self.n_folds < self.folds).tolist()
        return [(self.row_names[i], self.column_names[j], int(self.n_folds[i, j])) for i, j in cells]

    @property
    def own_domain(self) -> np.ndarray:
        """(rows, columns) bool: cells whose row and column are the same domain."""
        return np.array([[row == column for column in self.column_names] for row in self.row_names])


@dataclass(frozen=True)
class MatrixSummary:
    """Means over the cells of a matrix that have a value; NaN where there is none.

    in_domain: tested on a domain that was trained on: the diagonal (single), all but the diagonal (leave-one-out), all
    (all). out_of_domain: tested on one that was not: the other cells. A test domain that no leave-one-out row names is
    in neither, for the scores do not tell whether it was trained on. gap: in_domain − out_of_domain. n_in, n_out: cells
    averaged. all_domains: mean of the row "all", which in a single-domain matrix is in neither mean; NaN without one.
    """

    in_domain: float
    out_of_domain: float
    gap: float
    n_in: int
    n_out: int
    all_domains: float


def domain_matrix(rows: pa.Table, metric: Metric = "f1_pooled", protocol: Protocol | None = None) -> DomainMatrix:
    """The matrix of one protocol from trial scores, domains sorted by name.

    rows: schema `TRIAL_SCORES`. protocol: needed only where `rows` holds both single and leave-one-out. Models trained
    on all domains become the last row of a single-domain matrix, as in the paper's Fig. 3, or a matrix of their own.
    Cells of trials yet to be run are NaN, and `incomplete` counts their folds. Raises BadOption for an unknown metric
    or a protocol without rows; BadTrialScores as `checked_trial_scores`.
    """
    if metric not in ("f1_pooled", "f1_image_mean", "ap"):
        raise BadOption(f"The metric {metric!r} is unknown. Choose f1_pooled, f1_image_mean or ap.")
    rows = checked_trial_scores(rows)
    protocol = _protocol(rows, protocol)
    taken = [protocol, ALL] if protocol == "single" else [protocol]
    values: dict[tuple[str, str], list[float]] = {}
    folds: dict[str, set[int]] = {}
    for row in rows.filter(pc.is_in(rows["protocol"], pa.array(taken))).to_pylist():
        name = ALL if row["protocol"] == ALL else row["domain"]
        folds.setdefault(name, set()).add(row["fold"])
        cell = values.setdefault((name, row["test_domain"]), [])
        if row[metric] is not None and not np.isnan(row[metric]):
            cell.append(row[metric])
    domains = sorted(folds.keys() - {ALL})
    columns = [*domains, *sorted({column for _, column in values} - set(domains))]
    names = [*domains, *([ALL] if ALL in folds else [])]
    cells = [[values.get((name, column), []) for column in columns] for name in names]
    return DomainMatrix(
        protocol=protocol,
        metric=metric,
        row_names=tuple(names),
        column_names=tuple(columns),
        mean=np.array([[np.mean(cell) if cell else np.nan for cell in line] for line in cells]),
        sd=np.array([[np.std(cell, ddof=1) if len(cell) > 1 else np.nan for cell in line] for line in cells]),
        n_folds=np.array([[len(cell) for cell in line] for line in cells], dtype=np.int64),
        folds=max(map(len, folds.values())),
    )


def summary(matrix: DomainMatrix) -> MatrixSummary:
    """How well the models do on domains they were trained on and on others, and the gap between."""
    is_all = np.array([name == ALL for name in matrix.row_names])[:, None]
    own = matrix.own_domain
    if matrix.protocol == "single":
        inside, outside = own & ~is_all, ~own & ~is_all
    elif matrix.protocol == "leave-one-out":
        inside, outside = ~own & np.isin(matrix.column_names, matrix.row_names), own
    else:
        inside, outside = np.ones_like(own), np.zeros_like(own)
    (in_domain, n_in), (out_of_domain, n_out) = (_mean(matrix.mean[cells]) for cells in (inside, outside))
    all_domains, _ = _mean(matrix.mean[np.broadcast_to(is_all, own.shape)])
    return MatrixSummary(in_domain, out_of_domain, in_domain - out_of_domain, n_in, n_out, all_domains)


def as_csv(matrix: DomainMatrix) -> str:
    """One line per cell, columns `CSV_COLUMNS`; mean and sd are empty where NaN. The row "all" is of protocol all."""
    cells = [
        (ALL if name == ALL else matrix.protocol, matrix.metric, name, column, matrix.mean[i, j], matrix.sd[i, j], n)
        for i, name in enumerate(matrix.row_names)
        for j, (column, n) in enumerate(zip(matrix.column_names, matrix.n_folds[i], strict=True))
    ]
    columns = [list(column) for column in zip(*cells, strict=True)]
    kinds = [*[pa.string()] * 4, *[pa.float64()] * 2, pa.int64()]
    arrays = [pa.array(c, kind, from_pandas=True) for c, kind in zip(columns, kinds, strict=True)]
    text = pa.BufferOutputStream()
    pacsv.write_csv(pa.table(arrays, CSV_COLUMNS), text)
    return str(text.getvalue().to_pybytes(), "utf-8")


def as_text(matrix: DomainMatrix) -> str:
    """The matrix for a terminal: test domains by number, which the first column explains; `*` marks cells that lack
    folds, counted below."""
    numbers = {name: f"{n} " for n, name in enumerate(matrix.column_names, start=1)}
    short = set(matrix.incomplete)
    lines = [[_FIRST_COLUMN[matrix.protocol], *(number.strip() for number in numbers.values())]]
    for i, name in enumerate(matrix.row_names):
        line = [numbers.get(name, "") + _printable(name)]
        for j, column in enumerate(matrix.column_names):
            mark = "*" if (name, column, int(matrix.n_folds[i, j])) in short else " "
            line.append(cell_text(matrix.mean[i, j], matrix.sd[i, j]) + mark)
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
    unexplained = [f"{numbers[name]}{_printable(name)}" for name in matrix.column_names if name not in matrix.row_names]
    notes = [f"also tested on: {', '.join(unexplained)}"] if unexplained else []
    return "\n".join([*table, *notes, f"{matrix.metric}: {folds_text(matrix)}"])


def folds_text(matrix: DomainMatrix) -> str:
    """What the numbers are over, in one line, with the cells that lack folds."""
    text = f"mean ± sd over {matrix.folds} fold{'s' if matrix.folds > 1 else ''}"
    if lacking := len(matrix.incomplete):
        text += f"; * {lacking} of {matrix.n_folds.size} cells have fewer"
    return text


def cell_text(mean: float, sd: float) -> str:
    """Mean ± sd with two decimals; a dash for no value, no ± for no sd."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.2f}" if np.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _protocol(rows: pa.Table, protocol: Protocol | None) -> Protocol:
    """The protocol asked for, or the only one that there is."""
    present = set(rows["protocol"].to_pylist())
    if protocol is not None:
        if protocol not in present:
            raise BadOption(f"There are no trials of the protocol {protocol}, only of {', '.join(sorted(present))}.")
        return protocol
    if {"single", "leave-one-out"} <= present:
        raise BadOption("The trials are of single and of leave-one-out. Say of which protocol the matrix is to be.")
    found: Protocol = (present - {ALL} or present).pop()
    return found


def _mean(values: FloatArray) -> tuple[float, int]:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan, len(values)


def _printable(name: str) -> str:
    """The name without the characters that steer a terminal, and not too long for it."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= _NAME_CHARACTERS else plain[: _NAME_CHARACTERS - 1] + "…"
