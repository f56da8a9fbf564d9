"""`ray job submit` against a real cluster that runs beside the test: it asks for a token, and its head has no CPUs."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests

from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort
from mitoray.scoring.manifest import read_manifest
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run

ROOT = Path(__file__).parents[2]
PORTS = {
    "--port": 26379,
    "--dashboard-port": 28265,
    "--dashboard-agent-listen-port": 28365,
    "--ray-client-server-port": 20001,
    "--metrics-export-port": 28080,
}
"""Away from Ray's own, which the tests' other Ray may hold."""
PROGRAMS = Path(sys.executable).parent
RAY = str(PROGRAMS / "ray")
TIMEOUT_S = 400

pytestmark = pytest.mark.slow


class Running:
    """A cluster, as those who submit to it see it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def ray(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """A `ray` command in the project's folder, with another environment where one is given."""
        environment = {**self.environment, **changed}
        return subprocess.run(
            [RAY, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )

    def submit(self, *command: str, options: tuple[str, ...] = ("--working-dir", "."), **changed: str):
        """`ray job submit` of a command."""
        return self.ray("job", "submit", *options, "--", *command, **changed)

    def job(self, submission_id: str) -> tuple[str, int | None]:
        """Status and exit status of a job, by the Jobs API."""
        address = f"{self.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/{submission_id}"
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        told = requests.get(address, headers=token, timeout=30).json()
        return told["status"], told["driver_exit_code"]


def environment(mode: str, token: str = "") -> dict[str, str]:
    """Of Ray's processes and of those who submit."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    kept |= {"RAY_AUTH_MODE": mode, "RAY_USAGE_STATS_ENABLED": "0"}
    kept |= {"RAY_AUTH_TOKEN": token} if token else {}
    kept["PATH"] = f"{PROGRAMS}:{kept['PATH']}"  # where the cluster finds python
    return kept | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{PORTS['--dashboard-port']}"}


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, as `ray start --block` runs it, and a worker that joins it."""
    known = environment("token", secrets.token_hex(16))
    ports = [str(word) for item in PORTS.items() for word in item]
    start = [RAY, "start", "--head", "--block", "--num-cpus", "0", "--include-dashboard", "true", *ports]
    head = subprocess.Popen(start, env=known, stdout=subprocess.DEVNULL)
    running, nodes = Running(known), [head]
    try:
        # The address answers before the agent that starts jobs is there.
        while running.submit("true", options=("--no-wait",)).returncode:
            assert head.poll() is None
            time.sleep(1)
        join = [RAY, "start", "--block", "--address", f"127.0.0.1:{PORTS['--port']}", "--num-cpus", "2"]
        nodes.append(subprocess.Popen(join, env=known, stdout=subprocess.DEVNULL))
        yield running
    finally:
        for node in reversed(nodes):
            node.terminate()
        for node in nodes:
            node.wait()
        Path("/tmp/ray/ray_current_cluster").unlink(missing_ok=True)  # its note, which a terminated head leaves behind


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submitted")
    draw_cohort(folder, n_slides=2, seed=940_000, width_px=1600, height_px=1600)
    return folder / "manifest.csv"


def scoring(manifest: Path, output: Path, *more: str) -> list[str]:
    words = ["--manifest", str(manifest), "--output", str(output), "--report", "false", "--num-actors", "1"]
    return ["jobs/score_cohort.py", *words, *more]


def test_a_submitted_job_ends_with_the_same_files(cluster, ray_session, manifest, tmp_path):
    submitted = tmp_path / "submitted"
    done = cluster.submit("python", *scoring(manifest, submitted))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 slides scored whole" in done.stdout

    direct = tmp_path / "direct"
    slides = score_cohort(Run.claim(Cohort(read_manifest(str(manifest)), "mitoray-s", str(direct))), progress=False)
    assert pq.read_table(submitted / "slides") == slides
    names = sorted(path.relative_to(direct) for path in direct.rglob("*.*") if "work" not in path.parts)
    assert sorted(path.relative_to(submitted) for path in submitted.rglob("*.*") if "work" not in path.parts) == names
    for name in names:
        if name.suffix in {".parquet", ".geojson", ".csv"}:
            assert (submitted / name).read_bytes() == (direct / name).read_bytes()


def test_without_the_token_or_with_another_nothing_is_done(cluster):
    for wrong in ({"RAY_AUTH_TOKEN": "0" * 32}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}):
        refused = cluster.submit("true", options=("--submission-id", "never"), **wrong)
        assert refused.returncode == 1
        assert re.search("Unauthorized|token authentication is enabled", refused.stdout + refused.stderr)
    assert "never" not in cluster.ray("job", "list").stdout


def test_uploads_hold_the_code_and_nothing_else(cluster):
    littered = ROOT / "mitoray-demo"
    held = littered.exists()
    littered.mkdir(exist_ok=True)
    large = littered / "large.svs"
    large.write_bytes(os.urandom(64 << 20))
    try:
        done = cluster.submit("ls", "-A")
    finally:
        large.unlink()
        if not held:
            littered.rmdir()
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert {"jobs", "mitoray", "pyproject.toml"} <= set(told.split())
    assert not {"tests", "infra", "mitoray-demo", ".git"} & set(done.stdout.split())
    for size in re.findall(r"\(([\d.]+)MiB\)", told):  # none is uploaded where the cluster has it already
        assert float(size) < 8


def test_the_exit_status_of_a_job_arrives(cluster, manifest, tmp_path):
    partly = tmp_path / "partly.csv"
    partly.write_text(f"{manifest.read_text()}gone,{tmp_path}/gone.svs,,,\n")
    done = cluster.submit(
        "python", *scoring(partly, tmp_path / "out"), options=("--working-dir", ".", "--submission-id", "partly")
    )
    assert done.returncode == 1
    assert "failed: 'gone': SlideNotFound" in done.stdout + done.stderr
    assert cluster.job("partly") == ("FAILED", 3)


@pytest.mark.nightly
def test_a_stopped_job_goes_on_when_it_is_submitted_again(cluster, tmp_path):
    draw_cohort(tmp_path / "slides", n_slides=4, seed=941_000, width_px=2000, height_px=2000)
    manifest, output = tmp_path / "slides/manifest.csv", tmp_path / "out"
    command = ["python", *scoring(manifest, output, "--region-um", "64")]
    assert (
        cluster.submit(*command, options=("--no-wait", "--working-dir", ".", "--submission-id", "first")).returncode
        == 0
    )
    until = time.monotonic() + TIMEOUT_S
    while not list(output.glob("work/scores/*.parquet")):
        assert time.monotonic() < until, cluster.ray("job", "logs", "first").stdout
        time.sleep(0.2)
    stopped = cluster.ray("job", "stop", "first")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert cluster.job("first")[0] == "STOPPED"
    before = {path.name for path in output.glob("work/scores/*.parquet")}
    assert json.loads((output / "run.json").read_text())["status"] in ("running", "stopped")
    again = cluster.submit(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    record = json.loads((output / "run.json").read_text())
    assert (record["status"], record["attempts"]) == ("complete", 2)
    scores = [
        row for path in output.glob("work/scores/*.parquet") for row in pq.read_table(path)["region_id"].to_pylist()
    ]
    assert before <= {path.name for path in output.glob("work/scores/*.parquet")}
    assert len(scores) == len(set(scores)) == record["counts"]["n_regions"]


@pytest.mark.nightly
def test_uv_runs_a_job_in_the_environment_that_the_uploaded_project_names(cluster, manifest, tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    done = cluster.submit("uv", "run", "--no-dev", *scoring(manifest, tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 slides scored whole" in done.stdout


@pytest.mark.nightly
def test_a_cluster_without_tokens_takes_jobs_from_all(tmp_path):
    known = environment("disabled")
    ports = [str(word) for name, port in PORTS.items() for word in (name, port + 1)]
    known["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{PORTS['--dashboard-port'] + 1}"
    start = [RAY, "start", "--head", "--block", "--num-cpus", "1", "--include-dashboard", "true", *ports]
    head = subprocess.Popen(start, env=known, stdout=subprocess.DEVNULL)
    try:
        open_to_all = Running(known)
        while (done := open_to_all.submit("echo", "taken", options=())).returncode:
            assert head.poll() is None
            time.sleep(1)
        assert "taken" in done.stdout
    finally:
        head.terminate()
        head.wait()
        Path("/tmp/ray/ray_current_cluster").unlink(missing_ok=True)
