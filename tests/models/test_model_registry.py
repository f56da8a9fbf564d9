import mlflow
import pytest

from mitoray.errors import BadModel
from mitoray.models import load_bundle, save_bundle
from mitoray.models.sources import SHIPPED
from mitoray.tracking import register_bundle


@pytest.fixture(scope="module", autouse=True)
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlruns.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("models", (folder / "artifacts").as_uri()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MITORAY_CACHE", str(folder / "cache"))
        yield
    mlflow.set_tracking_uri(before)


def test_a_registered_bundle_loads_by_alias_and_by_version(tmp_path):
    shipped = load_bundle("mitoray-s")
    assert register_bundle(SHIPPED / "mitoray-s", "detector", alias="champion") == "models:/detector/1"
    save_bundle(shipped.model_copy(update={"threshold": 0.03}), shipped.weights, tmp_path)
    assert register_bundle(tmp_path, "detector") == "models:/detector/2"

    assert load_bundle("models:/detector@champion").digest == shipped.digest
    assert load_bundle("models:/detector/1", expected_digest=shipped.digest).digest == shipped.digest
    assert load_bundle("models:/detector/2").threshold == 0.03


def test_an_unknown_model_is_a_bad_model():
    with pytest.raises(BadModel, match="MLFLOW_TRACKING_URI"):
        load_bundle("models:/nobody@champion")


def test_a_version_without_a_bundle_is_a_bad_model(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    uri = register_bundle(tmp_path, "pickled")
    with pytest.raises(BadModel, match=r"holds 0 bundle\.json files"):
        load_bundle(uri)
