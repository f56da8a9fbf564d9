"""A plug-in through the job, in processes of its own: what Ray's workers import is what the path holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_plugin import SOUND

from mitoray.phantom import draw_cohort

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_cohort_is_scored_with_a_plug_in(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab_detectors.py").write_text(SOUND)
    manifest, _ = draw_cohort(tmp_path / "slides", n_slides=1, seed=3, width_px=1200, height_px=900)
    slide = manifest.to_pylist()[0]
    words = ["--slides", slide["uri"], "--model", "python:lab_detectors:Brightest?threshold=0.6", "--output"]

    def score(output, **env):
        command = [sys.executable, str(ROOT / "jobs/score_cohort.py"), *words, str(tmp_path / output)]
        return subprocess.run(
            command, env={**os.environ, **env}, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    lost = score("lost")
    assert lost.returncode == 2
    assert "no module lab_detectors here" in lost.stderr
    assert not (tmp_path / "lost").exists()

    path = os.pathsep.join([str(tmp_path / "lab"), os.environ.get("PYTHONPATH", "")])
    done = score("out", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"] == {"name": "lab_detectors.Brightest", "mpp": 0.25}
    scores = pq.read_table(tmp_path / "out" / "detections")["score"].to_pylist()
    assert len(scores) > 10
    assert min(scores) >= 0.6
