"""Where bundles come from: shipped with the package, a folder here or on S3 or HTTP, the MLflow registry."""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import fsspec

from mitoray.errors import BadModel, BadOption
from mitoray.models.bundle import (
    CARD_FILE,
    MOST_CARD_BYTES,
    WEIGHTS_FILE,
    Bundle,
    digest,
    most_weights_bytes,
    parse_bundle,
)
from mitoray.uris import file_system, options_for, redact

SHIPPED: Final = Path(__file__).parent / "bundles"
REGISTERED: Final = "models:/"
"""How addresses in an MLflow registry begin."""

_PICKLED: Final = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


def load_bundle(
    uri: str,
    storage_options: Mapping[str, Any] | None = None,
    expected_digest: str | None = None,
    registry: str | None = None,
) -> Bundle:
    """Read a bundle and check all of it.

    uri: "mitoray-s" (shipped), a local folder, s3://folder, http(s)://folder, models:/name@alias, models:/name/version.
    storage_options: for fsspec, such as an S3 endpoint.
    expected_digest: sha256 hex; a bundle with another is refused, and a remote one that was downloaded before is taken
    from the cache (`MITORAY_CACHE`, default ~/.cache/mitoray).
    registry: MLflow server or database that models:/ addresses are of; None takes MLFLOW_TRACKING_URI.

    Raises BadModel for a bundle that cannot be found, read or trusted, BadOption for a digest that is none.
    """
    files = bundle_files(uri, storage_options, expected_digest, registry)
    bundle = parse_bundle(*files, f"model {without_secrets(uri)}")
    if _is_remote(uri):
        with suppress(OSError):  # without a cache the next load downloads again
            _keep(*files)
    return bundle


def bundle_files(
    uri: str,
    storage_options: Mapping[str, Any] | None = None,
    expected_digest: str | None = None,
    registry: str | None = None,
) -> tuple[bytes, bytes]:
    """The files of a bundle, weights and card, unread; arguments and errors as in `load_bundle`."""
    if expected_digest is not None and not re.fullmatch("[0-9a-f]{64}", expected_digest):
        raise BadOption("expected_digest is no sha256: 64 hexadecimal digits in lower case")
    where = f"model {without_secrets(uri)}"
    files = _read_cached(expected_digest) if _is_remote(uri) else None
    if files is None:
        files = _read_folder(_folder(uri, registry), storage_options or {}, where)
    found = digest(*files)
    if expected_digest is not None and found != expected_digest:
        raise BadModel(
            f"{where}: digest {found} is not the expected {expected_digest}; the files changed: "
            "give the new digest if that was on purpose"
        )
    return files


def _is_remote(uri: str) -> bool:
    return "://" in uri or uri.startswith(REGISTERED)


def _folder(uri: str, registry: str | None) -> str:
    if uri.startswith(REGISTERED):
        from mitoray.tracking import download_bundle  # mlflow takes seconds to import, and most runs have no registry

        return str(download_bundle(uri, registry))
    shipped = SHIPPED / uri
    return str(shipped) if re.fullmatch(r"[\w.-]+", uri) and (shipped / CARD_FILE).exists() else uri


def _read_folder(folder: str, storage_options: Mapping[str, Any], where: str) -> tuple[bytes, bytes]:
    try:
        fs, path = file_system(folder, options_for(folder, storage_options))
    except (ImportError, ValueError) as error:
        raise BadModel(f"{where}: {error}; use a folder, s3://, http(s):// or models:/") from error
    path = path.rstrip("/")
    try:
        name = WEIGHTS_FILE
        size = _size(fs, f"{path}/{name}")
        name = CARD_FILE
        _refuse_larger(_size(fs, f"{path}/{name}"), MOST_CARD_BYTES, f"{where}: {name}")
        card = fs.cat_file(f"{path}/{name}")
        name = WEIGHTS_FILE
        _refuse_larger(size, most_weights_bytes(card, where), f"{where}: {name}")
        return fs.cat_file(f"{path}/{name}"), card
    except BadModel:
        raise
    except (FileNotFoundError, NotADirectoryError):
        pickled = _pickled_names(fs, path)
        if name == WEIGHTS_FILE and pickled:
            raise BadModel(
                f"{where}: holds pickled weights ({', '.join(pickled)}) and no {WEIGHTS_FILE}; a pickle can run "
                "any code when it is read, so none is: convert it to safetensors where you trust it"
            ) from None
        raise BadModel(f"{where}: no {name} there; a bundle is a folder with {WEIGHTS_FILE} and {CARD_FILE}") from None
    except Exception as error:  # each storage raises classes of its own
        raise BadModel(f"{where}: cannot be read ({type(error).__name__}); check the address and credentials") from None


def _size(fs: fsspec.AbstractFileSystem, path: str) -> int | None:
    """Bytes of a file; None where a web server does not tell. Raises what the storage does."""
    size = fs.info(path).get("size")
    return None if size is None else int(size)


def _refuse_larger(size: int | None, most: int, what: str) -> None:
    """BadModel before a file is fetched that is larger than it can be."""
    if size is not None and size > most:
        raise BadModel(f"{what} has {size} bytes, where at most {most} can belong to it; check that this is the model")


def _pickled_names(fs: fsspec.AbstractFileSystem, path: str) -> list[str]:
    try:
        names = [Path(entry).name for entry in fs.ls(path, detail=False)]
    except Exception:  # not every web server lists its folders
        return []
    return sorted(name for name in names if name.lower().endswith(_PICKLED))


def _keep(weights: bytes, card: bytes) -> None:
    folder = _cache() / digest(weights, card)
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as partial:
        (Path(partial) / WEIGHTS_FILE).write_bytes(weights)
        (Path(partial) / CARD_FILE).write_bytes(card)
        with suppress(OSError):  # another worker was first, with the same bytes
            Path(partial).rename(folder)


def _read_cached(expected_digest: str | None) -> tuple[bytes, bytes] | None:
    if expected_digest is None:
        return None
    folder = _cache() / expected_digest
    try:
        files = (folder / WEIGHTS_FILE).read_bytes(), (folder / CARD_FILE).read_bytes()
    except OSError:
        return None
    return files if digest(*files) == expected_digest else None


def _cache() -> Path:
    return Path(os.environ.get("MITORAY_CACHE") or Path.home() / ".cache" / "mitoray") / "bundles"


def without_secrets(uri: str) -> str:
    """The URI without user, password and query, as messages may show it."""
    return redact(uri)
