"""Which cases train, which validate, which test."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import StratifiedKFold

from mitoray.errors import BadLabels, BadOption

_MAX_LEVELS: Final = 4
"""Levels of mitotic activity within a domain, spread evenly over the folds: quartiles, where there are cases enough."""


def published_split(cases: pa.Table) -> dict[str, frozenset[str]]:
    """The slides of each published part ("train", "test", ...).

    cases: schema `CASES`, of which the column `split` names the part. Raises BadLabels for slides without a part, and
    for a case whose slides fall into two parts.
    """
    parts: dict[str, set[str]] = {}
    part_of_case: dict[str, str] = {}
    for slide_id, case_id, part in zip(*(cases[n].to_pylist() for n in ("slide_id", "case_id", "split")), strict=True):
        if part is None:
            raise BadLabels(f"Slide {slide_id!r} belongs to no part of the split. Fill the column split.")
        if part_of_case.setdefault(case_id, part) != part:
            raise BadLabels(f"Case {case_id!r} has slides in {part_of_case[case_id]} and in {part}. Keep cases whole.")
        parts.setdefault(part, set()).add(slide_id)
    return {part: frozenset(slides) for part, slides in parts.items()}


def stratified_folds(counts: pa.Table, folds: int = 5, seed: int = 0) -> np.ndarray:
    """The fold of each case, (n,) int64 from 0: domains and mitotic activity are spread evenly over the folds.

    counts: schema `COUNTS`, one row per case, so that cases stay whole. Within a domain, cases are ranked by their
    mitotic figures and cut into up to four levels of at least `folds` cases. The same seed gives the same folds.
    Default: the stratified 5-fold cross-validation of Aubreville et al. 2023. Raises BadOption, BadLabels.
    """
    if folds < 2:
        raise BadOption(f"{folds} folds are too few. Ask for 2 or more.")
    domains = counts["domain"].to_pylist()
    figures = counts["mitotic_figure"].to_numpy()
    strata = np.zeros(len(counts), np.int64)
    for number, domain in enumerate(dict.fromkeys(domains)):
        rows = np.flatnonzero([d == domain for d in domains])
        if len(rows) < folds:
            raise BadLabels(f"The domain {domain!r} has {len(rows)} cases, too few for {folds} folds. Ask for fewer.")
        levels = min(_MAX_LEVELS, len(rows) // folds)
        ranks = np.argsort(np.argsort(figures[rows], kind="stable"))
        strata[rows] = number * _MAX_LEVELS + ranks * levels // len(rows)
    fold_of_case = np.empty(len(counts), np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(strata, strata)):
        fold_of_case[held_out] = fold
    return fold_of_case


def split_halves(labels: pa.Table, heights_px: Mapping[str, int]) -> tuple[pa.Table, pa.Table]:
    """Labels of the upper half of each slide, to train, and of the lower half, to validate (Bertram et al. 2019).

    labels: schema `LABELS`. heights_px: level-0 height of every labelled slide. A label on the middle line is of the
    lower half. Raises BadLabels for a slide without height.
    """
    slides = labels["slide_id"].to_pylist()
    if missing := sorted(set(slides) - set(heights_px)):
        raise BadLabels(f"{len(missing)} labelled slides have no height, as {missing[0]!r}. Give the height of each.")
    upper = pc.less(labels["y_px"], pa.array([heights_px[slide_id] / 2 for slide_id in slides], pa.float64()))
    return labels.filter(upper), labels.filter(pc.invert(upper))
