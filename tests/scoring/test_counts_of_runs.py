"""What a calibrated run leaves of intervals, atypical figures and cases, and runs begun before there were any."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from stage_models import classifier_bundle, detector_bundle, saved

from mitoray.counting.cases import CASES, count_cases
from mitoray.counting.hotspot import densest_circle
from mitoray.counting.intervals import calibrated_interval
from mitoray.models import Combination
from mitoray.models.combination import Temperature
from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort, Files, Method, Resources
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.schema import SLIDES

METHOD = Method(region_um=128.0, detector_threshold=0.8, candidate_threshold=0.05, hotspot_mm2=0.01)
FILES = Files(geojson_shape="circles", geojson_figures=20)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A slide of a case that has another slide, which is not there."""
    folder = tmp_path_factory.mktemp("cohort")
    size = {"width_px": 1000, "height_px": 760, "domains": ["phantom-lymphoma-a"]}
    manifest, _ = draw_cohort(folder, n_slides=1, seed=430_000, **size)
    Image.new("L", (100, 76), 255).save(folder / "everywhere.png")
    there = ManifestRow(**manifest.to_pylist()[0] | {"case_id": "dog"}, tissue_uri=str(folder / "everywhere.png"))
    rows = [there, ManifestRow("gone", str(folder / "gone.svs"), case_id="dog")]
    combination = Combination(calibration=Temperature(temperature=1.5, bias=-0.3))
    classifier = classifier_bundle(1, combination=combination)
    models = (saved(detector_bundle(), folder / "detector"), saved(classifier, folder / "classifier"))
    return Cohort(rows, models[0], str(folder / "out"), METHOD, classifier=models[1], files=FILES)


@pytest.fixture(scope="module")
def run(ray_session, cohort):
    run = Run.claim(cohort)
    return run, score_cohort(run, Resources(num_actors=1), progress=False)


def test_a_calibrated_run_tells_how_sure_its_count_is_and_which_figures_are_atypical(run):
    assert run[0].calibrated
    row = run[1].to_pylist()[0]
    detections = run[0].folder.read_table(row["detections_file"])
    scores, atypical = (detections[name].to_numpy() for name in ("score", "atypical_probability"))
    points_um = np.column_stack([detections["x_px"], detections["y_px"]]) * row["mpp"]
    counts = scores >= row["threshold"]
    assert 0 < counts.sum() < len(counts)
    hotspot = densest_circle(points_um[counts], METHOD.hotspot_mm2)
    expected = calibrated_interval(scores[hotspot.contains(points_um)])
    assert (row["count_low"], row["count_high"]) == (expected.low, expected.high)
    assert (row["n_atypical"], row["n_normal"]) == ((atypical[counts] > 0.9).sum(), (atypical[counts] < 0.1).sum())
    assert row["hotspot_n_atypical"] <= row["n_atypical"]


def test_cases_name_the_slide_that_failed_in_both_files(run):
    cases = run[0].folder.read_table("cases/cases.parquet")
    assert cases.schema == CASES
    assert cases.equals(count_cases(run[1]))
    (case,) = cases.to_pylist()
    assert (case["case_id"], case["status"], case["failed_slides"]) == ("dog", "partial", ["gone"])
    assert case["mitotic_count"] == run[1]["mitotic_count"][0].as_py()
    (read,) = csv.DictReader(run[0].folder.read_bytes("cases.csv").decode().splitlines())
    assert list(read) == CASES.names
    assert json.loads(read["failed_slides"]) == ["gone"]


def test_figures_come_in_the_form_asked_for(run):
    row = run[1].to_pylist()[0]
    n = run[0].folder.read_table(row["detections_file"]).num_rows
    parts = [row["geojson_file"], *run[0].folder.names(row["geojson_file"].replace(".geojson", ".parts"), ".geojson")]
    assert len(parts) == -(-n // FILES.geojson_figures) > 1
    features = [f for name in parts for f in json.loads(run[0].folder.read_bytes(name))["features"]]
    figures = [f for f in features if f["properties"]["objectType"] == "detection"]
    assert (len(figures), {f["geometry"]["type"] for f in figures}) == (n, {"Polygon"})


def test_a_run_that_an_earlier_version_left_is_taken_up_again(run, cohort):
    """Runs last in this module: it changes the run. Complete or not, slides have every present column."""
    folder = run[0].folder
    record = folder.read_json("run.json")
    del record["identity"]["method"]["hotspot_tissue_share"]
    older = run[1].drop(["count_low", "count_high", "sampling_low", "n_atypical", "hotspot_tissue_share", "note"])
    folder.write_table("slides/slides.parquet", older)
    folder.write_json("run.json", record | {"status": "complete"})
    complete = score_cohort(Run.claim(cohort), Resources(num_actors=1), progress=False)
    assert complete.schema == SLIDES
    assert complete["count_low"].null_count == len(complete)
    assert complete["mitotic_count"].equals(pa.chunked_array(run[1]["mitotic_count"].chunks))
    folder.write_json("run.json", record | {"status": "running"})
    again = score_cohort(Run.claim(cohort), Resources(num_actors=1), progress=False)
    assert again.equals(run[1])
