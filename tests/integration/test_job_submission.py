"""`ray job submit` against a real cluster that runs beside the test."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

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

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path_factory):
    """A Ray head of its own, as `ray start --block` runs it; gives the environment that reaches it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    programs = Path(sys.executable).parent
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{programs}:{environment['PATH']}"  # where the cluster finds python
    ray = str(programs / "ray")
    ports = [str(word) for item in PORTS.items() for word in item]
    start = [ray, "start", "--head", "--block", "--num-cpus", "2", "--include-dashboard", "true", *ports]
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL)
    environment |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{PORTS['--dashboard-port']}"}
    nothing = [ray, "job", "submit", "--no-wait", "--", "true"]
    try:
        # The address answers before the agent that starts jobs is there.
        while subprocess.run(nothing, env=environment, capture_output=True, check=False).returncode:
            assert head.poll() is None
            time.sleep(1)
        yield ray, environment
    finally:
        head.terminate()
        head.wait()
        Path("/tmp/ray/ray_current_cluster").unlink(missing_ok=True)  # its note, which a terminated head leaves behind


def test_a_submitted_job_ends_with_the_same_files(cluster, ray_session, tmp_path):
    ray, environment = cluster
    draw_cohort(tmp_path / "slides", n_slides=2, seed=940_000, width_px=1600, height_px=1600)
    manifest = tmp_path / "slides/manifest.csv"
    submitted = tmp_path / "submitted"
    options = ["--manifest", str(manifest), "--output", str(submitted), "--report", "false"]
    job = ["python", "jobs/score_cohort.py", *options]
    command = [ray, "job", "submit", "--working-dir", ".", "--", *job]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
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
