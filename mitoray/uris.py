"""The one door to files by path or URI: which schemes may pass, what opens them, what of a URI may be shown."""

import atexit
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import fsspec

from mitoray.errors import RefusedUri

SCHEMES: Final = ("file", "s3", "http", "https", "gs", "az")
"""What may be opened unless `SCHEMES_VARIABLE` says otherwise."""
SCHEMES_VARIABLE: Final = "MITORAY_SCHEMES"
"""Environment variable: the schemes that may be opened, separated by commas, instead of `SCHEMES`."""

_SAME: Final = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Other names of a scheme; whoever allows the one allows the other."""


def allowed_schemes() -> tuple[str, ...]:
    """The schemes that may be opened, by the environment of this process."""
    listed = os.environ.get(SCHEMES_VARIABLE, "")
    return tuple(name.strip().lower() for name in listed.split(",") if name.strip()) or SCHEMES


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case; "file" for a local path. Raises RefusedUri for one that may not be opened.

    A chain such as `zip://a.svs::https://host/b.zip` is refused whatever is allowed: its parts would be opened unseen.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        scheme = "file"
    elif "::" in scheme or (scheme.lower() != "file" and re.search(r"::[\w+.-]+://", rest)):
        raise RefusedUri(f"{redact(uri)} chains file systems, which is not allowed. Give the file's own path or URI.")
    scheme, allowed = scheme.lower(), allowed_schemes()
    if _SAME.get(scheme, scheme) not in allowed and scheme not in allowed:
        raise RefusedUri(
            f"{redact(uri)}: {scheme + '://' if mark else 'local paths'} may not be opened; allowed are "
            f"{', '.join(allowed)}. Use one of these, or have {SCHEMES_VARIABLE} name all that are allowed."
        )
    return scheme


def file_system(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec file system of a path or URI, and the path within, absolute where it is local.

    Raises RefusedUri; ImportError or ValueError where nothing is installed that opens the scheme.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        # Local names may hold "::" or "#", which a URL parser would take for its own.
        path = uri.partition("://")[2] if is_uri(uri) else uri
        if path != uri and not Path(path).exists():
            path = unquote(path)
        return fsspec.filesystem("file"), str(Path(path).expanduser().absolute())
    uri = scheme + uri[len(scheme) :]
    kind = fsspec.get_filesystem_class(scheme)
    options = {**kind._get_kwargs_from_urls(uri), **(storage_options or {})}
    return kind(**options), str(kind._strip_protocol(uri))


def read_file(uri: str, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """All of a file's bytes. Raises what `file_system` and the storage do."""
    fs, path = file_system(uri, options_for(uri, storage_options))
    return bytes(fs.cat_file(path))


def local_copy(uri: str, storage_options: Mapping[str, Any] | None = None) -> Path:
    """A local path of the file: its own, or that of a copy which lasts while the process lives. Raises as `read_file`.

    A copy keeps the file's suffix and nothing else of its name.
    """
    fs, path = file_system(uri, options_for(uri, storage_options))
    if scheme_of(uri) == "file":
        return Path(path)
    suffix = PurePosixPath(redact(uri)).suffix
    copy = _copies() / f"{hashlib.sha256(uri.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}{suffix[:16]}"
    fs.get_file(path, str(copy))
    return copy


@cache
def _copies() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="mitoray-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def is_uri(uri: str) -> bool:
    """Whether it has a scheme, and is no plain path."""
    return "://" in uri


def options_for(uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The storage options for one URI: they describe object storage, so local paths and web addresses take none."""
    remote = is_uri(uri) and not uri.lower().startswith(("file://", "http://", "https://"))
    return dict(storage_options or {}) if remote else {}


def redact(uri: str) -> str:
    """`uri` without what may be secret: user and password, query, fragment. Local paths stay as they are."""
    if not is_uri(uri) or uri.startswith("file://"):
        return uri
    # Keys may hold "/", so a password is taken to end at the last "@" that follows "user:".
    uri = re.sub(r"://(?:[^/@:]*:(?!\d+(?:/|$)).*@|[^/]*@)", "://", uri)
    return re.sub(r"[?#].*", "", uri)
