import json
import subprocess
import sys
from pathlib import Path

import pytest

from mitoray.benchmark.efficiency import efficiency
from mitoray.benchmark.reading import reading
from mitoray.benchmark.remote import remote
from mitoray.benchmark.rounds import in_turn
from mitoray.benchmark.rows import Row, as_text, beside
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import read_manifest

ROOT = Path(__file__).parents[2]
CODECS = {"libjpeg-turbo alone": "phantom-breast-a", "OpenJPEG alone": "phantom-sarcoma-a"}


@pytest.fixture(scope="module", params=CODECS)
def slide(request, tmp_path_factory):
    """The bare codec's name, and a slide of it."""
    folder = tmp_path_factory.mktemp("slides")
    manifest, _ = draw_cohort(
        folder, n_slides=1, seed=8, width_px=1300, height_px=1100, domains=[CODECS[request.param]]
    )
    return request.param, manifest["uri"][0].as_py()


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory):
    """A slide for tests in which its codec does not matter."""
    folder = tmp_path_factory.mktemp("jpeg")
    manifest, _ = draw_cohort(folder, n_slides=1, seed=8, width_px=800, height_px=700, domains=["phantom-breast-a"])
    return manifest["uri"][0].as_py()


def job(*words, folder):
    command = [sys.executable, str(ROOT / "jobs/benchmark.py"), "--folder", str(folder / "work"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_works_run_in_turn_and_the_first_round_is_not_counted():
    order = []
    seconds = in_turn({name: lambda name=name: order.append(name) for name in ("one", "other")}, 3)
    assert order == ["one", "other"] * 4
    assert set(seconds) == {"one", "other"}


def test_a_table_shows_ratios_to_what_they_are_beside():
    rows = beside([Row("p", "theirs", 50.0, "Mpx/s"), Row("p", "ours", 125.0, "Mpx/s", note="seen")], "theirs")
    assert [row.ratio for row in rows] == [1.0, 2.5]
    theirs, ours = as_text(rows).splitlines()
    assert theirs.split() == ["p", "theirs", "50", "Mpx/s", "1"]
    assert ours.split() == ["p", "ours", "125", "Mpx/s", "2.50", "×", "theirs", "seen"]


def test_every_reader_reads_the_slide(slide):
    codec, path = slide
    rows = {row.what: row for row in reading(path, 1)}
    assert set(rows) == {
        codec, f"{codec}, px kept", "mitoray, regions", "mitoray, windows", "tiffslide, windows",
        "OpenSlide, windows", "OpenSlide, regions",
        "decoded whole, at half", "decoded at half",
    }  # fmt: skip
    assert all(row.value > 0 and row.ratio > 0 for row in rows.values())
    assert rows["mitoray, regions"].beside == codec
    assert rows["decoded at half"].beside == "decoded whole, at half"


def test_a_region_takes_few_requests(slide):
    rows = {row.what: row for row in remote(slide[1], 1)}
    requests = rows["requests for 1300 × 1100 px"]
    assert 1 <= requests.value <= 10
    assert requests.note.endswith("tiles")
    assert rows["mitoray"].beside == "one request per tile"


def test_a_part_that_fails_is_named_and_the_others_go_on(jpeg, tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(Path(jpeg).read_bytes()[:5000])
    done = job("--parts", "reading", "remote", "--slides", str(broken), "--rounds", "1", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "failed: reading: TruncatedSlide" in done.stderr
    assert set(json.loads((tmp_path / "benchmark.json").read_text())["failed"]) == {"reading", "remote"}


def test_what_is_measured_is_printed_and_kept(jpeg, tmp_path):
    done = job("--parts", "remote", "--slides", jpeg, "--rounds", "1", "--output", "out.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert Path(jpeg).name in record["material"]
    assert record["version"]["mitoray"]
    for row in record["rows"]:
        assert row["what"] in done.stdout


def test_bad_options_start_nothing(tmp_path):
    missing = job("--slides", "nowhere.svs", folder=tmp_path)
    assert missing.returncode == 2
    assert "nowhere.svs is no file" in missing.stderr
    assert not (tmp_path / "benchmark.json").exists()


@pytest.mark.slow
def test_the_pipeline_is_measured_beside_its_parts(ray_session, tmp_path):
    draw_cohort(tmp_path / "slides", n_slides=2, seed=9, width_px=1600, height_px=1600, domains=["phantom-breast-a"])
    manifest = read_manifest(str(tmp_path / "slides" / "manifest.csv"))
    rows = {row.what: row for row in efficiency(manifest, "mitoray-s", tmp_path, "JPEG", 2.0)}
    assert rows["score_cohort"].note.startswith("0.3 mm², 2 regions")
    assert rows["bare decoding"].value > 0
    assert rows["bare network"].value > 0
    assert rows["of the roofline"].ratio == pytest.approx(
        (rows["bare decoding"].value + rows["bare network"].value) / rows["score_cohort"].value
    )
    assert 0 < rows["network busy"].value <= 1
    assert rows["the same"].value == pytest.approx(rows["a slide of 165 mm²"].value / 1800)
