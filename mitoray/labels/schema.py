"""The one label table that every reader gives and every consumer takes."""

from typing import Final

import pyarrow as pa

KINDS: Final = ("mitotic_figure", "imposter")
"""The kinds that count. Other kinds (a data set's own cell types) may appear and are kept as they are named."""

SUBTYPES: Final = ("normal", "atypical")

LABELS: Final = pa.schema(
    [
        pa.field("dataset", pa.string()),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("subtype", pa.string()),
        pa.field("votes", pa.list_(pa.struct([("rater", pa.string()), ("kind", pa.string())]))),
        pa.field("domain", pa.string()),
    ]
)
"""Columns of a label table. `x_px, y_px` are level-0 px of the slide, origin top-left; `subtype` is null if unknown."""
