"""The counts of a scored cohort: from a run's folder, or any table of slides or cases."""

import io
from pathlib import PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mitoray.errors import BadManifest
from mitoray.storage import Folder
from mitoray.uris import read_file, redact

CASES: Final = "cases/cases.parquet"
SLIDES: Final = ("slides/slides.parquet", "slides.csv")


def counts_of_run(folder: Folder) -> tuple[pa.Table, str]:
    """A run's cases where it has them, its slides otherwise, and the name of the file.

    Raises BadManifest where the folder holds none of these.
    """
    for name in (CASES, *SLIDES):
        if folder.exists(name):
            return _parsed(folder.read_bytes(name), name), name
    raise BadManifest(
        f"{folder.shown} is no scored run: it holds neither {CASES} nor {' nor '.join(SLIDES)}. Give the --output "
        "of score_cohort, or a table by --slides-table."
    )


def read_scored_table(uri: str) -> pa.Table:
    """A CSV or Parquet table of slides (`slide_id`) or cases (`case_id`) at a path or URI. Raises BadManifest."""
    try:
        return _parsed(read_file(uri), redact(uri))
    except FileNotFoundError:
        raise BadManifest(f"There is no table at {redact(uri)}. Check the path.") from None
    except IsADirectoryError:
        raise BadManifest(f"{redact(uri)} is a folder. Give a run's folder by --run, or one table.") from None


def _parsed(content: bytes, name: str) -> pa.Table:
    try:
        if PurePosixPath(name).suffix.lower() in {".parquet", ".pq"}:
            return pq.read_table(io.BytesIO(content))
        # Names may look like numbers, and must stay as they are written.
        texts = {column: pa.string() for column in ("slide_id", "case_id", "status", "error")}
        convert = pacsv.ConvertOptions(
            column_types=texts, null_values=["", "NA", "NaN", "nan"], strings_can_be_null=True
        )
        return pacsv.read_csv(io.BytesIO(content), convert_options=convert)
    except (OSError, pa.ArrowException) as error:
        raise BadManifest(f"{PurePosixPath(name).name} cannot be read as CSV or Parquet: {error}") from error
