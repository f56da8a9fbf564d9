"""A job's output folder, on disk or in object storage, through fsspec, and the names of files in it."""

import io
import json
import mimetypes
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mitoray.errors import OutputUnreachable
from mitoray.uris import brief, file_system, lacks_credentials, options_for, redact

_FILES_AT_ONCE: Final = 128


@dataclass(frozen=True)
class Folder:
    """A folder given by path or URI. Writing a file replaces it whole: no reader ever sees half of it."""

    uri: str
    filesystem: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def at(cls, uri: str, storage_options: Mapping[str, Any] | None = None) -> "Folder":
        """The folder at a local path (made absolute) or URI; nothing is created yet."""
        if "://" not in uri:
            uri = str(Path(uri).resolve())
        filesystem, root = file_system(uri, options_for(uri, storage_options))
        return cls(uri.rstrip("/"), filesystem, root.rstrip("/"))

    @property
    def shown(self) -> str:
        """The folder's URI for people and records, without credentials."""
        return redact(self.uri)

    @property
    def local(self) -> bool:
        """Whether the folder lies on this machine's file system."""
        return isinstance(self.filesystem, fsspec.implementations.local.LocalFileSystem)

    @property
    def arrow_filesystem(self) -> pafs.FileSystem:
        """The same storage as pyarrow, and so Ray Data, wants it."""
        return pafs.LocalFileSystem() if self.local else pafs.PyFileSystem(pafs.FSSpecHandler(self.filesystem))

    def check(self) -> None:
        """Raise OutputUnreachable unless the object storage answers, lets the folder be listed, and has its bucket.

        What its own errors say is not repeated: they may hold a signed URL.
        """
        if self.local:
            return
        self.filesystem.invalidate_cache()
        try:
            self.filesystem.ls(self.root, detail=False)
        except FileNotFoundError as error:
            if type(error.__cause__).__name__ == "NoSuchBucket":
                bucket = self.root.partition("/")[0]
                raise OutputUnreachable(
                    f"{self.shown}: there is no bucket {bucket}. Make it, or correct the address; none is made unasked."
                ) from None
        except Exception as error:  # each storage has errors of its own
            refused = isinstance(error, PermissionError) or lacks_credentials(error)
            what = "does not allow it" if refused else "does not answer properly"
            remedy = "Check credentials and permissions" if refused else "Check network and endpoint"
            raise OutputUnreachable(
                f"{self.shown}: the storage {what} ({brief(error)}). {remedy}, then run again."
            ) from None

    def path(self, name: str) -> str:
        """The path of a file within, as `filesystem` wants it."""
        return posixpath.join(self.root, name)

    def exists(self, name: str) -> bool:
        """Whether the file or folder is there now."""
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.exists(self.path(name)))

    def write_csv(self, name: str, table: pa.Table) -> None:
        """Write a table as CSV."""
        text = io.BytesIO()
        pacsv.write_csv(table, text)
        self.write_bytes(name, text.getvalue())

    def remove(self, name: str) -> None:
        """Remove a file that is there."""
        self.filesystem.rm_file(self.path(name))

    def names(self, name: str, suffix: str) -> list[str]:
        """Paths (relative to this folder) of the files with that suffix directly in the subfolder `name`, sorted."""
        self.filesystem.invalidate_cache()
        try:
            found = self.filesystem.ls(self.path(name), detail=False)
        except FileNotFoundError:
            return []
        return sorted(posixpath.join(name, posixpath.basename(path)) for path in found if path.endswith(suffix))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file: aside and renamed on disk; object storage shows an object only when it is complete."""
        path = self.path(name)
        if self.local:  # object storage needs no folders, and would make a bucket that is misspelt
            self.filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
            aside = f"{path}.part"
            Path(aside).write_bytes(content)
            Path(aside).replace(path)
        else:
            self.filesystem.pipe_file(path, content, **self._headers(name))

    def _headers(self, name: str) -> dict[str, str]:
        """What S3 is told of a file, so that a browser shows a page or a picture behind a link, and saves no copy."""
        kind, _ = mimetypes.guess_type(name)
        return {"ContentType": kind} if kind and "s3" in self.filesystem.protocol else {}

    def read_bytes(self, name: str) -> bytes:
        """The file's content; raises FileNotFoundError."""
        return bytes(self.filesystem.cat_file(self.path(name)))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file for people to read."""
        self.write_bytes(name, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

    def read_json(self, name: str) -> Any:
        """The JSON file's content; raises FileNotFoundError."""
        return json.loads(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write_bytes(name, buffer.getvalue())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file's table."""
        return pq.read_table(io.BytesIO(self.read_bytes(name)), columns=columns)

    def tables(self, names: Sequence[str], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The tables of these Parquet files, in their order, fetched many at a time where the storage allows it."""
        paths = [self.path(name) for name in names]
        for first in range(0, len(paths), _FILES_AT_ONCE):
            batch = paths[first : first + _FILES_AT_ONCE]
            contents = self.filesystem.cat(batch)
            yield from (pq.read_table(io.BytesIO(contents[path]), columns=columns) for path in batch)


def file_stem(slide_id: str) -> str:
    """The slide's output file name without suffix: reversible percent-encoding of what file systems or URIs dislike."""
    stem = quote(slide_id, safe=" ()+,=@")
    return "%5F" + stem[1:] if stem.startswith("_") else stem
