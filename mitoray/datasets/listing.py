"""Which files a dataset has, as the services that hold them say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import count
from typing import Any, Final

from mitoray.datasets.catalogue import Api, Dataset, Source
from mitoray.datasets.http import Client
from mitoray.errors import DatasetUnreachable, UnsafeFileName

BASES: Final[Mapping[Api, str]] = {
    "figshare": "https://api.figshare.com/v2",
    "zenodo": "https://zenodo.org/api",
    "gdc": "https://api.gdc.cancer.gov",
    "github": "https://api.github.com",
}

# figshare orders pages of a collection differently from call to call, so that small pages repeat some articles and miss
# others: as few pages as it allows, and the count checked.
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as its service announces it.

    path: where it goes in the destination, `slides/NAME` or `labels/NAME`. checksum: `md5:HEX`, or `git:HEX` for git's
    own (SHA-1 of a header and the content); None where the service states none.
    """

    path: str
    api: Api
    url: str
    size_bytes: int
    checksum: str | None
    case_id: str | None = None

    @property
    def name(self) -> str:
        """The file's name without folder."""
        return self.path.rpartition("/")[2]

    def same_content(self, other: "RemoteFile | None") -> bool:
        """Whether the other one is announced with the same size and checksum, wherever it is."""
        return other is not None and (self.size_bytes, self.checksum) == (other.size_bytes, other.checksum)


def remote_files(dataset: Dataset, mirror: str | None = None) -> Iterator[RemoteFile]:
    """The slides and label files of a dataset, each once. This takes many small calls, for MIDOG++ one for each slide.

    mirror: the URL of a mirror that speaks the services' APIs, each under its own name:
    `MIRROR/figshare/collections/...`, `MIRROR/zenodo/records/...`, `MIRROR/gdc/files`, `MIRROR/github/repos/...`.
    Raises DatasetUnreachable, DatasetForbidden, UnsafeFileName.
    """
    files: dict[str, RemoteFile] = {}
    for source in dataset.sources:
        with client_for(source.api, mirror) as client:
            for file in _listed(client, source):
                if file.path not in files:
                    files[file.path] = file
                    yield file
                elif not file.same_content(files[file.path]):
                    raise DatasetUnreachable(
                        f"{source.api} lists {file.name!r} of {source.id} twice, with different content. Tell them."
                    )


def _listed(client: Client, source: Source) -> Iterator[RemoteFile]:
    try:
        yield from _LISTERS[source.api](client, source)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DatasetUnreachable(
            f"{source.api} describes {source.id} in a form that is not known ({type(error).__name__}: {error}). "
            "Update mitoray, or report it."
        ) from error


def client_for(api: Api, mirror: str | None = None) -> Client:
    """The client of a service, or of its mirror."""
    return Client(api, f"{mirror.rstrip('/')}/{api}" if mirror else BASES[api])


def safe_name(name: str) -> str:
    """The same name if it stays in its folder and is no hidden or temporary file. Raises UnsafeFileName."""
    hostile = not name.isprintable() or any(mark in name for mark in "/\\:") or name.startswith(".")
    if not name.strip() or hostile or name.endswith(".part") or len(name.encode()) > 200:
        raise UnsafeFileName(
            f"The service names a file {name[:80]!r}, which mitoray does not write. Nothing was fetched."
        )
    return name


def _remote(
    source: Source, name: str, url: str, size: int, checksum: str | None, case_id: str | None = None
) -> Iterator[RemoteFile]:
    """The file, if the source's globs want it."""
    for folder, patterns in (("slides", source.slides), ("labels", source.labels)):
        if any(fnmatch(name, pattern) for pattern in patterns):
            yield RemoteFile(f"{folder}/{safe_name(name)}", source.api, url, int(size), checksum, case_id)
            return


def _figshare(client: Client, source: Source) -> Iterator[RemoteFile]:
    expected = int(client.json(f"collections/{source.id}")["articles_count"])
    articles = {article["id"] for article in _pages(client, f"collections/{source.id}/articles")}
    if len(articles) < expected:
        raise DatasetUnreachable(
            f"figshare lists {len(articles)} of the {expected} articles of collection {source.id}. Try again later."
        )
    for article in sorted(articles):
        for file in _pages(client, f"articles/{int(article)}/files"):
            md5 = file.get("supplied_md5") or file.get("computed_md5")
            yield from _remote(source, file["name"], file["download_url"], file["size"], f"md5:{md5}" if md5 else None)


def _pages(client: Client, path: str) -> Iterator[Any]:
    for page in count(1):
        batch = client.json(path, params={"page": page, "page_size": PAGE})
        yield from batch
        if len(batch) < PAGE:
            return


def _zenodo(client: Client, source: Source) -> Iterator[RemoteFile]:
    for file in client.json(f"records/{source.id}")["files"]:
        yield from _remote(source, file["key"], file["links"]["self"], file["size"], file["checksum"])


def _github(client: Client, source: Source) -> Iterator[RemoteFile]:
    owner, repository, *folders = source.id.split("/")
    for entry in client.json(f"repos/{owner}/{repository}/contents/{'/'.join(folders)}"):
        if entry["type"] == "file":
            yield from _remote(source, entry["name"], entry["download_url"], entry["size"], f"git:{entry['sha']}")


def _gdc(client: Client, source: Source) -> Iterator[RemoteFile]:
    conditions = {
        "cases.project.project_id": source.id,
        "data_type": "Slide Image",
        "experimental_strategy": "Diagnostic Slide",
    }
    query = {
        "filters": {
            "op": "and",
            "content": [{"op": "=", "content": {"field": key, "value": value}} for key, value in conditions.items()],
        },
        "fields": "file_id,file_name,file_size,md5sum,cases.submitter_id",
        "sort": "file_id:asc",
        "format": "JSON",
        "size": PAGE,
    }
    seen = 0
    while True:
        data = client.json("files", body=query | {"from": seen})["data"]
        for hit in data["hits"]:
            yield from _remote(
                source,
                hit["file_name"],
                f"{client.base}/data/{hit['file_id']}",
                hit["file_size"],
                f"md5:{hit['md5sum']}",
                hit["cases"][0]["submitter_id"],
            )
        seen += len(data["hits"])
        if seen >= data["pagination"]["total"] or not data["hits"]:
            return


_LISTERS: Final = {"figshare": _figshare, "zenodo": _zenodo, "gdc": _gdc, "github": _github}
