"""The files a run leaves: per slide as soon as it is counted, per cohort at the end."""

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.scoring.geojson import write_geojson
from mitoray.scoring.reduce import SlideResult
from mitoray.storage import Folder, file_stem

SLIDES_TABLE = "slides/slides.parquet"


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
    """Write the SLIDES table as Parquet and as `slides.csv`."""
    folder.write_table(SLIDES_TABLE, slides)
    text = io.BytesIO()
    pacsv.write_csv(slides, text)
    folder.write_bytes("slides.csv", text.getvalue())
