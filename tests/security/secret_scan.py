"""Looks for planted secrets in whatever a run leaves, also where they are compressed or encoded."""

import base64
import gzip
import sqlite3
import zipfile
from contextlib import closing
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq


def leaks(folders, secrets):
    """`path: secret` for each file below the folders, or file given, that holds a secret."""
    files = [file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*"))]
    found = []
    for file in files:
        if not file.is_file() or file.is_symlink():
            continue
        texts = [str(file).encode(), *_contents(file)]
        found += [f"{file}: {secret}" for secret in secrets if any(shows(text, secret) for text in texts)]
    return found


def shows(text, secret):
    """Whether a text holds the secret as it is, as in a URL, or as HTTP's basic authentication sends it."""
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    plain = secret.encode()
    # Base64 depends on where in its group of three bytes the secret begins; the outer characters on its neighbours.
    shifted = [base64.b64encode(bytes(shift) + plain)[4 if shift else 0 : -4] for shift in range(3)]
    return any(form in content for form in (plain, quote(secret).encode(), quote_plus(secret).encode(), *shifted))


def _contents(file):
    raw = file.read_bytes()
    yield raw
    if raw.startswith(b"PAR1"):
        table = pq.read_table(file)
        yield repr((table.schema.metadata, table.to_pylist()))
    elif raw.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as database:
            yield from database.iterdump()
    elif raw.startswith(b"\x1f\x8b"):
        yield gzip.decompress(raw)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())
