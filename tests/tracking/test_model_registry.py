import mlflow
import pytest

from mitoray.errors import BadModel, BadOption, TrackingUnreachable
from mitoray.models import load_bundle, save_bundle
from mitoray.models.sources import SHIPPED
from mitoray.tracking import TrackedRun, register_bundle, set_alias, version_of

FOLDER = SHIPPED / "mitoray-s"


@pytest.fixture(autouse=True)
def registry(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MITORAY_CACHE", str(tmp_path / "cache"))
    return mlflow.MlflowClient(database, registry_uri=database)


@pytest.fixture(scope="module")
def shipped():
    return load_bundle("mitoray-s")


def test_a_registered_bundle_loads_by_alias_and_by_version(shipped, tmp_path):
    assert register_bundle(FOLDER, "detector", alias="champion") == "models:/detector/1"
    save_bundle(shipped.model_copy(update={"threshold": 0.03}), shipped.weights, tmp_path / "bundle")
    assert register_bundle(tmp_path / "bundle", "detector") == "models:/detector/2"

    assert load_bundle("models:/detector@champion").digest == shipped.digest
    assert load_bundle("models:/detector/1", expected_digest=shipped.digest).digest == shipped.digest
    assert load_bundle("models:/detector/2").threshold == 0.03

    assert version_of("models:/detector@champion") == 1
    set_alias("detector", "champion", 2)
    assert version_of("models:/detector@champion") == 2
    assert load_bundle("models:/detector@champion").threshold == 0.03


def test_a_version_says_licence_limits_and_figures_of_its_bundle(registry, shipped):
    register_bundle(FOLDER, "described", tags={"stage": "test"})
    held = registry.get_model_version("described", "1")
    for known in (shipped.training.licence, *shipped.training.notes, *(metric.name for metric in shipped.metrics)):
        assert known in held.description
    assert held.tags["digest"] == shipped.digest
    assert held.tags["stage"] == "test"
    assert "code.mitoray" in held.tags


def test_the_run_that_made_a_bundle_keeps_it_and_goes_on(registry, database):
    with TrackedRun.start("training", tracking_uri=database) as run:
        register_bundle(FOLDER, "trained", run=run.ref)
        assert registry.get_run(run.ref.run_id).info.status == "RUNNING"
    assert registry.get_model_version("trained", "1").run_id == run.ref.run_id
    assert [file.path for file in registry.list_artifacts(run.ref.run_id, "bundle")] == [
        "bundle/bundle.json",
        "bundle/weights.safetensors",
    ]
    (output,) = registry.get_run(run.ref.run_id).outputs.model_outputs
    assert registry.get_logged_model(output.model_id).tags["digest"] == load_bundle("mitoray-s").digest


def test_only_the_two_files_of_a_bundle_are_stored_and_none_is_pickled(shipped, tmp_path):
    save_bundle(shipped, shipped.weights, tmp_path / "bundle")
    (tmp_path / "bundle" / "checkpoint.pt").write_bytes(b"\x80\x04.")
    uri = register_bundle(tmp_path / "bundle", "tidy")
    folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "downloaded"))
    names = {path.name for path in (tmp_path / "downloaded").rglob("*") if path.is_file()}
    assert {"weights.safetensors", "bundle.json", "pyfunc.py", "MLmodel", "requirements.txt"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pkl", ".lock", ".toml"))]
    assert "mitoray==" in (tmp_path / "downloaded" / "requirements.txt").read_text(), folder


def test_an_unsound_bundle_is_not_registered(registry, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BadModel, match=r"no weights\.safetensors"):
        register_bundle(tmp_path, "pickled")
    assert not registry.search_registered_models("name = 'pickled'")


@pytest.mark.parametrize(
    ("name", "alias"), [("a/b", None), ("a@b", None), ("", None), ("good", "v2"), ("good", "latest"), ("good", "a b")]
)
def test_a_name_or_alias_that_no_address_could_hold_is_refused_before_anything_is_stored(registry, name, alias):
    with pytest.raises(BadOption, match=r"model name|alias"):
        register_bundle(FOLDER, name, alias=alias)
    assert not registry.search_registered_models("name = 'good'")


@pytest.mark.parametrize("uri", ["models:/nobody@champion", "models:/nobody/7"])
def test_an_unknown_model_is_a_bad_model(uri):
    with pytest.raises(BadModel, match="MLFLOW_TRACKING_URI"):
        load_bundle(uri)
    with pytest.raises(BadModel, match="the registry has none"):
        version_of(uri)


def test_an_address_outside_a_registry_has_no_version():
    with pytest.raises(BadModel, match="use models:/name@alias"):
        version_of("s3://bucket/mitoray-s")


def test_an_alias_for_a_version_that_is_not_there_is_told():
    with pytest.raises(TrackingUnreachable, match="the alias champion of nobody, version 3"):
        set_alias("nobody", "champion", 3)


def test_a_version_without_a_bundle_is_a_bad_model(registry, database, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    with TrackedRun.start("elsewhere", tracking_uri=database) as run:
        run.log_folder(tmp_path, "model")
    registry.create_registered_model("pickled")
    registry.create_model_version("pickled", f"{registry.get_run(run.ref.run_id).info.artifact_uri}/model")
    with pytest.raises(BadModel, match=r"holds 0 bundle\.json files"):
        load_bundle("models:/pickled/1")
