"""What happens to a run where a process hangs, dies or is told to stop: the job in its own process, on a real Ray."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from mitoray.commandline import DONE, FAILED, PARTLY_FAILED, STOPPED
from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Resources

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

DETECTOR = """
import json, signal, threading, time
from pathlib import Path

import numpy as np
from mitoray.models import Points

class Cursed:
    '''Finds the middle of each image. Over the first of a region, which it remembers by a note, it does its deed.'''
    mpp, halo_um = 0.5, 16.0

    def __init__(self, device):
        self.device = device
        told = json.loads(Path(__file__).with_name("deed.json").read_text())
        self.deed, self.note = told["deed"], told["note"]

    def detect(self, images, threshold):
        if self.deed != "nothing" and images.shape[-1] > 200:
            digest = str(int(images.sum()))
            try:
                with open(self.note, "x") as file:
                    file.write(digest)
            except FileExistsError:
                pass
            with open(self.note) as file:
                cursed = file.read() == digest
            if cursed and self.deed == "die":
                signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)  # as a library's own fault: in this thread
            if cursed and self.deed == "hang":
                time.sleep(10_000)
        if self.deed == "nothing":
            time.sleep(0.5)
        middle = np.array([[images.shape[3] / 2, images.shape[2] / 2]], np.float32)
        return [Points(middle, np.ones(1, np.float32)) for _ in images]
"""


@pytest.fixture(scope="module")
def manifest(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    draw_cohort(folder, n_slides=2, seed=950_000, width_px=1200, height_px=1200)
    (folder / "lab_cursed.py").write_text(DETECTOR)
    return folder / "manifest.csv"


def start(manifest, output, *more, deed="nothing", log=None):
    words = ["--manifest", manifest, "--output", output, "--model", "python:lab_cursed:Cursed", "--region-um", "128"]
    words += ["--num-actors", "1"]
    command = [sys.executable, str(ROOT / "jobs/score_cohort.py"), *map(str, words), "--report", "false", *more]
    path = os.pathsep.join([str(manifest.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    note = {"deed": deed, "note": str(output.parent / "note")}
    (manifest.parent / "deed.json").write_text(json.dumps(note))
    # Workers of a Ray that is there already find the plug-in in the driver's folder, which Ray hands on to them.
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=manifest.parent, env=environment, stdout=pipe, stderr=log or pipe, text=True)


def ended(job):
    """The exit status. What a job says is read meanwhile, lest it wait for its reader."""
    _, errors = job.communicate(timeout=300)
    sys.stderr.write(errors or "")
    return job.returncode


def slides_of(output):
    return {row["slide_id"]: row for row in pq.read_table(output / "slides").to_pylist()}


@pytest.mark.nightly
@pytest.mark.parametrize(("deed", "name"), [("hang", "RegionTimedOut"), ("die", "RegionEndsProcess")])
def test_a_region_that_stops_or_ends_its_process_fails_alone_and_by_name(manifest, tmp_path, deed, name):
    output = tmp_path / "out"
    job = start(manifest, output, "--region-timeout-s", "5", deed=deed)
    told, errors = job.communicate(timeout=500)
    assert job.returncode == PARTLY_FAILED, errors
    slides = slides_of(output)
    assert sorted(row["status"] for row in slides.values()) == ["partial", "scored"]
    (partial,) = [row for row in slides.values() if row["status"] == "partial"]
    assert partial["n_failed_regions"] == 1
    assert name in partial["error"]
    assert name in errors
    assert "1 of 2 slides scored whole" in told


def test_told_to_stop_a_run_finishes_what_it_has_in_hand_and_goes_on_later(manifest, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "out"
    job = start(manifest, whole)
    _, errors = job.communicate(timeout=500)
    assert job.returncode == DONE, errors
    job = start(manifest, output)
    while not list((output / "work/attempts").glob("*.json")) or not done(output):
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, errors = job.communicate(timeout=500)
    print(f"stopped within {time.monotonic() - asked:.1f} s with {done(output)} regions done")
    assert job.returncode == STOPPED, errors
    assert "The same command goes on from here" in errors
    assert json.loads((output / "run.json").read_text())["status"] == "stopped"
    first = done(output)
    written = [row for path in (output / "work/scores").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(written) == first  # nothing that was scored is lost
    job = start(manifest, output)
    assert ended(job) == DONE
    regions = pq.read_table(output / "work/regions")["region_id"].to_pylist()
    attempts = [json.loads(path.read_text())["n_regions"] for path in sorted((output / "work/attempts").glob("*.json"))]
    assert attempts[0] == first < len(regions)
    assert sum(attempts) == len(regions)  # and nothing is scored twice
    assert pq.read_table(output / "slides") == pq.read_table(whole / "slides")
    assert (output / "slides.csv").read_bytes() == (whole / "slides.csv").read_bytes()


def fill(path):
    with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(1 << 12))


def done(output):
    """Regions that the first attempt has told of."""
    try:
        return json.loads((output / "work/attempts/0001.json").read_text())["n_regions"]
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root")
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(manifest, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        job = start(manifest, disk / "out")
        while not list((disk / "out/work/plan").glob("*.parquet")):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.05)
        fill(disk / "ballast")
        _, errors = job.communicate(timeout=500)
        assert job.returncode == FAILED, errors
        assert "OutputFull: No space is left" in errors
        assert "goes on from here" in errors
        assert "Traceback" not in errors.splitlines()[-1]
        (disk / "ballast").unlink()
        assert ended(start(manifest, disk / "out")) == DONE
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.nightly
def test_logs_are_json_one_object_a_line_with_slide_ids(manifest, tmp_path):
    log = tmp_path / "log.jsonl"
    with log.open("w") as file:
        job = start(manifest, tmp_path / "out", "--log-format", "json", "--log-level", "info", log=file)
        told, _ = job.communicate(timeout=500)
    assert job.returncode == DONE
    records = [json.loads(line) for line in log.read_text().splitlines()]
    of_ray = {"asctime", "levelname", "message"}
    assert all({"time", "level", "logger", "message"} <= record.keys() or of_ray <= record.keys() for record in records)
    counted = {record["slide_id"] for record in records if record.get("stage") == "reduce"}
    assert counted == set(slides_of(tmp_path / "out"))
    assert "2 of 2 slides scored whole" in told


def test_a_run_goes_on_where_the_cluster_has_fewer_cpus_than_it_was_placed_for(manifest, tmp_path):
    @ray.remote(num_cpus=1)
    class Other:
        def is_there(self):
            return True

    left = 2 - 1 - Resources(num_actors=1).placed([(2.0, 0.0)]).num_cpus
    assert 0 < left < 1  # what Ray Data gives a repartitioning of its own accord
    other = Other.remote()
    assert ray.get(other.is_there.remote())
    job = start(manifest, tmp_path / "out")
    try:
        assert ended(job) == DONE
    finally:
        job.kill()
        ray.kill(other)
    assert {row["status"] for row in slides_of(tmp_path / "out").values()} == {"scored"}
