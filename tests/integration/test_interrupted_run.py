"""A run whose driver is killed goes on with the same command and ends as if nothing had happened."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mitoray.phantom import draw_cohort

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    draw_cohort(folder, n_slides=2, seed=920_000, width_px=3000, height_px=3000)
    return folder / "manifest.csv"


def command(manifest, output):
    options = ["--manifest", manifest, "--output", output, "--region-um", "256", "--num-actors", "1"]
    options += ["--log-level", "debug"]
    return [sys.executable, str(ROOT / "jobs/score_cohort.py"), *map(str, options)]


def results(output):
    """Everything a user takes from a run, free of the times in run.json."""
    files = [output / "slides.csv", *sorted((output / "detections").iterdir()), *sorted((output / "geojson").iterdir())]
    tables = {path.name: pq.read_table(path) if path.suffix == ".parquet" else path.read_bytes() for path in files}
    return tables | {"slides": pq.read_table(output / "slides")}


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert subprocess.run(command(manifest, output), check=False).returncode == 0
    return results(output)


def n_files(folder):
    return len(list(folder.glob("*.parquet"))) if folder.exists() else 0


@pytest.mark.parametrize(
    ("moment", "reached"),
    [
        ("while planning", lambda work: n_files(work / "plan") >= 1),
        ("early in scoring", lambda work: n_files(work / "scores") >= 1),
        ("late in scoring", lambda work: n_files(work / "scores") >= 6),
    ],
)
def test_a_killed_run_ends_like_an_undisturbed_one(manifest, undisturbed, tmp_path, moment, reached):
    output = tmp_path / "out"
    driver = subprocess.Popen(command(manifest, output))
    while not reached(output / "work"):
        assert driver.poll() is None, f"the run ended before it could be killed {moment}"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    again = subprocess.Popen(command(manifest, output))
    assert again.wait() == 0
    assert results(output) == undisturbed

    first, second = regions_scored_by(driver), regions_scored_by(again)
    regions = set(pq.read_table(output / "work/regions")["region_id"].to_pylist())
    print(f"killed {moment}: {len(regions)} regions, {len(first)} + {len(second)} scored, {len(first & second)} twice")
    assert first | second == regions
    # Lost to the kill are the regions of blocks that were not yet written.
    assert len(first & second) <= 6


def regions_scored_by(driver):
    """What the workers of that process' own Ray told of in their logs, which outlive a killed driver."""
    (logs,) = Path("/tmp/ray").glob(f"session_*_{driver.pid}/logs")
    told = "".join(path.read_text() for path in logs.glob("worker-*.err"))
    return set(re.findall(r"region (\S+) scored", told))
