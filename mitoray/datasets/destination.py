"""The folder that a dataset is fetched into, on disk or in object storage, and its record of finished files."""

import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from mitoray.datasets.halves import Half, LocalHalf, ObjectHalf
from mitoray.datasets.listing import RemoteFile
from mitoray.errors import BadOption, OutputBelongsToAnotherRun
from mitoray.uris import file_system, options_for

_RECORDS: Final = "_fetch/finished"
_PARTS: Final = "_fetch/parts"
_LISTING: Final = "_fetch/listing.json"


class Destination:
    """A folder by path or URI: `slides/`, `labels/`, the tables, and under `_fetch/` what a later run resumes from.

    A file under its own name is whole and verified: half of one is called `NAME.part` on disk, and lies in pieces under
    `_fetch/parts/NAME/` in object storage. Raises BadOption for storage that cannot join pieces.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().resolve())
        self._filesystem, root = file_system(self.uri, options_for(self.uri, storage_options))
        if not (self.local or hasattr(self._filesystem, "merge")):
            raise BadOption(f"Datasets are fetched to disk or to S3, not to {uri.partition('://')[0]}://.")
        self._root: str = root.rstrip("/")

    @property
    def local(self) -> bool:
        """Whether the folder lies on this machine's file system."""
        return isinstance(self._filesystem, LocalFileSystem)

    @property
    def root(self) -> str:
        """The folder as the file system wants it."""
        return self._root

    def uri_of(self, name: str) -> str:
        """The full path or URI of a file within."""
        return f"{self.uri}/{name}"

    def half(self, file: RemoteFile) -> Half:
        """What is there of a file that is not finished, ready to be added to. Raises BrokenDownload."""
        if self.local:
            return LocalHalf(Path(self._path(file.path)))
        return ObjectHalf(self._filesystem, self._path(file.path), self._path(f"{_PARTS}/{file.path}"))

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of the files directly in a folder, by path within the destination; empty without the
        folder."""
        self._filesystem.invalidate_cache()
        try:
            entries = self._filesystem.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {
            f"{folder}/{posixpath.basename(entry['name'])}": int(entry["size"])
            for entry in entries
            if entry["type"] == "file"
        }

    def blocks(self, name: str, block_bytes: int = 1 << 20) -> Any:
        """The content of a file, block by block."""
        with self._filesystem.open(self._path(name), "rb") as file:
            while block := file.read(block_bytes):
                yield block

    def record(self, file: RemoteFile) -> None:
        """Note that the file is here whole and verified."""
        self.write(f"{_RECORDS}/{file.path}.json", json.dumps(asdict(file)).encode())

    def finished(self) -> dict[str, RemoteFile]:
        """The files that are recorded as finished and still have their size, by path."""
        here = self.sizes("slides") | self.sizes("labels")
        names = [name for folder in ("slides", "labels") for name in self.sizes(f"{_RECORDS}/{folder}")]
        contents = self._filesystem.cat([self._path(name) for name in names]) if names else {}
        files = [RemoteFile(**json.loads(content)) for content in contents.values()]
        return {file.path: file for file in files if here.get(file.path) == file.size_bytes}

    def remember_listing(self, dataset: str, mirror: str | None, files: Sequence[RemoteFile]) -> None:
        """Keep what the services, or their mirror, announced, so that a resumed fetch need not ask again."""
        content = {"dataset": dataset, "mirror": mirror, "files": [asdict(file) for file in files]}
        self.write(_LISTING, json.dumps(content, indent=1).encode())

    def listing(self, dataset: str, mirror: str | None) -> list[RemoteFile] | None:
        """What was announced when this destination was begun; None if it is new, or was begun with another mirror.

        Raises OutputBelongsToAnotherRun if it holds another dataset.
        """
        try:
            content = json.loads(self._filesystem.cat_file(self._path(_LISTING)))
        except FileNotFoundError:
            return None
        if content["dataset"] != dataset:
            raise OutputBelongsToAnotherRun(
                f"The destination holds {content['dataset']}. Give {dataset} a folder of its own."
            )
        if content["mirror"] != mirror:
            return None
        return [RemoteFile(**entry) for entry in content["files"]]

    def write(self, name: str, content: bytes) -> None:
        """Write a small file so that no reader ever sees half of it."""
        path = self._path(name)
        if self.local:  # object storage needs no folders, and would make a bucket that is misspelt
            self._filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
            aside = Path(f"{path}.part")
            aside.write_bytes(content)
            aside.replace(path)
        else:
            self._filesystem.pipe_file(path, content)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write(name, buffer.getvalue())

    def read_table(self, name: str) -> pa.Table:
        """The table of a Parquet file; raises FileNotFoundError."""
        return pq.read_table(io.BytesIO(self._filesystem.cat_file(self._path(name))))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)
