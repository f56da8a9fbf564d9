"""The job that trains classifiers, as users start it, on drawn slides and on crops."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from crowded import draw_crowded

from mitoray.models import load_bundle
from mitoray.training.crop_feed import CropFeed
from mitoray.training.crop_sampling import CropSampling
from mitoray.training.crops import CROPS, png, read_crop_table
from mitoray.training.validation import validated_classifier

SMALL = [
    *("--settings", '{"width": 0.25}', "--model-mpp", "0.5", "--patch-px", "32", "--margin-px", "16"),
    *("--patches", "96", "--batch-size", "16", "--subtype-batch-size", "8", "--epochs", "8", "--subtype-epochs", "2"),
    *("--learning-rate", "1e-2", "--body-learning-rate", "1e-2", "--threads", "1", "--validation-share", "0.5"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Four slides each of two domains; options that name their manifest and labels."""
    folder = tmp_path_factory.mktemp("cohort")
    draw_crowded(folder, ["phantom-lymphoma-a", "phantom-lung-a"], n_slides=8, seed=71, side_px=1000)
    return ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]


def without_subtypes(cohort, folder):
    labels = pq.read_table(cohort[3])
    column = labels.schema.get_field_index("subtype")
    pq.write_table(labels.set_column(column, "subtype", pa.nulls(len(labels), pa.string())), folder / "labels.parquet")
    return [*cohort[:3], str(folder / "labels.parquet")]


@pytest.mark.slow
def test_a_classifier_learns_is_recorded_and_not_trained_twice(job, cohort, ray_session, tmp_path, capsys):
    main = job("train_classifier")
    database, output = f"sqlite:///{tmp_path}/mlruns.db", tmp_path / "run"
    options = [*cohort, *SMALL, "--output", str(output), "--random-negatives", "12", "--detector", "mitoray-s"]
    recorded = ["--mlflow", database, "--register", "classifier", "--candidate-threshold", "0.1"]
    assert main([*options, *recorded]) == 0
    said = capsys.readouterr().out
    assert "Registered as models:/classifier/1" in said
    assert "imposter" in said
    bundle = load_bundle(str(output / "bundle"))
    assert bundle.has_subtypes
    assert (bundle.candidate_threshold, bundle.combination) == (0.1, None)
    assert any("flatters" in note for note in bundle.training.notes)
    assert {metric.data for metric in bundle.metrics} == {"phantom"}
    history = json.loads((output / "history.json").read_text())
    assert [(epoch["phase"], epoch["epoch"]) for epoch in history] == [
        *[("all", epoch) for epoch in range(1, 9)],
        *[("subtype", epoch) for epoch in (9, 10)],
    ]
    assert (output / "training.png").stat().st_size > 10_000

    tables = sorted((output / "crops").glob("*.parquet"))
    assert len(tables) == 8
    validate = frozenset(json.loads((output / "settings.json").read_text())["parts"]["validate"])
    assert len(validate) == 4
    feed = CropFeed(tuple(map(str, tables)), validate, frozenset(), 0.5, 32, 16, CropSampling(), 16)
    patches = feed.validation()
    figures, _ = validated_classifier(bundle.classifier(), patches)
    chance = float((patches.targets[:, 0] == 1).float().mean())
    assert figures.average_precision > chance + 0.25
    judged = {metric.name.split(" on ")[0]: metric.value for metric in bundle.metrics}
    assert judged["AP"] == pytest.approx(figures.average_precision, abs=0.02)

    before = {path: path.stat().st_mtime for path in (*tables, *output.rglob("weights.safetensors"))}
    before.pop(output / "bundle/weights.safetensors")
    assert main(options) == 0
    assert {path: path.stat().st_mtime for path in before} == before
    assert load_bundle(str(output / "bundle")).weights.keys() == bundle.weights.keys()
    capsys.readouterr()
    assert main([*options, "--mine-score", "0.9"]) == 2
    assert "extraction.mine_score" in capsys.readouterr().err


