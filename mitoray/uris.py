"""The one door to files by path or URI: which schemes may pass, what opens them, what of a URI may be shown."""

import atexit
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import fsspec

from mitoray.errors import MitorayError, RefusedUri, StorageUnreachable

SCHEMES: Final = ("file", "s3", "http", "https", "gs", "az")
"""What may be opened unless `SCHEMES_VARIABLE` says otherwise."""
SCHEMES_VARIABLE: Final = "MITORAY_SCHEMES"
"""Environment variable: the schemes that may be opened, separated by commas, instead of `SCHEMES`."""

_SAME: Final = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Other names of a scheme; whoever allows the one allows the other."""

_NO_CREDENTIALS: Final = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
)
_URI: Final = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s\"<>]+")
_PARAMETER: Final = re.compile(
    r"\b(x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|\w*(?:token|secret|passw\w*))"
    r"=[^\s&\"'<>]+",
    re.IGNORECASE,
)
"""Servers and libraries repeat an address without its beginning."""


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
    """All of a file's bytes. Raises FileNotFoundError, StorageUnreachable, and what `file_system` does."""
    with telling_no_secrets(uri):
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
    with telling_no_secrets(uri):
        fs.get_file(path, str(copy))
    return copy


@cache
def _copies() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="mitoray-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


@contextmanager
def telling_no_secrets(uri: str) -> Iterator[None]:
    """Errors of storage in the block come out without its words, which repeat URIs and headers with all they hold.

    Raises FileNotFoundError or StorageUnreachable instead; leaves errors of mitoray, of pyarrow, and of local files.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, MitorayError) or type(error).__module__.startswith("pyarrow")
        if known or scheme_of(uri) == "file":
            raise
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such file, or no access to it", redact(uri)) from None
        raise StorageUnreachable(
            f"{redact(uri)} could not be read ({brief(error)}). Check the address, the network and the credentials."
        ) from None


def lacks_credentials(error: BaseException) -> bool:
    """Whether a storage library found no credentials to ask with, or none that are whole or valid."""
    return type(error).__name__ in _NO_CREDENTIALS


def brief(error: BaseException) -> str:
    """What failed, without the text of the exception, which may hold a signed URL."""
    status = getattr(error, "status", None)
    code = getattr(error, "errno", None) or 0
    known = errno.errorcode.get(code)
    detail = f", HTTP status {status}" if status else f", {known}" if known else ""
    return type(error).__name__ + detail


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


def redact_text(text: str) -> str:
    """A text, such as an error of some library, with each URI in it redacted, and the values of secret parameters."""
    return _PARAMETER.sub(r"\1=…", _URI.sub(lambda found: redact(found.group()), text))
