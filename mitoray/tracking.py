"""The MLflow side: bundles into the model registry and out of it. The only file that imports mlflow."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mitoray.errors import BadModel, TrackingUnreachable
from mitoray.slide import redact


def download_bundle(uri: str) -> Path:
    """The folder of a bundle that was downloaded from the registry.

    uri: models:/name@alias or models:/name/version, of the registry that MLFLOW_TRACKING_URI names.
    Raises BadModel if there is none, or its artifacts hold not exactly one bundle.json.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise BadModel(
            f"model {uri}: the registry does not give it ({type(error).__name__}); "
            "check the name, the alias or version, and MLFLOW_TRACKING_URI"
        ) from error
    cards = sorted(folder.rglob("bundle.json"))
    if len(cards) != 1:
        raise BadModel(f"model {uri}: holds {len(cards)} bundle.json files; register one bundle folder per version")
    return cards[0].parent


def register_bundle(folder: Path | str, name: str, *, alias: str | None = None) -> str:
    """Store a bundle folder as the next version of the registered model `name`; returns its models:/name/version URI.

    alias: moved to this version, if given, as a release would move "champion".
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name=f"register {name}") as run:
        mlflow.log_artifacts(str(folder), "bundle")
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/bundle"
    version = client.create_model_version(name, source, run.info.run_id).version
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return f"models:/{name}/{version}"


def record_run(
    name: str, parameters: Mapping[str, Any], metrics: Mapping[str, float | None], folder: Path, tracking_uri: str
) -> str:
    """Record a finished job as an MLflow run of the experiment "mitoray", its folder as artifacts; returns its id.

    Metrics that are None or not finite are left out, since MLflow's databases cannot hold them. Characters that MLflow
    does not take in a metric's name become a dash. Raises TrackingUnreachable.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    try:
        with mlflow.start_run(experiment_id=_experiment(tracking_uri), run_name=name) as run:
            mlflow.log_params(dict(parameters))
            finite = {key: value for key, value in metrics.items() if value is not None and math.isfinite(value)}
            mlflow.log_metrics({re.sub(r"[^\w\-. /:]", "-", key): value for key, value in finite.items()})
            mlflow.log_artifacts(str(folder))
            run_id: str = run.info.run_id
    except (MlflowException, OSError) as error:
        raise TrackingUnreachable(
            f"MLflow at {redact(tracking_uri)} did not take the run ({type(error).__name__}). Check the address."
        ) from error
    return run_id


def _experiment(tracking_uri: str) -> str:
    """The id of the experiment "mitoray"; the artifacts of one in a database file get a folder beside it."""
    import mlflow

    known = mlflow.get_experiment_by_name("mitoray")
    if known:
        return str(known.experiment_id)
    database = tracking_uri.removeprefix("sqlite:///")
    folder = Path(database).absolute().parent / "mlartifacts" if database != tracking_uri else None
    return str(mlflow.create_experiment("mitoray", artifact_location=folder.as_uri() if folder else None))
