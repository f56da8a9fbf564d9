"""Bundles into the model registry and out of it."""

import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mitoray
from mitoray.errors import BadModel, BadOption
from mitoray.tracking.card import model_card
from mitoray.tracking.entries import tag_entries
from mitoray.tracking.provenance import code_tags
from mitoray.tracking.runs import RunRef, TrackedRun
from mitoray.tracking.store import client_of, told, tracking_address

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from mitoray.models import Bundle

_PYFUNC: Final = Path(__file__).with_name("pyfunc.py")
_URI: Final = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")


def download_bundle(uri: str, tracking_uri: str | None = None) -> Path:
    """The folder of a bundle that was downloaded from the registry.

    uri: models:/name@alias or models:/name/version. tracking_uri: of the registry; None takes MLFLOW_TRACKING_URI.
    Raises BadModel if there is none, or its artifacts hold not exactly one bundle.json.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    address = tracking_address(tracking_uri)
    source = uri
    if tracking_uri is not None:  # MLflow would look up a models:/ address at the process' global one
        held = version_of(uri, tracking_uri=tracking_uri)
        source = client_of(address).get_model_version_download_uri(_name_of(uri), str(held))
    try:
        folder = Path(mlflow.artifacts.download_artifacts(source, tracking_uri=address, registry_uri=address))
    except (MlflowException, OSError) as error:
        raise BadModel(
            f"model {uri}: the registry does not give it ({type(error).__name__}); "
            "check the name, the alias or version, and MLFLOW_TRACKING_URI"
        ) from error
    cards = sorted(folder.rglob("bundle.json"))
    if len(cards) != 1:
        raise BadModel(f"model {uri}: holds {len(cards)} bundle.json files; register one bundle folder per version")
    return cards[0].parent


def register_bundle(
    folder: Path | str,
    name: str,
    *,
    alias: str | None = None,
    run: RunRef | None = None,
    tracking_uri: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Store a bundle folder as the next version of the registered model `name`; returns its models:/name/version URI.

    `load_bundle` takes that URI, and so does mlflow.pyfunc.load_model: see `mitoray.tracking.pyfunc` for what its
    predict takes and gives. The version carries the bundle's model card and digest.

    alias: moved to this version, if given, as a release would move "champion".
    run: the run that made the bundle, which then keeps it; None makes one.
    tracking_uri: of the registry, if no run is given; None takes MLFLOW_TRACKING_URI, else sqlite:///mlruns.db.

    Raises BadModel for a folder that holds no sound bundle, BadOption for a name or alias that MLflow does not take,
    TrackingUnreachable.
    """
    from mitoray.models import load_bundle  # torch takes seconds, and who records a run needs none

    bundle = load_bundle(str(Path(folder).resolve()))
    if not re.fullmatch(r"[^/:@\s][^/:@]*", name):
        raise BadOption(f"model name {name!r} would break its models:/ address; leave out / : and @")
    if alias is not None:
        _check_alias(alias)
    if run is None:
        with TrackedRun.start(f"register {name}", tracking_uri=tracking_uri) as own:
            found = _register(Path(folder), bundle, name, own.ref, tags or {})
    else:
        if tracking_uri is not None and tracking_address(tracking_uri) != run.tracking_uri:
            raise BadOption(f"tracking_uri is not that of {run}; leave it out")
        found = _register(Path(folder), bundle, name, run, tags or {})
        own = TrackedRun(run)
    if alias is not None:
        set_alias(name, alias, found, tracking_uri=own.ref.tracking_uri)
    return f"models:/{name}/{found}"


def set_alias(name: str, alias: str, version: int | str, *, tracking_uri: str | None = None) -> None:
    """Move an alias, such as "champion", to a version of a registered model.

    Raises BadOption for an alias that MLflow does not take, TrackingUnreachable where there is no such version.
    """
    _check_alias(alias)
    address = tracking_address(tracking_uri)
    with told(address, f"the alias {alias} of {name}, version {version}"):
        client_of(address).set_registered_model_alias(name, alias, str(version))


