"""Which slides a search may look at, and which judge what it found."""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from mitoray.errors import BadLabels, BadOption
from mitoray.labels.splits import published_split

SEARCHED = ("train", "validation")


def search_parts(
    cases: pa.Table, searched: Sequence[str] = SEARCHED, test_share: float | None = None, seed: int = 0
) -> tuple[frozenset[str], frozenset[str]]:
    """The slides to search and the slides to judge, by slide_id; cases stay whole.

    cases: schema `CASES`. With `test_share` about that share of the cases judges, drawn by a hash of seed and case, so
    that a case keeps its part whatever else the table holds. Without it the column `split` tells: the parts in
    `searched` are searched, "test" judges, others do neither; where no slide has a split, all are searched and none
    judges. Raises BadLabels for slides of which only some have a split, a case in two parts, or nothing to search.
    """
    slides = cases["slide_id"].to_pylist()
    if test_share is not None:
        if not 0 < test_share < 1:
            raise BadOption(f"test_share must lie between 0 and 1, not {test_share}.")
        drawn = [_draw(case, seed) < test_share for case in cases["case_id"].to_pylist()]
        test = frozenset(slide for slide, is_test in zip(slides, drawn, strict=True) if is_test)
        search = frozenset(slides) - test
        if not search:
            raise BadLabels(f"All {len(set(slides))} slides were drawn to judge. Ask for a lower test_share.")
    elif cases["split"].null_count == len(cases):
        search, test = frozenset(slides), frozenset()
    else:
        parts = published_split(cases)
        search = frozenset(slide for name in searched for slide in parts.get(name, ()))
        test = parts.get("test", frozenset()) - search
    if not search:
        raise BadLabels(f"No slide is in the parts to search ({', '.join(searched)}). Check the column split.")
    return search, test


def _draw(case_id: str, seed: int) -> float:
    """In [0, 1), the same for a case wherever it is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {case_id}".encode()).digest()[:6]) / 2**48
