"""The columns of the report's table of slides, and all that is known of one slide, in words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Breadth = Literal["always", "tablet", "desktop", "wide"]
MISSING: Final = "–"


@dataclass(frozen=True)
class Column:
    """A column: the SLIDES columns it shows (two make a range), how it is headed, and from which screen width on."""

    names: tuple[str, ...]
    title: str
    unit: str = ""
    digits: int = 0
    number: bool = True
    shown: Breadth = "desktop"
    needed: bool = False
    explanation: str = ""

    def tells(self, row: Mapping[str, Any]) -> bool:
        """Whether there is something to show of a row; nothing lost is not worth a column."""
        return self.cell(row).text != MISSING and not (self.names == ("unscored_mm2",) and not row["unscored_mm2"])

    def cell(self, row: Mapping[str, Any]) -> "Cell":
        """What the column shows of a row."""
        values = [row.get(name) for name in self.names]
        if not self.number:
            return Cell(str(values[0]) if values[0] is not None else MISSING, None)
        known = [float(value) for value in values if value is not None and not math.isnan(value)]
        if len(known) < len(values):
            return Cell(MISSING, None)
        text = "–".join(f"{value:,.{self.digits}f}" for value in known)
        return Cell(text, known[0])


@dataclass(frozen=True)
class Cell:
    """A cell's text, and the number by which it sorts, where it is one."""

    text: str
    value: float | None


def columns_of(rows: Sequence[Mapping[str, Any]], *, circle_mm2: float, rectangle_mm2: float) -> list[Column]:
    """The columns that any of the rows has something to show in; those `needed` are always there."""
    return [
        column
        for column in _columns(circle_mm2, rectangle_mm2)
        if column.needed or any(column.tells(row) for row in rows)
    ]


def facts_of(row: Mapping[str, Any], columns: Iterable[Column]) -> list[tuple[str, str]]:
    """All that is known of one slide: the columns' words first, then what has no column, under its own name."""
    facts = []
    told = {"slide_id", "status", "error", *_UNTOLD}
    for column in columns:
        told.update(column.names)
        if (cell := column.cell(row)).text != MISSING and "status" not in column.names:
            facts.append((f"{column.title} {column.unit}".strip(), cell.text))
    for name, value in row.items():
        if name not in told and value is not None:
            facts.append((_NAMES.get(name, name), f"{value:,.4g}" if isinstance(value, float) else str(value)))
    return facts


_UNTOLD: Final = (
    "hotspot_x_px",
    "hotspot_y_px",
    "hotspot_area_mm2",
    "hotspot_10hpf_x_px",
    "hotspot_10hpf_y_px",
    "detections_file",
    "geojson_file",
)
"""Drawn or linked, not written."""

_NAMES: Final = {
    "uri": "File",
    "unscored_mm2": "Not scored, mm²",
    "mpp": "Pixel size, µm",
    "mpp_source": "Pixel size from",
    "n_regions": "Regions",
    "n_failed_regions": "Regions that failed",
    "threshold": "Score from which figures count",
    "hotspot_tissue_share": "Share of the circle that is tissue",
    "n_atypical": "Clearly atypical figures",
    "n_normal": "Clearly normal figures",
    "hotspot_n_atypical": "Clearly atypical figures in the circle",
    "hotspot_n_normal": "Clearly normal figures in the circle",
    "note": "Note",
}


def _columns(circle_mm2: float, rectangle_mm2: float) -> list[Column]:
    circle, rectangle = f"in {circle_mm2:g} mm²", f"in {rectangle_mm2:g} mm²"
    return [
        Column(("status",), "Status", number=False, shown="always", needed=True),
        Column(("case_id",), "Case", number=False),
        Column(("domain",), "Domain", number=False, shown="tablet"),
        Column(
            ("mitotic_count",),
            "Mitotic count",
            circle,
            shown="always",
            needed=True,
            explanation="mitotic figures in the circle that holds most",
        ),
        Column(
            ("count_low", "count_high"),
            "Count interval",
            shown="tablet",
            explanation="90 %: how many of the circle's candidates are figures, by their calibrated scores",
        ),
        Column(
            ("sampling_low", "sampling_high"),
            "Sampling interval",
            digits=1,
            shown="wide",
            explanation="90 %: the mean counts of which one field may hold as many by chance",
        ),
        Column(
            ("mitotic_count_10hpf",),
            "Rectangle count",
            rectangle,
            explanation="mitotic figures in the 4:3 rectangle that holds most",
        ),
        Column(
            ("hotspot_atypical_ratio",),
            "Atypical ratio",
            "in the circle",
            digits=2,
            explanation="clearly atypical figures per clearly normal one",
        ),
        Column(("atypical_ratio",), "Atypical ratio", "on the slide", digits=2, shown="wide"),
        Column(("n_detections",), "Figures", "on the slide", shown="tablet", needed=True),
        Column(("tissue_mm2",), "Tissue", "mm²", digits=2, shown="tablet", needed=True),
        Column(("unscored_mm2",), "Not scored", "mm²", digits=2),
    ]
