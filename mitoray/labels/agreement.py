"""How far experts agree on what a mitotic figure is."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import cohen_kappa_score

from mitoray.errors import BadLabels
from mitoray.labels.schema import KINDS


def expert_agreement(labels: pa.Table, by: str = "domain") -> pa.Table:
    """Shares of agreement as Table 3 of Aubreville et al. 2023; the last row is the total.

    labels: schema `LABELS`; those with fewer than two votes, or of a kind that does not count, are left out. The first
    two votes are the two experts', the next one is the third expert's, who decides where they disagree. Gives per value
    of the column `by`: `labels` (int); of these the shares `both_mitotic, both_imposter, disagreed`; of the disagreed
    the third expert's `third_mitotic, third_imposter` (null without any); of all `final_mitotic, final_imposter`; and
    `cohen_kappa` of the two experts. Shares are 0 to 1. Raises BadLabels if nothing is rated.
    """
    groups: dict[Any, list[tuple[str, list[str]]]] = {}
    for group, kind, votes in zip(*(labels[name].to_pylist() for name in (by, "kind", "votes")), strict=True):
        if kind in KINDS and votes and len(votes) > 1:
            groups.setdefault(group, []).append((kind, [vote["kind"] for vote in votes]))
    if not groups:
        raise BadLabels("No label has the votes of two experts. Read a file that holds each expert's vote.")
    rated = [{by: group, **_shares(group_labels)} for group, group_labels in groups.items()]
    return pa.Table.from_pylist([*rated, {by: "total", **_shares([one for group in groups.values() for one in group])}])


def cohen_kappa(labels: pa.Table, first: str, second: str) -> float:
    """Cohen's kappa of two raters, by name, over the labels that both have rated (their last vote). Raises BadLabels.

    -1 to 1; NaN if both always gave one and the same kind.
    """
    pairs = [
        (given[first], given[second])
        for votes in labels["votes"].to_pylist()
        if {first, second} <= (given := {vote["rater"]: vote["kind"] for vote in votes or ()}).keys()
    ]
    if not pairs:
        raise BadLabels(f"No label has a vote of both {first!r} and {second!r}. Name raters as the votes do.")
    return _kappa(pairs)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa of any number of raters. Fleiss 1971, Psychological Bulletin 76(5).

    counts: (items, kinds) int, how many raters gave an item a kind; every item has the same number of raters, two or
    more. -1 to 1; NaN if all raters always gave one kind. Raises BadLabels.
    """
    raters = counts.sum(axis=-1)
    if counts.ndim != 2 or not len(counts) or (raters != raters[0]).any() or raters[0] < 2:
        raise BadLabels("Fleiss' kappa needs items that all have the same number of votes, two or more. Select these.")
    n = float(raters[0])
    observed = ((counts.astype(np.float64) ** 2).sum(axis=1) - n).mean() / (n * (n - 1))
    expected = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


def vote_counts(labels: pa.Table, votes: int) -> np.ndarray:
    """For `fleiss_kappa`: (items, kinds) int64, the first `votes` votes of every label that has so many."""
    given = [[vote["kind"] for vote in all_votes or ()][:votes] for all_votes in labels["votes"].to_pylist()]
    complete = [kinds for kinds in given if len(kinds) == votes]
    columns = sorted({kind for kinds in complete for kind in kinds})
    return np.array([[kinds.count(kind) for kind in columns] for kinds in complete], np.int64).reshape(-1, len(columns))


def _shares(rated: list[tuple[str, list[str]]]) -> dict[str, float | int | None]:
    mitotic, imposter = KINDS
    disagreed = [votes for _, votes in rated if votes[0] != votes[1]]
    third = [votes[2] for votes in disagreed if len(votes) > 2]
    return {
        "labels": len(rated),
        "both_mitotic": _share(votes[:2] == [mitotic] * 2 for _, votes in rated),
        "both_imposter": _share(votes[:2] == [imposter] * 2 for _, votes in rated),
        "disagreed": len(disagreed) / len(rated),
        "third_mitotic": _share(vote == mitotic for vote in third),
        "third_imposter": _share(vote == imposter for vote in third),
        "final_mitotic": _share(kind == mitotic for kind, _ in rated),
        "final_imposter": _share(kind == imposter for kind, _ in rated),
        "cohen_kappa": _kappa([(votes[0], votes[1]) for _, votes in rated]),
    }


def _kappa(pairs: list[tuple[str, str]]) -> float:
    ours, theirs = zip(*pairs, strict=True)
    return float(cohen_kappa_score(ours, theirs)) if len({*ours, *theirs}) > 1 else float("nan")


def _share(hits: Iterable[bool]) -> float | None:
    all_hits = list(hits)
    return sum(all_hits) / len(all_hits) if all_hits else None
