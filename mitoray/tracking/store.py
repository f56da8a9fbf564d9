"""The MLflow server or database: its address, its schema, and its failures in our words."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from mitoray.errors import MitorayError, TrackingUnreachable
from mitoray.slide import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI: Final = "sqlite:///mlruns.db"
EXPERIMENT: Final = "mitoray"

_SQLITE: Final = "sqlite:///"
_LOCK_S: Final = 120.0
"""The schema of a fresh database takes MLflow some seconds; longer on a busy machine."""
_DETAIL: Final = 300
"""Characters of MLflow's own message that an error repeats."""


def tracking_address(given: str | None = None) -> str:
    """Where to record: what is given, else what MLFLOW_TRACKING_URI or mlflow.set_tracking_uri says, else DEFAULT_URI.

    A database file is named from the root, so that processes that work in another folder find the same one.
    """
    if given is None:
        import mlflow

        given = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else DEFAULT_URI  # type: ignore[no-untyped-call]
    database = _database(given)
    return given if database is None else f"{_SQLITE}{database}{''.join(given.partition('?')[1:])}"


def client_of(tracking_uri: str) -> "MlflowClient":
    """A client for runs and registry at one address, whatever this process has set as its global ones."""
    import mlflow

    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # only jobs print
    return mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)


def prepare(tracking_uri: str, experiment: str = EXPERIMENT) -> str:
    """Make MLflow ready for parallel writers: a database file's schema, and the experiment; returns the latter's id.

    Any number of processes may call it, at the same time and again. Artifacts of an experiment in a database file get
    the folder mlartifacts beside it; a server decides for itself. Raises TrackingUnreachable.
    """
    tracking_uri = tracking_address(tracking_uri)
    database = _database(tracking_uri)
    artifacts = None if database is None else (database.parent / "mlartifacts").as_uri()
    with told(tracking_uri, f"the experiment {experiment!r}"), _alone_with(database):
        from mlflow.exceptions import MlflowException

        client = client_of(tracking_uri)
        if client.get_experiment_by_name(experiment) is None:
            try:
                client.create_experiment(experiment, artifact_location=artifacts)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another client of the server was first
                    raise
        return str(client.get_experiment_by_name(experiment).experiment_id)  # type: ignore[union-attr]


@contextmanager
def told(tracking_uri: str, what: str) -> Iterator[None]:
    """Turn what MLflow raises inside into TrackingUnreachable; `what` says what it was to take or give."""
    try:
        yield
    except MitorayError:
        raise
    except Exception as error:  # each database and each artifact store raises classes of its own
        shown = redact(tracking_uri)
        message = f"MLflow at {shown} did not take {what} ({type(error).__name__}"
        if shown != tracking_uri:  # MLflow's messages repeat the address, password and all
            raise TrackingUnreachable(f"{message}). Check the address and the credentials.") from None
        detail = str(error).partition("\n")[0][:_DETAIL]
        raise TrackingUnreachable(f"{message}: {detail}). Check the address.") from error


def _database(tracking_uri: str) -> Path | None:
    """The file of an sqlite address; None for servers, other databases and one in memory."""
    path = tracking_uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path).absolute() if tracking_uri.startswith(_SQLITE) and path not in ("", ":memory:") else None


def _alone_with(database: Path | None) -> AbstractContextManager[object]:
    """At most one process inside. MLflow's own lock lies in the temporary folder, which not all workers share."""
    if database is None:
        return nullcontext()
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=_LOCK_S)
