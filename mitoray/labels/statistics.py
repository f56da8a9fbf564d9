"""How many cases, mitotic figures and imposters a label table holds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.cases import CASES, refuse_strangers
from mitoray.labels.schema import KINDS

COUNTS: Final = pa.schema([*CASES.remove(CASES.get_field_index("slide_id")), *((kind, pa.int64()) for kind in KINDS)])
"""Columns of a count table, one row per case: what is known of it, then its number of labels of each counted kind."""


def counts_per_case(labels: pa.Table, cases: pa.Table | None = None) -> pa.Table:
    """Labels of each counted kind per case, schema `COUNTS`, cases in their order of appearance.

    labels: schema `LABELS`. cases: schema `CASES`; a case without labels counts 0. Without `cases` every labelled slide
    is a case, of the domain that its labels state, and nothing is known of slides without labels. Raises BadLabels for
    a labelled slide that is no case, and for a case of two domains.
    """
    slides, kinds = labels["slide_id"].to_pylist(), labels["kind"].to_pylist()
    if cases is None:
        stated = dict.fromkeys(zip(slides, labels["domain"].to_pylist(), strict=True))
        rows = [{"slide_id": slide_id, "case_id": slide_id, "domain": domain} for slide_id, domain in stated]
    else:
        rows = cases.to_pylist()
        refuse_strangers(slides, dict.fromkeys(row["slide_id"] for row in rows))
    numbers = Counter(zip(slides, kinds, strict=True))
    counts: dict[str, dict[str, Any]] = {}
    for row in rows:
        case = counts.setdefault(row["case_id"], {**row, **dict.fromkeys(KINDS, 0)})
        if case["domain"] != row["domain"]:
            raise BadLabels(f"Case {row['case_id']!r} has slides or labels of two domains. State one domain per case.")
        for kind in KINDS:
            case[kind] += numbers[row["slide_id"], kind]
    return pa.Table.from_pylist(list(counts.values()), schema=COUNTS)


def describe(counts: pa.Table, by: Sequence[str] = ("domain",)) -> pa.Table:
    """Cases, sums and medians per group, as Table 2 of Aubreville et al. 2023; the last row is the total.

    counts: schema `COUNTS`. by: columns that make a group, in order of appearance. Gives the columns `by` (in the total
    row the first is "total"), `cases`, and for each kind `<kind>_sum` (int) and `<kind>_median` (per case, float).
    """
    keys = list(zip(*(counts[name].to_pylist() for name in by), strict=True))
    rows = [_row(by, key, counts.filter([k == key for k in keys])) for key in dict.fromkeys(keys)]
    return pa.Table.from_pylist([*rows, _row(by, ("total", *[None] * (len(by) - 1)), counts)])


def _row(by: Sequence[str], key: tuple[str | None, ...], counts: pa.Table) -> dict[str, Any]:
    numbers = {kind: counts[kind].to_numpy() for kind in KINDS}
    row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"cases": len(counts)}
    for kind, number in numbers.items():
        row[f"{kind}_sum"] = int(number.sum())
        row[f"{kind}_median"] = float(np.median(number)) if len(number) else None
    return row
