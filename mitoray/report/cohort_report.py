"""The report of a run: gather, lay out, write."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa

import mitoray
from mitoray.errors import NotARun
from mitoray.report.cards import cards_of
from mitoray.report.cohort_summary import Summary, failures
from mitoray.report.domain_counts import distribution
from mitoray.report.figures import CROP_UM
from mitoray.report.page import page
from mitoray.report.panels import TOTAL, gather_panels
from mitoray.report.record_facts import record_groups, shown_cards
from mitoray.report.slide_columns import columns_of, facts_of
from mitoray.scoring.config import Method
from mitoray.scoring.results import SLIDES_TABLE
from mitoray.scoring.run import RECORD
from mitoray.scoring.work import PLANS
from mitoray.storage import Folder

REPORT: Final = "report.html"

_FILES: Final = {
    "geojson_file": "Figures and fields for QuPath (GeoJSON)",
    "detections_file": "Figures with their scores (Parquet)",
}
"""Columns of the SLIDES table that name a slide's own files."""


@dataclass(frozen=True)
class ReportSource:
    """A scored run to report on.

    uris: slides' URIs by slide_id, where those in the run's table will not do: it leaves out what may be secret.
    total: characters that all panels together may take.
    """

    folder: Folder
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    uris: Mapping[str, str] = field(default_factory=dict, repr=False)
    total: int = TOTAL


def write_report(
    source: ReportSource,
    output: Folder | None = None,
    name: str = REPORT,
    *,
    survival: Sequence[Mapping[str, Any]] = (),
    progress: bool = True,
) -> int:
    """Write the report of a run into a folder, by default the run's own; returns its size in bytes.

    Slides whose panel is not kept in the run's folder are opened on the Ray cluster that this process is connected to.
    survival: what `survival_part` gives for each clinical table. Raises NotARun.
    """
    output = output or source.folder
    html = report_of(source, output, survival=survival, progress=progress).encode()
    output.write_bytes(name, html)
    return len(html)


def report_of(
    source: ReportSource, output: Folder, *, survival: Sequence[Mapping[str, Any]] = (), progress: bool = True
) -> str:
    """The report as HTML, with links as they work from the folder `output`; see `write_report`."""
    folder = source.folder
    record, slides = read_run(folder)
    rows = slides.to_pylist()
    method = {"hotspot_mm2": Method.hotspot_mm2, "hotspot_hpf_mm2": Method.hotspot_hpf_mm2}
    method |= record["identity"].get("method", {})
    panels = gather_panels(
        folder,
        slides,
        _plans(folder),
        source.uris,
        rectangle_mm2=method["hotspot_hpf_mm2"],
        storage_options=source.storage_options,
        total=source.total,
        progress=progress,
    )
    columns = columns_of(rows, circle_mm2=method["hotspot_mm2"], rectangle_mm2=method["hotspot_hpf_mm2"])
    parts = {
        "title": Path(folder.shown).name or folder.shown,
        "where": " · scored ".join([folder.shown, *([record["updated"]] if record.get("updated") else [])]),
        "version": mitoray.__version__,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "incomplete": record["status"] in ("running", "stopped"),
        "summary": Summary.of(rows),
        "failures": failures(rows),
        "counts": distribution(rows),
        "circle_mm2": method["hotspot_mm2"],
        "survival": survival,
        "columns": columns,
        "explained": [column for column in columns if column.explanation],
        "rows": [
            {**row, "count": row["mitotic_count"], "cells": [column.cell(row) for column in columns]} for row in rows
        ],
        "statuses": sorted({row["status"] for row in rows}),
        "domains": sorted({row["domain"] for row in rows if row["domain"]}),
        "record": record_groups(record),
        "record_json": json.dumps(record, indent=2, ensure_ascii=False),
        "cards": shown_cards(cards_of(folder, record, source.storage_options)),
    }
    shown = [
        _shown_panel(row, panel, facts_of(row, columns), _links(folder, output, row))
        for row, panel in zip(rows, panels, strict=True)
    ]
    return page(parts, shown)


def read_run(folder: Folder) -> tuple[dict[str, Any], pa.Table]:
    """The record and the SLIDES table of a scored run. Raises NotARun."""
    try:
        record, slides = folder.read_json(RECORD), folder.read_table(SLIDES_TABLE)
    except FileNotFoundError as error:
        raise NotARun(
            f"{folder.shown} holds no run that was scored to its end: {Path(str(error.filename or error)).name} is "
            "missing. Give the output folder of score_cohort, or run that to its end."
        ) from None
    except (ValueError, OSError) as error:
        raise NotARun(f"{folder.shown}: its record or its slides table cannot be read ({error}).") from error
    if "identity" not in record or "status" not in record:
        raise NotARun(f"{folder.shown}: {RECORD} is no record of score_cohort.")
    return record, slides


def _plans(folder: Folder) -> dict[str, dict[str, Any]]:
    """The latest PLAN row of each slide; none where the run's `work` was cleared away."""
    columns = ["slide_id", "width_px", "height_px", "tissue_png"]
    tables = folder.tables(folder.names(PLANS, ".parquet"), columns)
    return {row["slide_id"]: row for table in tables for row in table.to_pylist()}


def _shown_panel(
    row: Mapping[str, Any],
    panel: Mapping[str, Any],
    facts: Sequence[tuple[str, str]],
    links: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """A kept panel with the slide's names and words around it, as the script takes it."""
    troubles = [row["error"]] if row["status"] != "scored" and row["error"] else []
    if panel["error"] and row["mpp"] is not None:
        troubles.append(f"No picture of this slide could be had when this report was written. {panel['error']}")
    kept = {name: value for name, value in panel.items() if name not in ("key", "error")}
    crops = [{**crop, "x_um": crop["x_px"] * row["mpp"], "y_um": crop["y_px"] * row["mpp"]} for crop in panel["crops"]]
    return {
        **kept,
        "crops": crops,
        "crop_um": CROP_UM,
        "no_crops": "No figure was found on this slide." if row["n_detections"] == 0 else "",
        "slide_id": row["slide_id"],
        "threshold": row["threshold"],
        "trouble": " ".join(troubles),
        "facts": facts,
        "links": links,
    }


def _links(folder: Folder, output: Folder, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Where the slide's own files are: links, or where a browser could not follow one, their place in words."""
    links = []
    for name, text in _FILES.items():
        if file := row.get(name):
            if output.uri == folder.uri:
                links.append({"text": text, "href": quote(file)})
            elif folder.local:
                links.append({"text": text, "href": Path(folder.path(file)).as_uri()})
            else:
                links.append({"text": f"{text}: {folder.shown}/{file}"})
    return links
