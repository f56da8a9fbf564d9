"""Clinical tables as text files: any delimiter, all cells as the text that stands there."""

import csv
import io
from typing import Final

from mitoray.errors import BadClinicalTable
from mitoray.uris import read_file, redact

_DELIMITERS: Final = (",", "\t", ";")
_ZIP: Final = b"PK\x03\x04"


def read_text_table(uri: str) -> tuple[dict[str, list[str]], str]:
    """Columns of a CSV or TSV file, at a path or URI, by name, and the file's name for messages. UTF-8.

    The delimiter is the one of comma, tab and semicolon that occurs most in the first line. Raises BadClinicalTable for
    a file that is missing, no text, empty, or has lines longer than its first, or two columns of one name.
    """
    name = redact(uri).rpartition("/")[2]
    try:
        content = read_file(uri)
    except FileNotFoundError:
        raise BadClinicalTable(f"There is no clinical table at {redact(uri)}. Check the path.") from None
    except IsADirectoryError:
        raise BadClinicalTable(f"{redact(uri)} is a folder. Give the clinical table's CSV or TSV file.") from None
    if content.startswith(_ZIP):
        raise BadClinicalTable(f"{name} is a spreadsheet or an archive. Save the sheet as CSV (UTF-8) and give that.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadClinicalTable(f"{name} is not text in UTF-8. Save the table as CSV (UTF-8).") from None
    header_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise BadClinicalTable(f"{name} cannot be read as CSV or TSV: {error}. Correct it.") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise BadClinicalTable(f"{name} lists no patients. It needs a line of column names and a line per patient.")
    header = [cell.strip() for cell in rows[0]]
    if doubled := sorted({column for column in header if column and header.count(column) > 1}):
        raise BadClinicalTable(f"{name} has two columns named {doubled[0]!r}. Rename one of them.")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) > len(header):
            raise BadClinicalTable(
                f"{name}: row {number} has {len(row)} cells, but there are {len(header)} columns. Put texts that hold "
                f"{delimiter!r} in quotes."
            )
    body = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    return {column: [row[i].strip() for row in body] for i, column in enumerate(header) if column}, name
