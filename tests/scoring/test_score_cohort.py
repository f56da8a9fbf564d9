"""One cohort with sound and with bad slides, scored once on a real Ray; what must hold of its results."""

import csv
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_slides import corrupt_tiles, make_bad_slides, write_glass
from PIL import Image

from mitoray.counting.hotspot import densest_circle
from mitoray.errors import OutputBelongsToAnotherRun
from mitoray.evaluation.matching import f1_score, match
from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow, checked
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.schema import DETECTIONS, SLIDES

DOMAINS = ["phantom-lymphoma-a", "phantom-mast-cell-a"]
"""Those with most figures."""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    manifest, labels = draw_cohort(folder, n_slides=2, seed=910_000, width_px=2400, height_px=1800, domains=DOMAINS)
    return [ManifestRow(**row) for row in manifest.to_pylist()], labels


class Forbidding(BaseHTTPRequestHandler):
    """Answers that nothing may be read."""

    def do_GET(self):
        self.send_error(403)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def forbidding_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forbidding)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def cohort(phantoms, forbidding_server, tmp_path_factory):
    """Two sound phantoms, one with corrupt tiles, glass, and slides that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("cohort")
    sound = phantoms[0]
    first = sound[0]
    expected = make_bad_slides(folder, Path(first.uri))
    corrupt_tiles(folder / "corrupt.svs", [0, 1])
    write_glass(folder / "glass.svs")
    rows = [
        *sound,
        *(ManifestRow(name, str(folder / f"{name}.{'tif' if name == 'unknown' else 'svs'}")) for name in expected),
        ManifestRow("corrupt", str(folder / "corrupt.svs"), tissue_uri=str(folder / "everywhere.png")),
        ManifestRow("glass", str(folder / "glass.svs")),
        ManifestRow("twice", first.uri),
        ManifestRow("twice", first.uri),
        ManifestRow("../escape", first.uri),
        ManifestRow("override", str(folder / "unknown.tif"), mpp=0.25),
        ManifestRow("odd", str(folder / "unknown.tif"), mpp=25.0),
        ManifestRow("forbidden", f"{forbidding_server}/slide.svs"),
        ManifestRow("bad mask", first.uri, tissue_uri=str(folder / "photo.svs")),
    ]
    Image.new("L", (600, 450), 255).save(folder / "everywhere.png")
    expected |= {
        "twice": "DuplicateSlideId",
        "../escape": "InvalidSlideId",
        "odd": "ImplausibleResolution",
        "forbidden": "SlideForbidden",
        "bad mask": "BadTissueMask",
    }
    return checked(rows), expected


@pytest.fixture(scope="module")
def run(ray_session, cohort, tmp_path_factory):
    """The run, after it went to its end, with its SLIDES table. Small regions, so that slides have several."""
    output = tmp_path_factory.mktemp("run") / "out"
    run = Run.claim(Cohort(cohort[0], "mitoray-s", str(output), Method(region_um=256)))
    return run, score_cohort(run, Resources(num_actors=2), progress=False)


@pytest.fixture(scope="module")
def rows(run):
    return {row["slide_id"]: row for row in run[1].to_pylist()}


def test_every_manifest_row_has_its_row_in_order(cohort, run):
    assert run[1].schema == SLIDES
    assert run[1]["slide_id"].to_pylist() == [row.slide_id for row in cohort[0]]


def test_bad_slides_fail_by_name_and_alone(cohort, rows):
    for slide_id, error in cohort[1].items():
        assert rows[slide_id]["status"] == "failed"
        assert rows[slide_id]["error"].startswith(f"{error}: "), rows[slide_id]["error"]
        assert rows[slide_id]["mitotic_count"] is None
    for slide_id in set(rows) - set(cohort[1]) - {"corrupt"}:
        assert rows[slide_id]["status"] == "scored", rows[slide_id]["error"]


def test_glass_counts_zero_and_is_no_error(rows):
    glass = rows["glass"]
    assert (glass["status"], glass["mitotic_count"], glass["n_detections"]) == ("scored", 0, 0)
    assert glass["tissue_mm2"] == 0
    assert glass["hotspot_x_px"] is None


def test_a_corrupt_tile_costs_its_region_only_and_its_area_is_told(rows, phantoms):
    row, sound = rows["corrupt"], rows[phantoms[0][0].slide_id]
    assert row["status"] == "partial"
    assert row["n_failed_regions"] < row["n_regions"]
    assert "CorruptTile" in row["error"]
    # A 256 µm region of the 600 × 450 µm slide, all of it tissue by the given mask.
    assert row["unscored_mm2"] == pytest.approx(0.256**2 * row["n_failed_regions"], rel=0.15)
    assert 0 < row["n_detections"] <= sound["n_detections"] + 2


def test_figures_are_found_where_they_were_drawn(run, rows, phantoms):
    true = found = drawn = 0
    for slide in phantoms[0]:
        mpp = rows[slide.slide_id]["mpp"]
        detections = run[0].folder.read_table(rows[slide.slide_id]["detections_file"])
        labels = [
            (row["x_px"], row["y_px"])
            for row in phantoms[1].to_pylist()
            if row["slide_id"] == slide.slide_id and row["kind"] == "mitotic_figure"
        ]
        matching = match(points(detections) * mpp, detections["score"].to_numpy(), np.array(labels) * mpp, 6.25)
        true += len(matching.true_scores)
        found += detections.num_rows
        drawn += len(labels)
    assert drawn > 10
    assert f1_score(true, found - true, drawn - true) >= 0.8


def test_the_summary_follows_from_the_detections(run, rows):
    for row in rows.values():
        if row["status"] == "failed":
            assert row["detections_file"] is None
            continue
        detections = run[0].folder.read_table(row["detections_file"])
        assert detections.schema == DETECTIONS
        assert detections.num_rows == row["n_detections"]
        scores = detections["score"].to_numpy()
        assert (np.diff(scores) <= 0).all()
        assert (scores >= row["threshold"]).all()
        hotspot = densest_circle(points(detections) * row["mpp"])
        assert row["mitotic_count"] == (hotspot.count if hotspot else 0)


def test_no_figure_is_counted_twice_across_region_borders(run, rows, phantoms):
    for slide in phantoms[0]:
        row = rows[slide.slide_id]
        assert row["n_regions"] >= 4
        xy_um = points(run[0].folder.read_table(row["detections_file"])) * row["mpp"]
        distances = np.linalg.norm(xy_um[:, None] - xy_um, axis=2) + np.eye(len(xy_um)) * 1e6
        assert distances.min() > 6.25


def test_slides_csv_and_parquet_say_the_same(run):
    text = run[0].folder.read_bytes("slides.csv").decode()
    read = list(csv.DictReader(text.splitlines()))
    table = pq.read_table(run[0].folder.path("slides"))
    assert [row["slide_id"] for row in read] == table["slide_id"].to_pylist()
    assert [row["mitotic_count"] for row in read] == [
        "" if count is None else str(count) for count in table["mitotic_count"].to_pylist()
    ]


def test_geojson_holds_every_detection_and_both_fields_of_view(run, rows, phantoms):
    row = rows[phantoms[0][0].slide_id]
    document = json.loads(run[0].folder.read_bytes(row["geojson_file"]))
    kinds = [feature["properties"]["classification"]["name"] for feature in document["features"]]
    assert kinds.count("Mitotic figure") == row["n_detections"]
    assert kinds.count("Hotspot") == 2
    circle = np.array(document["features"][0]["geometry"]["coordinates"][0]) * row["mpp"]
    centre = np.array([row["hotspot_x_px"], row["hotspot_y_px"]]) * row["mpp"]
    radius_um = np.linalg.norm(circle - centre, axis=1)
    assert np.pi * radius_um.mean() ** 2 / 1e6 == pytest.approx(2.0, rel=1e-3)


def test_the_record_names_model_code_counts_and_seconds(run, rows):
    record = run[0].folder.read_json("run.json")
    assert record["status"] == "incomplete"
    assert record["identity"]["model_digest"] == run[0].bundle.digest
    statuses = [row["status"] for row in run[1].to_pylist()]
    assert record["counts"]["slides"] == {status: statuses.count(status) for status in set(statuses)}
    assert record["counts"]["n_detections"] == sum(row["n_detections"] or 0 for row in rows.values())
    assert set(record["actor_seconds"]) == {"fetch", "decode", "detect", "wait"}
    assert record["duration_s"]["score"] > 0


def test_another_configuration_is_refused_with_the_difference(cohort, run):
    with pytest.raises(OutputBelongsToAnotherRun, match=r"method\.threshold: was None, is 0\.9"):
        Run.claim(Cohort(cohort[0], "mitoray-s", run[0].folder.uri, Method(region_um=256, threshold=0.9)))
    with pytest.raises(OutputBelongsToAnotherRun, match=r"n_slides: was \d+, is 1"):
        Run.claim(Cohort(cohort[0][:1], "mitoray-s", run[0].folder.uri, Method(region_um=256)))


def test_a_mended_slide_is_scored_by_the_same_command_and_nothing_else_is(cohort, run, phantoms):
    """Runs last in this module: it changes the run."""
    before = {row["slide_id"]: row for row in run[1].to_pylist()}
    source = {row.slide_id: row for row in cohort[0]}
    for slide_id in ("truncated", "corrupt"):
        shutil.copy(phantoms[0][0].uri, source[slide_id].uri)
    again = Run.claim(Cohort(cohort[0], "mitoray-s", run[0].folder.uri, Method(region_um=256)))
    slides = {row["slide_id"]: row for row in score_cohort(again, Resources(num_actors=1), progress=False).to_pylist()}
    tally = again.folder.read_json("work/attempts/0002.json")
    n_new = slides["truncated"]["n_regions"] + before["corrupt"]["n_failed_regions"]
    assert tally["n_regions"] == n_new
    for slide_id in ("truncated", "corrupt"):
        assert slides[slide_id]["status"] == "scored"
        assert slides[slide_id]["error"] is None
    assert slides["truncated"]["n_detections"] == slides[phantoms[0][0].slide_id]["n_detections"]
    untouched = set(before) - {"truncated", "corrupt"}
    assert {key: slides[key] for key in untouched} == {key: before[key] for key in untouched}


def points(table):
    return np.column_stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()])
