"""Runs of an MLflow experiment, and what is recorded of them, from any process that knows their ids."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from mitoray.errors import BadOption, Stopped, TrackingUnreachable
from mitoray.slide import redact
from mitoray.tracking.entries import metric_entries, parameter_entries, tag_entries
from mitoray.tracking.provenance import code_tags
from mitoray.tracking.store import EXPERIMENT, client_of, prepare, told, tracking_address

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

_PARENT: Final = "mlflow.parentRunId"
_INHERITED: Final = ("code.", "data.", "mlflow.source.")
_PARAMETERS_AT_ONCE: Final = 100
_METRICS_AT_ONCE: Final = 1000
"""As many as an MLflow server takes in one request."""


@dataclass(frozen=True)
class RunRef:
    """Where a run is recorded: all that another process or machine needs to go on with it. Shown without passwords."""

    tracking_uri: str = field(repr=False)
    run_id: str

    def __str__(self) -> str:
        return f"run {self.run_id} in {redact(self.tracking_uri)}"


class TrackedRun:
    """A run to record into, here or in a worker; as a context manager, it ends the run.

        with TrackedRun.start("domains", tracking_uri=uri, data={"labels": digest}) as run:
            run.log_parameters(settings)
            trial = run.child("single-breast-fold-0")  # small and picklable: send it to a Ray worker

        with TrackedRun(trial) as run:  # there
            run.log_metrics({"f1/all": 0.7}, step=1)

    A run ends FINISHED; FAILED where an error leaves the block; KILLED where Ctrl-C, SIGTERM or Stopped does, or
    where it was left running under a parent that ended. Nothing is kept outside the object, so any number of runs may
    be open in one process. Its methods raise TrackingUnreachable.
    """

    def __init__(self, ref: RunRef) -> None:
        """Go on with a run that was started elsewhere."""
        self.ref = ref

    @classmethod
    def start(
        cls,
        name: str,
        *,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        parent: RunRef | None = None,
        data: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "TrackedRun":
        """Start a run, tagged with the code's versions and git state.

        tracking_uri: server or database; None takes the parent's, else MLFLOW_TRACKING_URI, else sqlite:///mlruns.db.
        experiment: None takes the parent's, else "mitoray"; made where it is missing.
        parent: the run under which this one is shown; it hands on its tags of code and data.
        data: digests of the data by name, such as manifest or labels, for tags like data.labels.
        """
        inherited: dict[str, str] = {}
        if parent is None:
            address = tracking_address(tracking_uri)
            experiment_id = prepare(address, experiment or EXPERIMENT)
        else:
            address = parent.tracking_uri
            if tracking_uri is not None and tracking_address(tracking_uri) != address:
                raise BadOption(f"tracking_uri is not that of the parent, {parent}; leave it out")
            experiment_id, inherited = _handed_on(parent)
            if experiment is not None:
                experiment_id = prepare(address, experiment)
        digests = {f"data.{what}": digest for what, digest in (data or {}).items()}
        code = {} if any(name.startswith("code.") for name in inherited) else code_tags()
        known = {**code, **inherited, **tag_entries({**(tags or {}), **digests})}
        with told(address, f"the run {name!r}"):
            run = client_of(address).create_run(experiment_id, tags=known, run_name=name)
        return cls(RunRef(address, run.info.run_id))

    @classmethod
    def kept(
        cls, name: str, note: Path, *, tracking_uri: str | None = None, data: Mapping[str, str] | None = None
    ) -> "TrackedRun":
        """Go on with the run whose id is in the file `note`, or start one and write its id there.

        So a job that is resumed goes on in the run that it began. One that is no longer there begins anew.
        """
        if note.exists():
            found = cls.again(json.loads(note.read_text())["run_id"], tracking_uri=tracking_uri)
            if found:
                return found
        run = cls.start(name, tracking_uri=tracking_uri, data=data)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"run_id": run.ref.run_id}))
        return run

    @classmethod
    def again(cls, run_id: str, *, tracking_uri: str | None = None) -> "TrackedRun | None":
        """Go on with a run that ended or was left; None where it is no longer there."""
        address = tracking_address(tracking_uri)
        prepare(address, EXPERIMENT)
        with told(address, f"run {run_id}"):
            if not _is_there(address, run_id):
                return None
            client_of(address).update_run(run_id, status="RUNNING")
        return cls(RunRef(address, run_id))

    def child(self, name: str, *, tags: Mapping[str, str] | None = None) -> RunRef:
        """Start a run below this one, for another process to record into and end."""
        return TrackedRun.start(name, parent=self.ref, tags=tags).ref

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Record settings: nested ones by dotted names, long values cut, secrets left out. Once said, they stay."""
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in parameter_entries(parameters).items()]
        with self._told("parameters"):
            for start in range(0, len(entries), _PARAMETERS_AT_ONCE):
                self._client.log_batch(self.ref.run_id, params=entries[start : start + _PARAMETERS_AT_ONCE])

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Record numbers, such as f1/<domain>. Those that are None or not finite are left out.

        Characters that MLflow does not take in a name become a dash.
        """
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        entries = [Metric(name, value, now_ms, step) for name, value in metric_entries(metrics).items()]
        with self._told("metrics"):
            for start in range(0, len(entries), _METRICS_AT_ONCE):
                self._client.log_batch(self.ref.run_id, metrics=entries[start : start + _METRICS_AT_ONCE])

    def log_figure(self, figure: "Figure", name: str) -> None:
        """Record a matplotlib figure as a file such as "figures/matrix.png" or .svg."""
        with self._told(f"the figure {name}"):
            self._client.log_figure(self.ref.run_id, figure, name)

    def log_folder(self, path: Path | str, artifact_path: str | None = None) -> None:
        """Record all files of a folder, below `artifact_path` in the artifacts. Raises BadOption if there is none."""
        if not Path(path).is_dir():
            raise BadOption(f"{path} is no folder; give one whose files the run shall keep")
        with self._told(f"the folder {path}"):
            self._client.log_artifacts(self.ref.run_id, str(path), artifact_path)

    def log_text(self, text: str, name: str) -> None:
        """Record a text as a file."""
        with self._told(f"the file {name}"):
            self._client.log_text(self.ref.run_id, text, name)

    def log_json(self, content: Any, name: str) -> None:
        """Record anything that JSON can say as a file such as "evaluation.json"."""
        self.log_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", name)

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Record a table as a file such as "failures.json", which MLflow's pages show as one."""
        with self._told(f"the table {name}"):
            self._client.log_table(self.ref.run_id, {key: list(values) for key, values in columns.items()}, name)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record facts to search runs by; one that is said again replaces the former."""
        from mlflow.entities import RunTag

        with self._told("tags"):
            known = [RunTag(name, value) for name, value in tag_entries(tags).items()]
            self._client.log_batch(self.ref.run_id, tags=known)

    def end(self, status: Status = "FINISHED") -> None:
        """End the run; runs below it that no process has ended are KILLED, for nothing runs on without its parent."""
        with self._told(f"the end of run {self.ref.run_id}"):
            client = self._client
            experiment_id = client.get_run(self.ref.run_id).info.experiment_id
            left = f"tags.`{_PARENT}` = '{self.ref.run_id}' and attributes.status = 'RUNNING'"
            while children := client.search_runs([experiment_id], left, max_results=1000):
                for run in children:
                    client.set_terminated(run.info.run_id, "KILLED")
            client.set_terminated(self.ref.run_id, status)

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.end(_status(error))
        except TrackingUnreachable as unreachable:
            if error is None:
                raise
            log.warning("%s", unreachable)  # the error on its way out says more

    @property
    def _client(self) -> Any:
        return client_of(self.ref.tracking_uri)

    def _told(self, what: str) -> Any:
        return told(self.ref.tracking_uri, what)


def record_run(
    name: str, parameters: Mapping[str, Any], metrics: Mapping[str, float | None], folder: Path, tracking_uri: str
) -> str:
    """Record a finished job as an MLflow run of the experiment "mitoray", its folder as artifacts; returns its id.

    Names and values as in `TrackedRun`. Raises TrackingUnreachable.
    """
    with TrackedRun.start(name, tracking_uri=tracking_uri) as run:
        run.log_parameters(parameters)
        run.log_metrics(metrics)
        run.log_folder(folder)
    return run.ref.run_id


def _is_there(address: str, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client_of(address).get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _status(error: BaseException | None) -> Status:
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, Stopped) else "KILLED"


def _handed_on(parent: RunRef) -> tuple[str, dict[str, str]]:
    """The experiment of a run, and the tags that it gives to the runs below it."""
    with told(parent.tracking_uri, f"a run below {parent.run_id}"):
        run = client_of(parent.tracking_uri).get_run(parent.run_id)
    tags = {name: value for name, value in run.data.tags.items() if name.startswith(_INHERITED)}
    return str(run.info.experiment_id), {**tags, _PARENT: parent.run_id}
