"""An ambiguous class split by a classifier: likely figures for experts to look at again, look-alikes, and the rest.

Hard-example augmented, expert labelled (HEAEL) data: Bertram et al. 2019, Fig. 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitoray.errors import BadOption


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a label table: for experts to look at again, look-alikes, and those that stay what they are."""

    likely: tuple[int, ...]
    look_alikes: tuple[int, ...]
    others: tuple[int, ...]


def split_by_score(
    numbers: Sequence[int], scores: NDArray[np.float64], *, likely: float = 0.5, look_alike: float = 0.0
) -> Split:
    """Split labels of an ambiguous class by their scores (n,), 0 to 1.

    numbers: their rows in the label table. likely: score from which a label is a likely figure; look_alike: from which
    it is a look-alike else; below, it stays. Raises BadOption unless 0 ≤ look_alike ≤ likely ≤ 1.
    """
    if not 0 <= look_alike <= likely <= 1:
        raise BadOption(f"look_alike {look_alike} and likely {likely} must lie between 0 and 1, in this order.")
    rows, high, low = np.asarray(numbers, np.int64), scores >= likely, scores < look_alike
    parts = (rows[chosen] for chosen in (high, ~high & ~low, low & ~high))
    return Split(*(tuple(part.tolist()) for part in parts))


def of_kind(labels: pa.Table, kind: str) -> list[int]:
    """Rows of a label table that are of a kind. Raises BadOption where there is none."""
    kinds = labels["kind"].to_pylist()
    numbers = [number for number, one in enumerate(kinds) if one == kind]
    if not numbers:
        raise BadOption(f"No label is of the kind {kind!r}. There are {', '.join(sorted(map(repr, set(kinds))))}.")
    return numbers


def changes(split: Split, decided: Mapping[int, Mapping[str, object]]) -> dict[int, dict[str, object]]:
    """What changes in which row: look-alikes become imposters, and of the likely ones what experts `decided`."""
    made: dict[int, dict[str, object]] = {number: {"kind": "imposter"} for number in split.look_alikes}
    return made | {number: dict(change) for number, change in decided.items()}
