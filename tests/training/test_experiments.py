"""What experiments keep, and how often they are recorded. That they train is shown by the jobs' tests."""

import json
from types import SimpleNamespace

import pytest

from mitoray.errors import TrackingUnreachable
from mitoray.training.experiments import RESULT_FILE, run_experiments

ROWS = [{"test_domain": "a", "f1_pooled": 0.5}]


class Recorder:
    """Keeps what it is told, or is away."""

    def __init__(self, key, reachable=True):
        self.key, self.reachable, self.told = key, reachable, []

    def __call__(self, name, parameters, history, rows):
        if not self.reachable:
            raise TrackingUnreachable("no server")
        self.told.append((name, parameters, history, rows))


@pytest.fixture
def finished(tmp_path):
    """Two experiments that an earlier attempt finished, in their folder."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        document = {"parameters": {"fold": 0}, "history": [{"epoch": 1}], "rows": ROWS}
        (tmp_path / name / RESULT_FILE).write_text(json.dumps(document))
    return [SimpleNamespace(name="first"), SimpleNamespace(name="second")]


def test_what_an_earlier_attempt_finished_is_recorded_once_and_counted(finished, tmp_path):
    recorder, seen = Recorder("run-1"), []
    for _ in range(2):
        assert run_experiments(finished, tmp_path, None, record=recorder, done=seen.append) == {}
    assert recorder.told == [(name, {"fold": 0}, [{"epoch": 1}], ROWS) for name in ("first", "second")]
    assert seen == ["first", "second"] * 2


def test_another_parent_is_told_again(finished, tmp_path):
    run_experiments(finished, tmp_path, None, record=Recorder("run-1"))
    recorder = Recorder("run-2")
    run_experiments(finished, tmp_path, None, record=recorder)
    assert len(recorder.told) == 2


def test_results_that_could_not_be_recorded_are_recorded_by_the_next_attempt(finished, tmp_path):
    with pytest.raises(TrackingUnreachable):
        run_experiments(finished, tmp_path, None, record=Recorder("run-1", reachable=False))
    recorder = Recorder("run-1")
    run_experiments(finished, tmp_path, None, record=recorder)
    assert len(recorder.told) == 2
