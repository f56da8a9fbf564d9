"""The label table of AMi-Br, which is like no other: mitotic figures, atypical by majority of three experts or not."""

from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.schema import LABELS
from mitoray.labels.table import checked_labels, slide_id_of
from mitoray.labels.tabular import read_text_columns

_COLUMNS: Final = ("dataset", "slide", "x", "y", "majority_atypical")
_SUBTYPES: Final = {"true": "atypical", "false": "normal"}


def read_ami_br(path: Path) -> pa.Table:
    """Mitotic figures with subtype, in the schema `LABELS`; `dataset` is what the file names, MIDOG21 or TUPAC16.

    After the file's description by Bertram et al. 2025. Raises BadLabels, which names the record.
    """
    table = read_text_columns(path, path.name)
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise BadLabels(f"{path.name} lacks the columns {', '.join(missing)}: it is no table of AMi-Br.")
    rows = []
    for record, row in enumerate(table.select(_COLUMNS).to_pylist(), start=1):
        try:
            rows.append(
                {
                    "dataset": row["dataset"],
                    "slide_id": slide_id_of(row["slide"]),
                    "x_px": float(row["x"]),
                    "y_px": float(row["y"]),
                    "kind": "mitotic_figure",
                    "subtype": _SUBTYPES[row["majority_atypical"].lower()],
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadLabels(
                f"{path.name}: record {record} is incomplete or not understood ({error}): {row}."
            ) from error
    return checked_labels(pa.Table.from_pylist(rows, schema=LABELS), path.name)
