"""Normal or atypical: the subtypes of MIDOG 2025."""

from pathlib import Path
from typing import Final

import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.schema import LABELS
from mitoray.labels.source import local_file, short_name
from mitoray.labels.table import slide_id_of
from mitoray.labels.tabular import read_text_columns

_NEEDED: Final = ("filename", "coordinateX", "coordinateY", "majority")
_SUBTYPES: Final = {"NMF": "normal", "AMF": "atypical"}
"""In this file NMF is a normal mitotic figure."""


def with_subtypes(labels: pa.Table, uri: str | Path) -> pa.Table:
    """The labels, their mitotic figures with the subtype that MIDOG 2025's table of votes gives by majority.

    labels: schema `LABELS`, of MIDOG++. Joined on slide and centre, whose half pixels that table cuts off. Figures
    without a row keep their subtype. Raises BadLabels for a row without its mitotic figure.
    """
    source = short_name(str(uri))
    table = read_text_columns(local_file(str(uri)), source)
    if missing := [name for name in _NEEDED if name not in table.column_names]:
        raise BadLabels(f"{source} lacks the columns {', '.join(missing)}. It is no MIDOG 2025 table of subtypes.")
    places = list(zip(*(labels[name].to_pylist() for name in ("slide_id", "x_px", "y_px", "kind")), strict=True))
    row_at = {
        (slide, int(x), int(y)): row for row, (slide, x, y, kind) in enumerate(places) if kind == "mitotic_figure"
    }
    subtypes = labels["subtype"].to_pylist()
    rows = zip(*(table[name].to_pylist() for name in _NEEDED), strict=True)
    for record, (file_name, x, y, majority) in enumerate(rows, start=1):
        try:
            subtypes[row_at[slide_id_of(file_name), int(x), int(y)]] = _SUBTYPES[majority]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BadLabels(
                f"{source}: record {record} ({file_name} at {x}, {y}: {majority}) is no mitotic figure of the labels, "
                f"or neither of {', '.join(_SUBTYPES)}. Take the labels that the table was made for."
            ) from error
    column = pa.array(subtypes, pa.string())
    return labels.set_column(LABELS.get_field_index("subtype"), LABELS.field("subtype"), column)