def version_of(uri: str, *, tracking_uri: str | None = None) -> int:
    """The version that models:/name@alias or models:/name/version stands for.

    Raises BadModel for another address, or where the registry holds none.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise BadModel(f"model {uri}: no address in a registry; use models:/name@alias or models:/name/version")
    from mlflow.exceptions import MlflowException

    address = tracking_address(tracking_uri)
    with told(address, f"the question for {uri}"):
        client = client_of(address)
        try:
            if parts["alias"]:
                return int(client.get_model_version_by_alias(parts["name"], parts["alias"]).version)
            return int(client.get_model_version(parts["name"], parts["version"]).version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise BadModel(f"model {uri}: the registry has none; check the name, and the alias or version") from error


def tags_of(uri: str, *, tracking_uri: str | None = None) -> dict[str, str]:
    """What the registry's tags say of a version, such as its digest. Errors as in `version_of`."""
    found = version_of(uri, tracking_uri=tracking_uri)
    address = tracking_address(tracking_uri)
    with told(address, f"the question for {uri}"):
        return dict(client_of(address).get_model_version(_name_of(uri), str(found)).tags)


def _name_of(uri: str) -> str:
    parts = _URI.fullmatch(uri)
    return parts["name"] if parts else ""


def _register(folder: Path, bundle: "Bundle", name: str, run: RunRef, tags: Mapping[str, str]) -> str:
    """Store model and bundle with their run and create the version; returns its number."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    from mitoray.models.bundle import CARD_FILE, WEIGHTS_FILE

    facts = {"digest": bundle.digest, "architecture": bundle.architecture, "mpp": bundle.mpp}
    known = {**code_tags(), **tag_entries({**facts, "licence": bundle.training.licence, **tags})}
    with told(run.tracking_uri, f"the model {name!r}"), tempfile.TemporaryDirectory() as work:
        client = client_of(run.tracking_uri)
        experiment_id = client.get_run(run.run_id).info.experiment_id
        files = Path(work) / "bundle"
        files.mkdir()
        for file in (WEIGHTS_FILE, CARD_FILE):  # and not what else may lie there, such as a trainer's checkpoints
            shutil.copyfile(folder / file, files / file)
        client.log_artifacts(run.run_id, str(files), "bundle")
        stored = client.create_logged_model(
            experiment_id, name=re.sub(r"[^\w-]", "-", name), source_run_id=run.run_id, tags=known
        )
        try:
            client.log_model_artifacts(stored.model_id, str(_as_pyfunc(files, bundle, stored, run)))
        except BaseException:
            with suppress(Exception):  # the error on its way out says more
                client.finalize_logged_model(stored.model_id, LoggedModelStatus.FAILED)
            raise
        client.finalize_logged_model(stored.model_id, LoggedModelStatus.READY)
        client.log_outputs(run.run_id, [LoggedModelOutput(stored.model_id, step=0)])
        _create_registered_model(client, name)
        created = client.create_model_version(
            name,
            stored.artifact_location,  # not its models:/ address, which a database looks up at the process' global one
            run.run_id,
            known,
            description=model_card(bundle),
            model_id=stored.model_id,
        )
        versions = json.dumps([{"name": name, "version": created.version}])
        client.set_logged_model_tags(stored.model_id, {"mlflow.modelVersions": versions})
    return str(created.version)


def _as_pyfunc(files: Path, bundle: "Bundle", stored: Any, run: RunRef) -> Path:
    """The bundle in the form that mlflow.pyfunc loads, as a folder beside it."""
    import mlflow
    from mlflow.models import Model

    folder = files.parent / "model"
    empty = files.parent / "empty"
    empty.mkdir()
    requirements = [f"mitoray=={mitoray.__version__}", *(f"{name}=={version(name)}" for name in ("mlflow", "torch"))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example", UserWarning)  # the signature below has no input
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_PYFUNC),
            artifacts={"bundle": str(files)},
            signature=_signature(bundle),
            pip_requirements=requirements,  # else MLflow would find them out by loading the model
            uv_project_path=empty,  # else it would store the uv.lock and pyproject.toml of the folder the process is in
            mlflow_model=Model(
                artifact_path=stored.artifact_location,
                model_uuid=stored.model_id,
                run_id=run.run_id,
                model_id=stored.model_id,
            ),
        )
    return folder


def _signature(bundle: "Bundle") -> "ModelSignature":
    """Output and parameters only: a signature cannot say that the input is either an array, a list or a table."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    names = ("score", "atypical_probability") if bundle.is_classifier else ("x_px", "y_px", "score")
    pixels = [ColSpec(DataType.float, name) for name in names]
    threshold = ParamSpec("threshold", DataType.double, bundle.threshold)
    return ModelSignature(outputs=Schema([ColSpec(DataType.long, "image"), *pixels]), params=ParamSchema([threshold]))


def _create_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _check_alias(alias: str) -> None:
    if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"[vV]\d+", alias) or alias.lower() == "latest":
        raise BadOption(f'alias {alias!r} is not usable: letters, digits, _ and -, but neither "latest" nor v1, v2, …')
