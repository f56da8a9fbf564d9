"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def as_text(rows: Sequence[Mapping[str, Any]], digits: int = 2, **digits_of: int) -> str:
    """Rows with the same keys as aligned columns: text to the left, numbers to the right, None and NaN as a dash.

    digits: decimals of fractional numbers; `digits_of` those of a column by name.
    """
    if not rows:
        return ""
    columns = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        cells = [name, *(_cell(value, digits_of.get(name, digits)) for value in values)]
        width = max(map(len, cells))
        numeric = all(isinstance(value, int | float | None) for value in values)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
