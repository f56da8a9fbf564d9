"""Labelled cells as a table: where they lie, which class they are of, and what a network makes of them."""

import hashlib
from collections import Counter
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitoray.errors import BadLabels, TooFewCells
from mitoray.labels.schema import KINDS
from mitoray.training.crops import CROPS

Classes = Literal["kind", "subtype"]
"""What cells are told apart by: their kind alone; or the subtype of figures where it is known, and else the kind."""

CELLS: Final = pa.schema(
    [
        pa.field("cell_id", pa.string(), nullable=False),
        *(
            CROPS.field(name)
            for name in ("crop_id", "slide_id", "case_id", "domain", "x_px", "y_px", "kind", "subtype")
        ),
    ]
)
"""One row per cell. cell_id: names the cell in every file that leaves the house, and tells nothing of it. `x_px, y_px`:
level-0 px of the slide, null where a crop does not say its place.
"""

EMBEDDING: Final = "embedding"
"""Column beside `CELLS`: what a network makes of the cell, list of float32, of length 1."""

FEWEST_OF_A_CLASS: Final = 2


def cells_of(crops: pa.Table) -> pa.Table:
    """The cells (schema `CELLS`) of crops (schema `mitoray.training.crops.CROPS`, with or without images).

    Mined and random crops are no labelled cells, but stand for their class all the same.
    """
    rows = zip(crops["slide_id"].to_pylist(), crops["crop_id"].to_pylist(), strict=True)
    ids = [cell_id(slide_id, crop_id) for slide_id, crop_id in rows]
    return pa.table([ids, *(crops[name] for name in CELLS.names[1:])], names=CELLS.names).cast(CELLS)


def cell_id(slide_id: str, crop_id: str) -> str:
    """20 hexadecimal digits, the same in every run."""
    return hashlib.sha256(repr((slide_id, crop_id)).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def class_names(cells: pa.Table, classes: Classes) -> list[str]:
    """Each cell's class."""
    kinds = [str(kind) for kind in cells["kind"].to_pylist()]
    if classes == "kind":
        return kinds
    return [subtype or kind for kind, subtype in zip(kinds, cells["subtype"].to_pylist(), strict=True)]


def checked_classes(names: list[str]) -> tuple[str, ...]:
    """The classes, figures and imposters first, then by name. Raises TooFewCells for one class, or one of one cell."""
    counts = Counter(names)
    if len(counts) < 2:
        only = next(iter(counts), "none")
        raise TooFewCells(f"All {len(names)} cells are of one class ({only}). Consistency needs two classes or more.")
    if lonely := sorted(name for name, n in counts.items() if n < FEWEST_OF_A_CLASS):
        raise TooFewCells(
            f"The class {lonely[0]!r} has one cell, which no other of its class can lie beside. Leave it out, or give "
            "more of them."
        )
    return tuple(sorted(counts, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name)))


def codes_of(names: list[str], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Each cell's class as its place among the classes."""
    place = {name: n for n, name in enumerate(classes)}
    return np.array([place[name] for name in names], np.int64)


def embeddings_of(cells: pa.Table) -> NDArray[np.float32]:
    """float32 (n, d). Raises BadLabels where the table has none."""
    if EMBEDDING not in cells.column_names or not len(cells):
        raise BadLabels("The table of cells holds no embeddings. Embed the cells first.")
    column: Any = cells[EMBEDDING].combine_chunks()
    flat: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(cells), -1)


def with_embeddings(cells: pa.Table, embeddings: NDArray[np.float32]) -> pa.Table:
    """The cells with the column `EMBEDDING`."""
    values = pa.array(np.ascontiguousarray(embeddings, np.float32).ravel())
    return cells.append_column(EMBEDDING, pa.FixedSizeListArray.from_arrays(values, embeddings.shape[1]))


def one_table(parts: list[pa.Table]) -> pa.Table:
    """The cells of several tables. Raises BadLabels for a cell that occurs twice."""
    cells = pa.concat_tables(parts)
    counts = Counter(cells["cell_id"].to_pylist())
    if twice := [one for one, n in counts.items() if n > 1]:
        row = cells["cell_id"].to_pylist().index(twice[0])
        raise BadLabels(
            f"Crop {cells['crop_id'][row].as_py()!r} of slide {cells['slide_id'][row].as_py()!r} is there twice. Give "
            "each table once."
        )
    return cells
