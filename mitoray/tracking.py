"""The MLflow side: bundles into the model registry and out of it. The only file that imports mlflow."""

from pathlib import Path

from mitoray.errors import BadModel


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
