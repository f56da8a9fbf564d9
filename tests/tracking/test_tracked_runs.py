import json
import os
import pickle
import subprocess
import traceback
from pathlib import Path

import mlflow
import pytest
from matplotlib.figure import Figure

import mitoray
from mitoray.errors import BadOption, TrackingUnreachable
from mitoray.scoring.run import code_version
from mitoray.tracking import RunRef, TrackedRun, record_run
from mitoray.tracking.provenance import has_uncommitted_changes


@pytest.fixture
def recorded(database):
    """What MLflow holds of a run."""
    client = mlflow.MlflowClient(database)
    return lambda ref: client.get_run(ref.run_id)


def test_a_run_that_went_well_is_finished_and_says_which_code_and_data_made_it(database, recorded):
    with TrackedRun.start("plain", tracking_uri=database, data={"labels": "9f86d0"}, tags={"stage": "test"}) as run:
        pass
    held = recorded(run.ref)
    tags = held.data.tags
    assert held.info.status == "FINISHED"
    assert held.info.run_name == "plain"
    assert tags["data.labels"] == "9f86d0"
    assert tags["stage"] == "test"
    assert tags["code.mitoray"] == mitoray.__version__
    assert tags.get("code.git_commit") == tags.get("mlflow.source.git.commit") == code_version()["git_commit"]
    assert ("code.git_dirty" in tags) == ("code.git_commit" in tags)


def test_a_resumed_job_goes_on_in_the_run_it_began_unless_that_was_deleted(database, recorded, tmp_path):
    note = tmp_path / "job/mlflow.json"
    with TrackedRun.kept("resumed", note, tracking_uri=database) as first:
        first.log_metrics({"done": 1})
    with TrackedRun.kept("resumed", note, tracking_uri=database) as second:
        assert recorded(second.ref).info.status == "RUNNING"
        second.log_metrics({"done": 2}, step=1)
    assert second.ref == first.ref
    assert recorded(first.ref).data.metrics["done"] == 2
    assert recorded(first.ref).info.status == "FINISHED"
    assert database not in note.read_text()  # it may hold a password
    mlflow.MlflowClient(database).delete_run(first.ref.run_id)
    assert TrackedRun.kept("resumed", note, tracking_uri=database).ref != first.ref


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("loss is NaN"), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_a_run_that_an_error_leaves_ends_by_its_kind(database, recorded, error, status):
    run = TrackedRun.start("left", tracking_uri=database)
    with pytest.raises(type(error)), run:
        raise error
    assert recorded(run.ref).info.status == status


def test_a_child_is_recorded_by_whoever_knows_its_reference(database, recorded):
    with TrackedRun.start("parent", tracking_uri=database, data={"labels": "9f86d0"}) as run:
        sent = pickle.dumps(run.child("trial"))
        with TrackedRun(pickle.loads(sent)) as trial:  # noqa: S301
            trial.log_metrics({"f1/all": 0.75}, step=3)
    held = recorded(trial.ref)
    assert held.info.status == "FINISHED"
    assert held.info.experiment_id == recorded(run.ref).info.experiment_id
    assert held.data.metrics == {"f1/all": 0.75}
    assert held.data.tags["mlflow.parentRunId"] == run.ref.run_id
    assert held.data.tags["data.labels"] == "9f86d0"


def test_children_that_nobody_ended_are_killed_with_their_parent(database, recorded):
    with TrackedRun.start("parent", tracking_uri=database) as run:
        done, lost = run.child("done"), run.child("lost")
        TrackedRun(done).end("FAILED")
    assert recorded(done).info.status == "FAILED"
    assert recorded(lost).info.status == "KILLED"
    assert recorded(run.ref).info.status == "FINISHED"


def test_two_open_runs_do_not_mix_and_leave_mlflows_own_state_alone(database, recorded):
    before = mlflow.get_tracking_uri()
    with (
        TrackedRun.start("one", tracking_uri=database) as one,
        TrackedRun.start("two", tracking_uri=database, experiment="another") as two,
    ):
        one.log_metrics({"loss": 1.0})
        two.log_metrics({"loss": 2.0})
        assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
    assert recorded(one.ref).data.metrics == {"loss": 1.0}
    assert recorded(two.ref).data.metrics == {"loss": 2.0}
    assert recorded(one.ref).info.experiment_id != recorded(two.ref).info.experiment_id


