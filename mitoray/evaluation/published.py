"""The domain matrices that were published with MIDOG++, and ours beside them.

The numbers are Tables 4 to 7 of Aubreville et al. 2023 (doi 10.1038/s41597-023-02327-4): a RetinaNet with ResNet-18,
mean and standard deviation of a 5-fold cross-validation. Of F1 the paper says "mean F1 score across all test WSIs",
while the published code sums the counts of a tumour type's test images; so both F1 of ours are set beside the one
published. The published AP interpolates (COCO, 101 points) and sees only detections with a score above 0.5; ours does
neither, which lowers it a little for the first reason and raises it for the second.
"""

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from mitoray.errors import BadOption
from mitoray.evaluation.matching import FloatArray
from mitoray.evaluation.matrix import ALL, DomainMatrix, Metric
from mitoray.evaluation.trials import Protocol

log = logging.getLogger(__name__)

_FILE: Final = Path(__file__).with_name("midogpp_matrices.csv")
_FOLDS: Final = 5
_ROUNDING: Final = 0.005
"""The published numbers have two decimals."""

_TUMORS: Final = {
    "human breast cancer": {
        ("hamamatsu xr", "umc utrecht", "human"),
        ("hamamatsu s360", "umc utrecht", "human"),
        ("aperio cs2", "umc utrecht", "human"),
    },
    "canine lung cancer": {("3d histech", "vmu vienna", "canine")},
    "canine lymphosarcoma": {("3d histech", "vmu vienna", "canine")},
    "canine cutaneous mast cell tumor": {("aperio cs2", "fu berlin", "canine")},
    "human neuroendocrine tumor": {("hamamatsu xr", "umc utrecht", "human")},
    "canine soft tissue sarcoma": {("3d histech", "amc new york", "canine"), ("3d histech", "vmu vienna", "canine")},
    "human melanoma": {("hamamatsu xr", "umc utrecht", "human")},
}
"""The seven tumour types in the paper's order, each with its scanners, laboratories and species (Table 1)."""

_SPELLINGS: Final = {
    "human breast carcinoma": "human breast cancer",
    "canine lung carcinoma": "canine lung cancer",
    "canine lymphoma": "canine lymphosarcoma",
    "canine mast cell tumor": "canine cutaneous mast cell tumor",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell of our matrix and of the published one.

    difference: ours − published. within_2_sd: whether it is at most twice the root of both variances summed, give or
    take the rounding of the published mean (0.005); our variance counts 0 where there is a single fold.
    """

    domain: str
    test_domain: str
    ours: float
    ours_sd: float
    published: float
    published_sd: float
    difference: float
    within_2_sd: bool


def midogpp_tumor(domain: str) -> str | None:
    """The tumour type of MIDOG++ that a domain is, in the words of `mitoray.labels.cases`; None for another domain.

    domain: a tumour type in any published spelling, or tumour, scanner, laboratory and species joined by commas, which
    must then be those of MIDOG++.
    """
    tumor, *rest = (" ".join(part.split()).casefold() for part in domain.split(","))
    tumor = tumor.replace("tumour", "tumor")
    tumor = _SPELLINGS.get(tumor, tumor)
    if tumor not in _TUMORS or (rest and tuple(rest) not in _TUMORS[tumor]):
        return None
    return tumor


def read_published(protocol: Protocol, metric: Metric = "f1_pooled") -> DomainMatrix:
    """A published matrix, domains in the paper's order; that of single domains ends with the row "all", as Fig. 3."""
    rows: dict[tuple[str, str], tuple[float, float]] = {}
    wanted = {protocol, ALL} if protocol == "single" else {protocol}
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["protocol"] in wanted and row["metric"] == ("ap" if metric == "ap" else "f1"):
                rows[row["domain"], row["test_domain"]] = float(row["mean"]), float(row["sd"])
    names = tuple(dict.fromkeys(name for name, _ in rows))
    if not names:
        raise BadOption(f"No matrix was published for {protocol!r}. Choose single, leave-one-out or all.")
    values = np.array([[rows[name, column] for column in _TUMORS] for name in names])
    n_folds = np.full(values.shape[:2], _FOLDS, dtype=np.int64)
    return DomainMatrix(protocol, metric, names, tuple(_TUMORS), values[..., 0], values[..., 1], n_folds, _FOLDS)


def published_like(matrix: DomainMatrix) -> DomainMatrix | None:
    """The published matrix with the rows and columns of ours, under our names; None where the two do not compare.

    They compare if every domain is a tumour type of MIDOG++ and no two are the same one. Models trained on all domains,
    or on all but one, compare only if the test domains are all seven; a row "all" of fewer is NaN.
    """
    names = dict.fromkeys([*matrix.row_names, *matrix.column_names])
    tumors = {name: midogpp_tumor(name) for name in names if name != ALL}
    known = [tumor for tumor in tumors.values() if tumor is not None]
    if len(known) < len(tumors):
        return None
    if len(set(known)) < len(known):
        log.info("Some domains are parts of one tumour type, which MIDOG++ joins; no published matrix compares.")
        return None
    complete = {tumors[name] for name in matrix.column_names} == set(_TUMORS)
    if matrix.protocol != "single" and not complete:
        return None
    published = read_published(matrix.protocol, matrix.metric)
    rows = [published.row_names.index(tumors.get(name) or ALL) for name in matrix.row_names]
    columns = [published.column_names.index(tumors[name] or "") for name in matrix.column_names]
    picked = np.ix_(rows, columns)
    absent = np.array([name == ALL and not complete for name in matrix.row_names])[:, None]
    mean, sd = (np.where(absent, np.nan, values[picked]) for values in (published.mean, published.sd))
    return replace(
        published,
        row_names=matrix.row_names,
        column_names=matrix.column_names,
        mean=mean,
        sd=sd,
        n_folds=np.where(absent, 0, published.n_folds[picked]),
    )


def beside_published(matrix: DomainMatrix) -> list[Comparison] | None:
    """Each cell that both matrices have, row by row; None where they do not compare (see `published_like`)."""
    published = published_like(matrix)
    if published is None:
        return None
    difference = matrix.mean - published.mean
    within = np.abs(difference) <= 2 * _sd_of_difference(matrix.sd, published.sd) + _ROUNDING + 1e-9
    return [
        Comparison(
            domain=matrix.row_names[i],
            test_domain=matrix.column_names[j],
            ours=float(matrix.mean[i, j]),
            ours_sd=float(matrix.sd[i, j]),
            published=float(published.mean[i, j]),
            published_sd=float(published.sd[i, j]),
            difference=float(difference[i, j]),
            within_2_sd=bool(within[i, j]),
        )
        for i, j in np.argwhere(~np.isnan(difference)).tolist()
    ]


def _sd_of_difference(ours: FloatArray, published: FloatArray) -> FloatArray:
    root: FloatArray = np.hypot(np.nan_to_num(ours), published)
    return root
