"""Which cell of which class lies where on a map."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitoray.curation.cell_grid import Grid
from mitoray.errors import BadLabels
from mitoray.labels.source import replacing

PLACES: Final = pa.schema(
    [
        pa.field("cell_id", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("column", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)
_METADATA: Final = b"mitoray.cell_map"


@dataclass(frozen=True, eq=False)
class CellMap:
    """A map of cells. ids, names: each cell's id and class; classes: all of them in order; side_px: of a cell."""

    grid: Grid
    ids: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    side_px: int

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top-left px (x, y) of each cell."""
        return [(column * self.side_px, row * self.side_px) for column, row in self.grid.places.tolist()]

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, of all of it: files that belong to this map carry it."""
        of_cells = zip(self.ids, self.names, self.grid.places.tolist(), strict=True)
        told = repr((self.grid.columns, self.grid.rows, self.side_px, self.classes, list(of_cells)))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def write_cell_map(cell_map: CellMap, path: Path) -> None:
    """Keep a map's cells and places as Parquet."""
    grid = cell_map.grid
    table = pa.table([list(cell_map.ids), list(cell_map.names), *grid.places.T], schema=PLACES)
    facts = {
        "columns": grid.columns,
        "rows": grid.rows,
        "side_px": cell_map.side_px,
        "classes": cell_map.classes,
        "digest": cell_map.digest,
    }
    with replacing(path) as part:
        pq.write_table(table.replace_schema_metadata({_METADATA: json.dumps(facts)}), part)


def read_cell_map(path: Path) -> CellMap:
    """The map of such a file. Raises BadLabels where it is none, or was changed."""
    try:
        table = pq.read_table(path)
        facts: Mapping[str, Any] = json.loads((table.schema.metadata or {})[_METADATA])
        places = np.stack([table["column"].to_numpy(), table["row"].to_numpy()], axis=1).reshape(-1, 2)
        found = CellMap(
            Grid(int(facts["columns"]), int(facts["rows"]), places),
            tuple(table["cell_id"].to_pylist()),
            tuple(table["class"].to_pylist()),
            tuple(facts["classes"]),
            int(facts["side_px"]),
        )
    except FileNotFoundError:
        raise BadLabels(f"There is no map {path.name}. Make the map first.") from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BadLabels(f"{path.name} holds no map of cells ({type(error).__name__}). Make the map again.") from error
    if found.digest != facts.get("digest"):
        raise BadLabels(f"{path.name} was changed after it was written. Make the map again.")
    return found
