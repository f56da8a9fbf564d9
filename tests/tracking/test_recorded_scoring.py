"""Scoring jobs as MLflow keeps them: one run for a cohort, however often it is resumed."""

import json

import mlflow
import pytest

from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort
from mitoray.scoring_record import tracking_of


@pytest.fixture(scope="module")
def score_cohort(job):
    return job("score_cohort")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    draw_cohort(folder, n_slides=1, seed=961_000, width_px=700, height_px=600)
    (slide,) = folder.glob("*.svs")
    (folder / "cohort.csv").write_text(
        f"slide_id,uri,case_id\nthere,{slide},one\n<b>gone</b>,https://me:hunter2@127.0.0.1:9/gone.svs,two\n"
    )
    return folder


@pytest.mark.slow
def test_a_cohort_is_one_run_with_its_model_counts_durations_and_failures(
    score_cohort, ray_session, folder, database, capsys
):
    output = folder / "out"
    command = ["--manifest", str(folder / "cohort.csv"), "--output", str(output), "--report", "false"]
    assert score_cohort([*command, "--mlflow", database]) == 3
    assert "Recorded as run " in capsys.readouterr().out
    client = mlflow.MlflowClient(database)
    run_id = json.loads((output / "work/mlflow.json").read_text())["run_id"]
    run = client.get_run(run_id)
    record = json.loads((output / "run.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.tags["status"] == "incomplete"
    assert run.data.tags["cohort"] == "out"
    assert run.data.tags["data.manifest"] == record["identity"]["manifest_digest"]
    assert run.data.params["identity.model_digest"] == load_bundle("mitoray-s").digest
    assert run.data.params["identity.method.hotspot_mm2"] == "2.0"
    assert run.data.metrics["slides/scored"] == run.data.metrics["slides/failed"] == 1
    for name in ("n_detections", "tissue_mm2", "n_regions"):
        assert run.data.metrics[name] == pytest.approx(record["counts"][name])
    assert run.data.metrics["duration_s/score"] == record["duration_s"]["score"]
    failures = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/failures.json")
    (row,) = failures["data"]
    assert row[:3] == ["<b>gone</b>", "two", "failed"]
    assert "hunter2" not in row[3]
    kept = {file.path for file in client.list_artifacts(run_id)}
    assert kept == {"failures.json", "run.json", "slides.csv", "cases.csv"}

    assert score_cohort([*command, "--mlflow", database]) == 3  # what failed is tried again
    again = client.get_run(run_id)
    assert again.info.status == "FINISHED"
    assert again.data.tags["attempts"] == "2"
    assert [metric.step for metric in client.get_metric_history(run_id, "n_detections")] == [1, 2]


def test_a_server_out_of_reach_is_told_before_anything_is_scored(score_cohort, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    command = ["--manifest", str(folder / "cohort.csv"), "--output", str(tmp_path / "out")]
    assert score_cohort([*command, "--mlflow", "http://me:hunter2@127.0.0.1:9"]) == 2
    told = capsys.readouterr().err
    assert "TrackingUnreachable: MLflow at http://127.0.0.1:9 did not take" in told
    assert "hunter2" not in told
    assert not (tmp_path / "out" / "slides").exists()


def test_where_a_run_is_recorded_follows_from_option_environment_and_model(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)
    assert tracking_of(None, "mitoray-s", None) is None
    assert tracking_of(None, "mitoray-s", "models:/judge@champion") == f"sqlite:///{tmp_path}/mlruns.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_of(None, "mitoray-s") == "http://mlflow:5000"
    assert tracking_of("http://other:5000", "mitoray-s") == "http://other:5000"
    assert tracking_of("none", "models:/mitoray@champion") is None