@pytest.mark.slow
def test_a_broken_slide_is_named_and_crops_cut_before_are_kept(job, cohort, ray_session, tmp_path, capsys):
    rows = pyarrow.csv.read_csv(cohort[1]).to_pylist()
    truncated = tmp_path / "truncated.svs"
    with open(rows[0]["uri"], "rb") as whole:
        content = whole.read()
    truncated.write_bytes(content)
    rows[0]["uri"] = str(truncated)
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "manifest.csv")
    options = ["--manifest", str(tmp_path / "manifest.csv"), *cohort[2:], *SMALL, "--subtype-epochs", "0"]
    options += ["--epochs", "1", "--output", str(tmp_path / "run"), "--subtype-task", "false"]
    tiles = content.find(b"\xff\xd8")
    truncated.write_bytes(content[:tiles] + bytes(len(content) // 2 - tiles) + content[len(content) // 2 :])
    assert job("train_classifier")(options) == 3
    assert f"left out: {rows[0]['slide_id']!r}: CorruptTile" in capsys.readouterr().err
    there = {path: path.stat().st_mtime for path in (tmp_path / "run/crops").glob("*.parquet")}
    assert len(there) == 7
    assert job("train_classifier")(options) == 3
    assert {path: path.stat().st_mtime for path in (tmp_path / "run/crops").glob("*.parquet")} == there
    assert not load_bundle(str(tmp_path / "run/bundle")).has_subtypes


@pytest.mark.slow
def test_ready_made_crops_train_alone_and_a_bundle_begins_the_next_training(job, ray_session, tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        figure = i % 2 == 0
        image = rng.integers(150, 250, (40, 40, 3), dtype=np.uint8)
        image[14:26, 14:26] = (90, 30, 120) if figure else (230, 170, 200)
        kind, subtype = ("mitotic_figure", ("normal", "atypical")[i % 4 == 0]) if figure else ("imposter", None)
        rows.append({"crop_id": f"c{i}", "kind": kind, "subtype": subtype, "image": png(image)})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "crops.parquet")
    options = ["--crops", json.dumps([str(tmp_path / "crops.parquet")]), *SMALL, "--model-mpp", "0.25"]
    options += ["--margin-px", "8", "--epochs", "2", "--subtype-epochs", "1"]
    main = job("train_classifier")
    assert main([*options, "--output", str(tmp_path / "first")]) == 0
    first = load_bundle(str(tmp_path / "first/bundle"))
    assert first.training.data == ("crops",)
    assert {metric.data for metric in first.metrics} == {"real crops"}
    later = ["--initial", str(tmp_path / "first/bundle"), "--epochs", "1", "--learning-rate", "1e-3"]
    later += ["--body-learning-rate", "1e-3", "--output", str(tmp_path / "second")]
    assert main([*options, *later]) == 0
    second = load_bundle(str(tmp_path / "second/bundle"))
    assert second.normalisation == first.normalisation
    assert second.weights.keys() == first.weights.keys()
    loss = [json.loads((tmp_path / run / "history.json").read_text())[0]["first_loss"] for run in ("first", "second")]
    assert loss[1] < loss[0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--architecture", "resnet99"], "architecture"),
        (["--settings", '{"depth": 3}'], "depth"),
        (["--settings", '{"patch_px": 64}'], "follows from patch_px"),
        (["--patch-px", "33"], "patch_px"),
        (["--model-mpp", "5"], "model_mpp"),
        (["--register", "x"], "mlflow"),
        (["--validation-share", "1.5"], "validation_share"),
        (["--subtype-epochs", "-1"], "subtype_epochs"),
        (["--candidate-threshold", "2"], "candidate_threshold"),
        (["--ambiguous", "perhaps"], "ambiguous"),
        (["--domain-weights", '{"phantom-lung-z": 1}'], "phantom-lung-z"),
        (["--detector", "nowhere/bundle"], "nowhere"),
        (["--crops", '["nowhere.parquet"]'], "nowhere.parquet"),
        (["--mine-at", "[0.5]"], "mine_at"),
        (["--batch-size", "4096"], "batch"),
        (["--initial", "mitoray-s"], "mitoray-s"),
    ],
)
def test_wrong_options_end_with_status_2_before_anything_starts(job, cohort, tmp_path, capsys, wrong, told):
    assert job("train_classifier")([*cohort, *SMALL, "--output", str(tmp_path / "out"), *wrong]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_to_train_from_is_told(job, cohort, tmp_path, capsys):
    assert job("train_classifier")([*SMALL, "--output", str(tmp_path / "out")]) == 2
    assert "give manifest and labels, crops, or all three" in capsys.readouterr().err
    assert job("train_classifier")([*cohort[:2], *SMALL, "--output", str(tmp_path / "out")]) == 2
    assert "belong together" in capsys.readouterr().err


def test_labels_that_do_not_do_are_told_before_anything_starts(job, cohort, tmp_path, capsys):
    main, output = job("train_classifier"), ["--output", str(tmp_path / "out")]
    assert main([*without_subtypes(cohort, tmp_path), *SMALL, *output]) == 2
    assert "no figure labelled atypical" in capsys.readouterr().err
    labels = pq.read_table(cohort[3])
    pq.write_table(labels.filter(pa.compute.equal(labels["kind"], "mitotic_figure")), tmp_path / "labels.parquet")
    only_figures = [*cohort[:3], str(tmp_path / "labels.parquet")]
    assert main([*only_figures, *SMALL, *output]) == 2
    assert "no negatives" in capsys.readouterr().err
    pq.write_table(labels.filter(pa.compute.equal(labels["kind"], "imposter")), tmp_path / "labels.parquet")
    assert main([*only_figures, *SMALL, *output]) == 2
    assert "no mitotic figure" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_crops_written_by_a_training_are_crops_to_train_from(tmp_path):
    pq.write_table(CROPS.empty_table(), tmp_path / "crops.parquet")
    assert read_crop_table(str(tmp_path / "crops.parquet")).schema == CROPS
