"""Counts per case, where a case has several slides: the highest of them, and all of them pooled.

Everything is counted in mm² and per field of the same area, so slides of one case may differ in µm per pixel.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from mitoray.counting.atypical import Subtypes
from mitoray.errors import BadDetections

CASES: Final = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("domain", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("n_slides", pa.int64(), nullable=False),
        pa.field("n_scored", pa.int64(), nullable=False),
        pa.field("partial_slides", pa.list_(pa.string()), nullable=False),
        pa.field("failed_slides", pa.list_(pa.string()), nullable=False),
        pa.field("mitotic_count", pa.int64()),
        pa.field("mitotic_count_slide", pa.string()),
        pa.field("hotspot_area_mm2", pa.float64()),
        pa.field("count_low", pa.int64()),
        pa.field("count_high", pa.int64()),
        pa.field("sampling_low", pa.float64()),
        pa.field("sampling_high", pa.float64()),
        pa.field("mitotic_count_10hpf", pa.int64()),
        pa.field("mitotic_count_10hpf_slide", pa.string()),
        pa.field("n_detections", pa.int64()),
        pa.field("counted_mm2", pa.float64()),
        pa.field("figures_per_mm2", pa.float64()),
        pa.field("pooled_hotspot_count", pa.int64()),
        pa.field("pooled_hotspot_mm2", pa.float64()),
        pa.field("n_atypical", pa.int64()),
        pa.field("n_normal", pa.int64()),
        pa.field("atypical_ratio", pa.float64()),
        pa.field("hotspot_n_atypical", pa.int64()),
        pa.field("hotspot_n_normal", pa.int64()),
        pa.field("hotspot_atypical_ratio", pa.float64()),
    ]
)
"""One row per case. A slide without a case is a case of its own, by its slide_id.

`status`: scored, partial (slides failed, or were scored in part), or failed (no slide was scored, and nothing is
counted). `n_scored` counts slides scored whole or in part; `partial_slides` and `failed_slides` name those wanting.
`domain`: null where slides differ.

The highest: `mitotic_count` is that of the slide whose hotspot holds most, `mitotic_count_slide`; its two intervals and
the `hotspot_` columns are of that slide. `mitotic_count_10hpf` likewise, and may be of another slide.

Pooled: `n_detections` figures in `counted_mm2` of tissue (what was scored of it), over all slides that were scored, are
`figures_per_mm2`; null without tissue. `pooled_hotspot_count` is the sum of the slides' hotspots, whose area is
`pooled_hotspot_mm2`. `n_atypical` and `n_normal` are sums over slides, and null where no slide told subtypes.
"""

_NEEDED: Final = ("slide_id", "case_id", "status", "tissue_mm2", "unscored_mm2", "n_detections", "mitotic_count")
_OF_HIGHEST: Final = (
    "hotspot_area_mm2",
    "count_low",
    "count_high",
    "sampling_low",
    "sampling_high",
    "hotspot_n_atypical",
    "hotspot_n_normal",
    "hotspot_atypical_ratio",
)


def count_cases(slides: pa.Table) -> pa.Table:
    """The CASES table of a table of slides, one row each, with the columns that a scoring run gives.

    Cases come in the order of their first slides. Columns that an earlier version did not have count as null. Raises
    BadDetections where a column is missing without which nothing can be counted.
    """
    if lacking := [name for name in _NEEDED if name not in slides.column_names]:
        raise BadDetections(f"the table of slides has no column {lacking[0]}; give that of a scoring run")
    by_case: dict[str, list[dict[str, Any]]] = {}
    for row in slides.to_pylist():
        by_case.setdefault(row["case_id"] or row["slide_id"], []).append(row)
    return pa.Table.from_pylist([_counted(case_id, rows) for case_id, rows in by_case.items()], schema=CASES)


def _counted(case_id: str, slides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = [row for row in slides if row["status"] in ("scored", "partial")]
    domains = {row.get("domain") for row in slides}
    partial = [row["slide_id"] for row in slides if row["status"] == "partial"]
    failed = [row["slide_id"] for row in slides if row["status"] not in ("scored", "partial")]
    case: dict[str, Any] = dict.fromkeys(CASES.names) | {
        "case_id": case_id,
        "domain": domains.pop() if len(domains) == 1 else None,
        "status": "failed" if not scored else "partial" if partial or failed else "scored",
        "n_slides": len(slides),
        "n_scored": len(scored),
        "partial_slides": partial,
        "failed_slides": failed,
    }
    return case | _highest(scored) | _pooled(scored) if scored else case


def _highest(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("mitotic_count", "mitotic_count_10hpf"):
        counted = [row for row in scored if row.get(name) is not None]
        if not counted:
            continue
        best = max(counted, key=lambda row: row[name])  # of equal ones the first
        found |= {name: best[name], f"{name}_slide": best["slide_id"]}
        if name == "mitotic_count":
            found |= {column: best.get(column) for column in _OF_HIGHEST}
    return found


def _pooled(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted_mm2 = math.fsum((row["tissue_mm2"] or 0.0) - (row["unscored_mm2"] or 0.0) for row in scored)
    n_detections = sum(row["n_detections"] or 0 for row in scored)
    hotspots = [row for row in scored if row["mitotic_count"] is not None]
    told = [row for row in scored if row.get("n_atypical") is not None and row.get("n_normal") is not None]
    pooled: dict[str, Any] = {
        "n_detections": n_detections,
        "counted_mm2": counted_mm2,
        "figures_per_mm2": n_detections / counted_mm2 if counted_mm2 > 0 else None,
        "pooled_hotspot_count": sum(row["mitotic_count"] for row in hotspots) if hotspots else None,
        "pooled_hotspot_mm2": math.fsum(row.get("hotspot_area_mm2") or 0.0 for row in hotspots) if hotspots else None,
    }
    if told:
        together = sum((Subtypes(row["n_atypical"], row["n_normal"], 0) for row in told), Subtypes(0, 0, 0))
        pooled |= {
            "n_atypical": together.n_atypical,
            "n_normal": together.n_normal,
            "atypical_ratio": together.ratio,
        }
    return pooled
