"""What the job says before anything starts: exit status 2, and why."""

import pytest


@pytest.fixture(scope="module")
def score_cohort(job):
    return job("score_cohort")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "out"], "Give either --manifest or --slides"),
        (["--slides", "a.svs"], "Give --output"),
        (["--slides", "a.svs", "--manifest", "b.csv", "--output", "out"], "Give either --manifest or --slides"),
        (["--manifest", "none.csv", "--output", "out"], "BadManifest: There is no manifest at none.csv"),
        (["--slides", "none*.svs", "--output", "out"], "BadManifest: none*.svs matches no slide file"),
        (["--slides", "a.svs", "--output", "out", "--model", "nowhere"], "BadModel: "),
        (["--slides", "a.svs", "--output", "out", "--threshold", "2"], "threshold must lie between 0 and 1, not 2"),
        (["--slides", "a.svs", "--output", "out", "--num-actors", "0"], "num_actors must be at least 1"),
        (["--slides", "a.svs", "--output", "out", "--num-actors", "many"], "num-actors"),
        (["--slides", "a.svs", "--output", "out", "--log-level", "loud"], "log-level"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_bad_arguments_end_with_status_2_and_leave_nothing(
    score_cohort, arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert score_cohort(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_gives_options_with_dashes_units_and_defaults(score_cohort, capsys):
    assert score_cohort(["--help"]) == 0
    page = capsys.readouterr().out
    for words in ("--cpus-per-actor", "µm", "mm²", "default: 2.37", "Exit status: 0"):
        assert words in page
    assert "_per_actor" not in page


def test_options_come_from_a_file_and_the_command_line_overrides_them(score_cohort, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("slides: [a.svs]\nthreshold: 7\noutput: out\n")
    assert score_cohort(["--config", str(tmp_path / "run.yaml")]) == 2
    assert "not 7" in capsys.readouterr().err
    assert score_cohort(["--config", str(tmp_path / "run.yaml"), "--threshold", "9"]) == 2
    assert "not 9" in capsys.readouterr().err


def test_failed_slides_are_named_on_the_terminal_with_status_3(score_cohort, ray_session, tmp_path, capsys):
    gone = str(tmp_path / "gone.svs")
    output = str(tmp_path / "out")
    assert score_cohort(["--slides", gone, "--output", output]) == 3
    told = capsys.readouterr()
    assert f"failed: 'gone': SlideNotFound: {gone}: no such file" in told.err
    assert "0 of 1 slides scored whole" in told.out
    assert score_cohort(["--slides", gone, "--output", output, "--threshold", "0.9"]) == 2
    assert "method.threshold: was None, is 0.9" in capsys.readouterr().err
