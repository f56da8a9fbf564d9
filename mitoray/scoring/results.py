"""The files a run leaves: per slide as soon as it is counted, per cohort at the end."""

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.counting.cases import count_cases
from mitoray.scoring.geojson import write_geojson
from mitoray.scoring.reduce import SlideResult
from mitoray.storage import Folder, file_stem

SLIDES_TABLE = "slides/slides.parquet"
CASES_TABLE = "cases/cases.parquet"


def write_slide(folder: Folder, plan: Mapping[str, Any], result: SlideResult) -> dict[str, Any]:
    """Write one slide's detections and GeoJSON; returns its SLIDES row with the names of these files."""
    stem = file_stem(result.row["slide_id"])
    files = {"detections_file": f"detections/{stem}.parquet", "geojson_file": f"geojson/{stem}.geojson"}
    folder.write_table(files["detections_file"], result.detections)
    bounds_px = (plan["bounds_x_px"], plan["bounds_y_px"])
    geojson = write_geojson(result.detections, result.fields_of_view, plan["mpp"], bounds_px)
    folder.write_bytes(files["geojson_file"], geojson)
    return {**result.row, **files}


def write_cohort(folder: Folder, slides: pa.Table) -> None:
    """Write the SLIDES table, and the CASES table that follows from it, as Parquet and as `slides.csv`, `cases.csv`.

    Lists of slides are JSON in the CSV, for a slide_id may hold any separator.
    """
    cases = count_cases(slides)
    for name, table in ((SLIDES_TABLE, slides), (CASES_TABLE, cases)):
        folder.write_table(name, table)
        text = io.BytesIO()
        pacsv.write_csv(_flat(table), text)
        folder.write_bytes(f"{name.partition('/')[0]}.csv", text.getvalue())


def _flat(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [json.dumps(value, ensure_ascii=False) if value else None for value in table[index].to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
