"""The files a run leaves: per slide as soon as it is counted, per cohort at the end."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mitoray.counting.cases import count_cases
from mitoray.scoring.config import Files
from mitoray.scoring.geojson import geojson_files
from mitoray.scoring.reduce import SlideResult
from mitoray.storage import Folder, file_stem

SLIDES_TABLE = "slides/slides.parquet"
CASES_TABLE = "cases/cases.parquet"


def write_slide(
    folder: Folder, plan: Mapping[str, Any], result: SlideResult, files: Files | None = None
) -> dict[str, Any]:
    """Write one slide's detections and GeoJSON; returns its SLIDES row with the names of these files.

    Of several GeoJSON files the first is named; the others are `geojson/<slide>.parts/<slide>.part-02.geojson` and on.
    """
    files = files or Files()
    stem = file_stem(result.row["slide_id"])
    names = {"detections_file": f"detections/{stem}.parquet", "geojson_file": f"geojson/{stem}.geojson"}
    folder.write_table(names["detections_file"], result.detections)
    made = geojson_files(
        result.detections,
        result.fields_of_view,
        plan["mpp"],
        files.geojson_shape,
        files.geojson_figures,
    )
    n_files = 0
    for content in made:
        n_files += 1
        folder.write_bytes(_part(stem, n_files), content)
    # An earlier attempt with fewer figures a file, or a damaged slide, may have left more of them.
    while folder.exists(_part(stem, n_files + 1)):
        n_files += 1
        folder.remove(_part(stem, n_files))
    return {**result.row, **names}


def _part(stem: str, number: int) -> str:
    # Further files lie in a folder, since a slide may itself be called what they are.
    return f"geojson/{stem}.geojson" if number == 1 else f"geojson/{stem}.parts/{stem}.part-{number:02d}.geojson"


def write_cohort(folder: Folder, slides: pa.Table) -> None:
    """Write the SLIDES table, and the CASES table that follows from it, as Parquet and as `slides.csv`, `cases.csv`.

    Lists of slides are JSON in the CSV, for a slide_id may hold any separator.
    """
    cases = count_cases(slides)
    for name, table in ((SLIDES_TABLE, slides), (CASES_TABLE, cases)):
        folder.write_table(name, table)
        folder.write_csv(f"{name.partition('/')[0]}.csv", _flat(table))


def _flat(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [json.dumps(value, ensure_ascii=False) if value else None for value in table[index].to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