def test_more_entries_than_one_request_takes_are_all_recorded(database, recorded):
    parameters = {f"p{n}": n for n in range(230)} | {"slides": ["a slide's name"] * 1000}
    metrics = {f"m{n}": float(n) for n in range(1200)} | {"none": None}
    with TrackedRun.start("many", tracking_uri=database) as run:
        run.log_parameters(parameters)
        run.log_metrics(metrics)
    held = recorded(run.ref).data
    assert held.params.keys() == parameters.keys()
    assert len(held.params["slides"]) == 6000
    assert held.metrics == {f"m{n}": float(n) for n in range(1200)}


def test_metrics_keep_their_steps(database):
    with TrackedRun.start("steps", tracking_uri=database) as run:
        for step, loss in enumerate((3.0, 2.0, 1.0)):
            run.log_metrics({"loss": loss}, step)
    history = mlflow.MlflowClient(database).get_metric_history(run.ref.run_id, "loss")
    assert [(entry.step, entry.value) for entry in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_figures_folders_texts_and_json_become_artifacts(database, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "evaluation.json").write_text("{}")
    with TrackedRun.start("artifacts", tracking_uri=database) as run:
        run.log_figure(Figure(), "figures/matrix.png")
        run.log_folder(tmp_path / "report", "report")
        run.log_text("µm", "note.txt")
        run.log_json({"f1": 0.7, "domain": "Brust"}, "scores.json")
        with pytest.raises(BadOption, match="no folder"):
            run.log_folder(tmp_path / "gone")
    client = mlflow.MlflowClient(database)
    read = {
        name: Path(client.download_artifacts(run.ref.run_id, name)).read_bytes()
        for name in ("figures/matrix.png", "report/evaluation.json", "note.txt", "scores.json")
    }
    assert read["figures/matrix.png"].startswith(b"\x89PNG")
    assert read["report/evaluation.json"] == b"{}"
    assert read["note.txt"].decode() == "µm"
    assert json.loads(read["scores.json"]) == {"f1": 0.7, "domain": "Brust"}


def test_a_relative_database_is_named_for_workers_in_other_folders(database, monkeypatch, recorded):
    folder, name = os.path.split(database.removeprefix("sqlite:///"))
    monkeypatch.chdir(folder)
    with TrackedRun.start("relative", tracking_uri=f"sqlite:///{name}") as run:
        assert run.ref.tracking_uri == database
    assert recorded(run.ref).info.status == "FINISHED"


def test_a_finished_job_is_recorded_in_one_call(database, recorded, tmp_path):
    (tmp_path / "evaluation.json").write_text("{}")
    run_id = record_run("evaluate", {"rule": "linked"}, {"f1/a,b": 0.5, "ap/all": None}, tmp_path, database)
    held = recorded(RunRef(database, run_id)).data
    assert held.params == {"rule": "linked"}
    assert held.metrics == {"f1/a-b": 0.5}


@pytest.fixture
def nowhere(monkeypatch, free_port):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://me:hush@127.0.0.1:{free_port()}"


def test_a_server_that_does_not_answer_is_told_without_its_password(nowhere, tmp_path):
    with pytest.raises(TrackingUnreachable, match=r"MLflow at http://127\.0\.0\.1:\d+ did not take") as caught:
        record_run("evaluate", {}, {}, tmp_path, nowhere)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert "hush" not in repr(RunRef(nowhere, "1")) + str(RunRef(nowhere, "1"))


def test_an_unreachable_server_does_not_hide_the_error_that_ended_the_run(nowhere, caplog):
    with pytest.raises(ValueError, match="loss is NaN"), TrackedRun(RunRef(nowhere, "1")):
        raise ValueError("loss is NaN")
    assert "did not take the end of run" in caplog.text


def test_a_database_of_an_unknown_kind_is_told_in_our_words():
    with pytest.raises(TrackingUnreachable, match="Check the address"):
        TrackedRun.start("run", tracking_uri="nosuchdatabase://host/db")


def test_a_child_stays_at_its_parents_address(database):
    with TrackedRun.start("parent", tracking_uri=database) as run, pytest.raises(BadOption, match="leave it out"):
        TrackedRun.start("child", parent=run.ref, tracking_uri="sqlite:///another.db")


def test_uncommitted_changes_of_a_checkout_are_seen(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    assert has_uncommitted_changes(tmp_path) is None
    git("init")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("")
    git("add", ".")
    git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-m", "first")
    (tmp_path / "elsewhere.py").write_text("")
    assert has_uncommitted_changes(tmp_path / "package") is False
    (tmp_path / "package" / "b.py").write_text("")
    assert has_uncommitted_changes(tmp_path / "package") is True
