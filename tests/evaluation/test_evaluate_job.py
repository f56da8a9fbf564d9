"""The job from files to files, and the table behind it."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitoray.evaluation.cohort import EvaluatedSlide, match_cohort
from mitoray.evaluation.tables import as_text, domain_table

ROOT = Path(__file__).parents[2]
TUPAC = ROOT / "../shared/data/tupac"

# Two slides of breast at 0.25 µm/px, one of lung at 0.5: figures found and missed at distances known in µm.
DETECTIONS = [
    ("b1", 100.0, 100.0, 0.9),  # on a figure
    ("b1", 500.0, 500.0, 0.8),  # nothing there
    ("b2", 125.0, 100.0, 0.7),  # 25 px = 6.25 µm from a figure
    ("b2", 105.0, 100.0, 0.6),  # 5 px from the same figure, which is taken
    ("l1", 113.0, 100.0, 0.9),  # 13 px = 6.5 µm from a figure
    ("l1", 300.0, 300.0, 0.2),  # on a figure
]
LABELS = [
    ("b1", 100.0, 100.0, "mitotic_figure", "breast"),
    ("b1", 500.0, 500.0, "imposter", "breast"),
    ("b2", 100.0, 100.0, "mitotic_figure", "breast"),
    ("l1", 100.0, 100.0, "mitotic_figure", "lung"),
    ("l1", 300.0, 300.0, "mitotic_figure", "lung"),
    ("elsewhere", 1.0, 1.0, "mitotic_figure", "lung"),
]
SLIDES = [
    EvaluatedSlide("b1", 0.25, "breast", 2.0),
    EvaluatedSlide("b2", 0.25, "breast", 2.0),
    EvaluatedSlide("l1", 0.5, "lung", 1.0),
    EvaluatedSlide("l2", 0.5, "lung", 1.0),
]


def tables():
    found = pa.table(dict(zip(("slide_id", "x_px", "y_px", "score"), zip(*DETECTIONS, strict=True), strict=True)))
    names = ("slide_id", "x_px", "y_px", "kind", "domain")
    return found, pa.table(dict(zip(names, zip(*LABELS, strict=True), strict=True)))


@pytest.fixture
def evaluate(job):
    return job("evaluate")


@pytest.fixture
def files(tmp_path):
    """Arguments that name the tables, written to files."""
    found, labels = tables()
    pq.write_table(found, tmp_path / "found.parquet")
    pq.write_table(labels, tmp_path / "labels.parquet")
    rows = [f"{s.slide_id},{s.mpp},{s.domain},{s.area_mm2}" for s in SLIDES]
    (tmp_path / "slides.csv").write_text("\n".join(["slide_id,mpp,domain,area_mm2", *rows]) + "\n")
    return [
        *("--detections", str(tmp_path / "found.parquet"), "--labels", str(tmp_path / "labels.parquet")),
        *("--manifest", str(tmp_path / "slides.csv"), "--output", str(tmp_path / "report"), "--repeats", "50"),
    ]


def test_distances_are_micrometres_of_each_slide_and_images_without_anything_are_not_judged():
    rows = {row.domain: row for row in domain_table(match_cohort(*tables(), SLIDES), 0.5, repeats=50)}
    assert list(rows) == ["breast", "lung", "all"]
    assert (rows["breast"].tp, rows["breast"].fp, rows["breast"].fn) == (2, 2, 0)
    assert (rows["lung"].tp, rows["lung"].fp, rows["lung"].fn) == (0, 1, 2)
    assert rows["all"].f1_pooled == pytest.approx(2 * 2 / (2 * 2 + 3 + 2))
    assert rows["all"].f1_image_mean == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)  # b1, b2, l1; l2 has nothing
    assert (rows["all"].n_slides, rows["all"].n_judged) == (4, 3)
    assert rows["all"].fp_per_mm2 == pytest.approx(3 / 6)
    assert rows["breast"].f1_low <= rows["breast"].f1_pooled <= rows["breast"].f1_high


def test_wider_radius_and_other_rules_change_what_they_should():
    at = {
        name: domain_table(match_cohort(*tables(), SLIDES, **options), 0.5, repeats=0)[-1]
        for name, options in {
            "midog": {"radius_um": 7.5},
            "linked": {"rule": "linked"},
            "suppressed": {"nms_um": 6.25},
        }.items()
    }
    assert (at["midog"].tp, at["midog"].fp) == (3, 2)
    assert (at["linked"].tp, at["linked"].fp) == (2, 2)
    assert (at["suppressed"].tp, at["suppressed"].fp) == (2, 2)
    assert np.isnan(at["midog"].f1_low)


def test_each_domain_has_its_own_best_threshold():
    rows = {row.domain: row for row in domain_table(match_cohort(*tables(), SLIDES), 0.5, repeats=0)}
    assert 0.6 < rows["breast"].own_threshold < 0.7
    assert rows["breast"].own_f1 == pytest.approx(0.8)
    assert rows["lung"].own_threshold < 0.2
    assert rows["lung"].own_f1 == pytest.approx(0.5)


def test_a_domain_without_known_area_has_no_rate_and_says_so():
    slides = [EvaluatedSlide("b1", 0.25, "breast"), *SLIDES[1:]]
    text = as_text(domain_table(match_cohort(*tables(), slides), 0.5, repeats=0)).splitlines()
    assert text[0].endswith("FP per mm²")
    assert text[1].startswith("breast")
    assert text[1].endswith("–")
    assert text[2].endswith("0.500")


def test_the_job_prints_the_table_and_leaves_json_and_figures(evaluate, files, tmp_path, capsys):
    assert evaluate([*files, "--threshold", "0.5"]) == 0
    assert "breast" in capsys.readouterr().out
    document = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert (document["threshold"], document["threshold_origin"]) == (0.5, "given")
    assert [row["domain"] for row in document["rows"]] == ["breast", "lung", "all"]
    assert document["rows"][2]["tp"] == 2
    for figure in ("precision_recall.png", "froc.png"):
        assert (tmp_path / "report" / figure).read_bytes().startswith(b"\x89PNG")


def test_without_a_threshold_the_best_is_taken_and_named_so(evaluate, files, tmp_path, capsys):
    assert evaluate(files) == 0
    assert "best on these slides" in capsys.readouterr().out
    document = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert document["threshold_origin"] == "best"
    assert document["rows"][2]["f1_pooled"] == document["rows"][2]["own_f1"]


def test_a_run_is_recorded_with_its_f1_by_domain(evaluate, files, tmp_path, capsys):
    server = f"sqlite:///{tmp_path}/mlruns.db"
    assert evaluate([*files, "--threshold", "0.5", "--mlflow", server]) == 0
    assert "Recorded as MLflow run" in capsys.readouterr().out
    client = mlflow.MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("mitoray").experiment_id])
    rows = json.loads((tmp_path / "report/evaluation.json").read_text())["rows"]
    assert run.data.metrics["f1/breast"] == rows[0]["f1_pooled"]
    assert run.data.metrics["f1/all"] == rows[2]["f1_pooled"]
    assert run.data.params["radius_um"] == "6.25"
    assert list(tmp_path.glob("mlartifacts/**/evaluation.json"))


def test_a_grid_limits_the_thresholds_tried(evaluate, files, tmp_path):
    assert evaluate([*files, "--grid", "[0.5, 1.0, 0.25]"]) == 0
    assert json.loads((tmp_path / "report/evaluation.json").read_text())["threshold"] in (0.5, 0.75)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--threshold", "2"], "--threshold must lie between 0 and 1"),
        (["--grid", "[1, 0, 0.1]"], "--grid must be"),
        (["--radius_um", "0"], "radius must be a positive"),
        (["--labels", "gone.csv"], "gone.csv"),
        (["--rule", "nearest"], "rule"),
        (["--unknown", "1"], "unknown"),
    ],
)
def test_bad_arguments_end_with_two_and_the_reason(evaluate, files, wrong, message, capsys):
    assert evaluate([*files, *wrong]) == 2
    assert message in capsys.readouterr().err


def test_help_names_units_and_defaults(evaluate, capsys):
    assert evaluate(["--help"]) == 0
    text = capsys.readouterr().out
    assert "µm" in text
    assert "default: 6.25" in text


@pytest.mark.skipif(not TUPAC.is_dir(), reason="needs the public TUPAC16 labels in ../shared/data/tupac")
def test_the_job_gives_the_published_tupac_counts_from_the_published_files(evaluate, tmp_path, caplog):
    boxes = pq.read_table(TUPAC / "detections_amida_test_dual_stage.parquet")
    slide_ids = [name.removesuffix(".tif") for name in boxes["slide"].to_pylist()]
    x1, y1, x2, y2 = (boxes[name].to_numpy().astype(float) for name in ("x1", "y1", "x2", "y2"))
    columns = {"slide_id": slide_ids, "x_px": x1 + (x2 - x1) / 2, "y_px": y1 + (y2 - y1) / 2, "score": boxes["score"]}
    pq.write_table(pa.table(columns), tmp_path / "found.parquet")
    pq.write_table(pa.table({"slide_id": sorted(set(slide_ids))}), tmp_path / "slides.parquet")
    arguments = ["--detections", "found.parquet", "--manifest", "slides.parquet", "--output", "report"]
    arguments = [str(tmp_path / a) if not a.startswith("--") else a for a in arguments]
    rule = ["--rule", "linked", "--nms_um", "6.25", "--mpp", "0.25", "--threshold", "0.63", "--repeats", "0"]
    assert evaluate([*arguments, "--labels", str(TUPAC / "alternative_labels.sqlite"), *rule]) == 0
    (row,) = json.loads((tmp_path / "report/evaluation.json").read_text())["rows"]
    assert (row["tp"], row["fp"], row["fn"]) == (435, 196, 173)
    assert "labels left out: 62" in caplog.text
