"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def as_text(rows: Sequence[Mapping[str, Any]], digits: int = 2) -> str:
    """Rows with the same keys as aligned columns: text to the left, numbers to the right, None and NaN as a dash."""
    if not rows:
        return ""
    cells = {name: [name, *(_cell(row[name], digits) for row in rows)] for name in rows[0]}
    columns = []
    for name, column in cells.items():
        width = max(map(len, column))
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:
        return "–"
    return (
        f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )
