import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from record_children import CHILDREN, STEPS

from mitoray.tracking import TrackedRun

WORKERS = 4


@pytest.mark.slow
def test_processes_that_meet_at_a_fresh_database_all_record_below_one_parent(tmp_path):
    address = f"sqlite:///{tmp_path}/new/mlruns.db"
    script = str(Path(__file__).with_name("record_children.py"))
    workers = [
        subprocess.Popen(
            [sys.executable, script, address, f"worker-{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(WORKERS)
    ]

    def answers(line):
        for worker in workers:
            worker.stdin.write(f"{line}\n")
            worker.stdin.flush()
        return [worker.stdout.readline().strip() for worker in workers]

    assert [worker.stdout.readline().strip() for worker in workers] == ["ready"] * WORKERS
    experiments = set(answers("prepare at once"))
    assert len(experiments) == 1
    with TrackedRun.start("parent", tracking_uri=address) as parent:
        assert answers(parent.ref.run_id) == ["done"] * WORKERS
    assert [worker.wait(timeout=60) for worker in workers] == [0] * WORKERS

    client = mlflow.MlflowClient(address)
    below = client.search_runs(list(experiments), f"tags.`mlflow.parentRunId` = '{parent.ref.run_id}'")
    assert {run.info.run_name for run in below} == {f"worker-{n}-{c}" for n in range(WORKERS) for c in range(CHILDREN)}
    for run in below:
        assert run.info.status == "FINISHED"
        assert run.data.params["worker"] == run.info.run_name.rpartition("-")[0]
        losses = client.get_metric_history(run.info.run_id, "loss")
        assert [(entry.step, entry.value) for entry in losses] == [(step, 1 / (step + 1)) for step in range(STEPS)]
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["worker.txt"]
