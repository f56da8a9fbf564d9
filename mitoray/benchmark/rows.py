"""What a benchmark finds: rows of a table, for people and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured thing. `value` in `unit`; `ratio` to what `beside` names, where both ran in turn."""

    part: str
    what: str
    value: float
    unit: str
    ratio: float | None = None
    beside: str = ""
    note: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def beside(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with their ratio to the one called `name`, which has the same unit."""
    one = next(row.value for row in rows if row.what == name)
    return [
        Row(row.part, row.what, row.value, row.unit, row.value / one, name if row.what != name else "", row.note)
        for row in rows
    ]


def as_text(rows: Iterable[Row]) -> str:
    """A table, aligned, with an empty line between parts."""
    cells = [(r.part, r.what, f"{r.value:,.4g}", r.unit, _ratio(r), r.note) for r in rows]
    if not cells:
        return ""
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    lines, last = [], cells[0][0]
    for line in cells:
        if line[0] != last:
            lines.append("")
            last = line[0]
        right = {2, 4}
        fields = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line[:5], widths, strict=True))
        ]
        lines.append("  ".join([*fields, line[5]]).rstrip())
    return "\n".join(lines)


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    return f"{row.ratio:.2f} × {row.beside}" if row.beside else "1"
