"""Detectors brought from one drawn domain to another, as users do it; and what may be adapted at all."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from crowded import draw_crowded

from mitoray.errors import BadLabels, BadModel, BadOption
from mitoray.evaluation.adaptation import from_csv
from mitoray.evaluation.matching import RADIUS_UM, match
from mitoray.labels.schema import LABELS
from mitoray.models import Bundle, Normalisation, load_bundle, save_bundle
from mitoray.models import Training as Origin
from mitoray.models.architectures import built
from mitoray.models.sources import SHIPPED
from mitoray.training.adaptation import target_of
from mitoray.training.corpus import Corpus
from mitoray.training.slides import TrainingSlide
from mitoray.training.source_runs import digests_of, epoch_bundles, found_runs

SMALL = [
    *("--patch-px", "64", "--patches", "64", "--validation-patches", "24", "--batch-size", "16", "--epochs", "2"),
    *("--threads", "1", "--workers", "1"),
]
SOURCE = [
    *("--architecture", "mitoray-s", "--settings", json.dumps(load_bundle("mitoray-s").settings), "--model-mpp", "0.5"),
    *("--initial", "mitoray-s", "--learning-rate", "1e-3", "--body-learning-rate", "1e-3"),
]
"""Begun with a trained network, for a few steps teach nothing to another one."""


def untrained(seed=0, threshold=0.5, architecture="mitoray-s"):
    torch.manual_seed(seed)
    weights = built(architecture, {"width": 0.25}).state_dict()
    return Bundle(
        name="untrained",
        architecture=architecture,
        settings={"width": 0.25},
        mpp=0.5,
        threshold=threshold,
        thresholds={},
        normalisation=Normalisation(mean=(172.0, 102.0, 176.0), std=(49.0, 54.0, 40.0)),
        training=Origin(data=(), licence="CC0", notes=("Not trained.",)),
        metrics=(),
        weights=weights,
    )


def saved(folder, bundle):
    save_bundle(bundle, bundle.weights, folder)
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Options that name six slides of a domain."""
    folder = tmp_path_factory.mktemp("target")
    draw_crowded(folder, ["phantom-breast-a"], n_slides=6, seed=91, side_px=800)
    return ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]


def rows_of(folder):
    return {(row["run"], row["method"]): row for row in from_csv((folder / "adaptation.csv").read_bytes())}


def f1_by_hand(detections, labels, slide_ids, threshold):
    """F1 over slides, each matched by itself."""
    tp = fp = fn = 0
    for slide_id in slide_ids:
        found, true = (
            [row for row in table.to_pylist() if row["slide_id"] == slide_id] for table in (detections, labels)
        )
        true = [row for row in true if row["kind"] == "mitotic_figure"]
        points, figures = (np.array([(r["x_px"], r["y_px"]) for r in rows]).reshape(-1, 2) for rows in (found, true))
        scores = np.array([row["score"] for row in found])
        above = scores > threshold
        matching = match(points[above] * 0.25, scores[above], figures * 0.25, RADIUS_UM)
        counts = matching.counts(-1.0)
        tp, fp, fn = tp + counts[0], fp + counts[1], fn + counts[2]
    return 2 * tp / (2 * tp + fp + fn)


@pytest.mark.slow
def test_model_selection_takes_the_good_candidate_and_the_threshold_is_the_best_there_is(
    job, target, ray_session, tmp_path, capsys
):
    run = tmp_path / "run-a"
    saved(run / "bundle", untrained())
    shutil.copytree(SHIPPED / "mitoray-s", run / "epochs/epoch-001")
    main, output = job("adapt_domain"), tmp_path / "out"
    options = ["--runs", json.dumps([str(run), "mitoray-s"]), *target, "--threads", "1", "--output", str(output)]
    assert main(["to", *options, "--test-share", "0.4"]) == 0
    rows = rows_of(output)
    assert list(rows) == [(r, m) for r in ("run-a", "mitoray-s") for m in ("source only", "TO")]
    assert rows["mitoray-s", "source only"]["threshold"] == load_bundle("mitoray-s").threshold
    assert "source only  2" in capsys.readouterr().out

    settings = json.loads((output / "settings.json").read_text())
    parts = {part: [name.partition(" ")[0] for name in settings["parts"][part]] for part in ("train", "test")}
    assert (len(parts["train"]), len(parts["test"])) == (4, 2)
    digest, labels = load_bundle("mitoray-s").digest, pq.read_table(target[3])
    detections = {part: pq.read_table(output / f"detections/{digest[:16]}-{part}.parquet") for part in parts}
    row = rows["mitoray-s", "TO"]
    tried = [
        f1_by_hand(detections["train"], labels, parts["train"], t)
        for t in [0.0, *detections["train"]["score"].to_pylist()]
    ]
    assert row["f1_chosen"] == pytest.approx(max(tried))
    assert row["f1_pooled"] == pytest.approx(f1_by_hand(detections["test"], labels, parts["test"], row["threshold"]))

    assert main(["ms", *options, "--test-share", "0.4"]) == 2
    assert "'mitoray-s' holds one model" in capsys.readouterr().err
    assert main(["ms", *options[2:], "--runs", json.dumps([str(run)]), "--test-share", "0.4"]) == 2
    assert "adapt.runs" in capsys.readouterr().err

    alone = [*options[2:-1], str(tmp_path / "ms"), "--runs", json.dumps([str(run)]), "--test-share", "0.4"]
    assert main(["ms", *alone]) == 0
    found = rows_of(tmp_path / "ms")["run-a", "TO+MS"]
    assert found["model"].endswith("epochs/epoch-001")
    assert found["f1_pooled"] == row["f1_pooled"]
    assert found["f1_pooled"] > rows["run-a", "TO"]["f1_pooled"]


@pytest.mark.slow
def test_runs_are_trained_selected_and_trained_on_and_nothing_is_computed_twice(
    job, target, ray_session, tmp_path, capsys
):
    import mlflow

    folder = tmp_path / "source"
    folder.mkdir()
    draw_crowded(folder, ["phantom-lymphoma-a"], n_slides=4, seed=61, side_px=800)
    source = ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]
    runs = [tmp_path / f"seed-{seed}" for seed in range(2)]
    for seed, run in enumerate(runs):
        options = [*source, *SMALL, *SOURCE, "--keep-epochs", "2", "--seed", str(seed), "--output", str(run)]
        assert job("train_detector")(options) == 0
    assert sorted(path.name for path in (runs[0] / "epochs").iterdir()) == ["epoch-001", "epoch-002"]
    assert [len(run.candidates) for run in found_runs([str(run) for run in runs])] == [3, 3]
    best = load_bundle(str(runs[0] / "bundle")).weights
    assert any(
        all(torch.equal(best[name], kept[name]) for name in best)
        for kept in (load_bundle(str(path)).weights for path in (runs[0] / "epochs").iterdir())
    )

    output, database = tmp_path / "out", f"sqlite:///{tmp_path}/mlruns.db"
    options = ["--runs", json.dumps([str(run) for run in runs]), *target, *SMALL, "--test-share", "0.4"]
    options += ["--output", str(output)]
    main = job("adapt_domain")
    assert main(["tl", *options]) == 0
    assert main(["ms", *options, "--mlflow", database]) == 0
    said = capsys.readouterr().out
    rows = rows_of(output)
    assert set(rows) == {(f"seed-{n}", method) for n in range(2) for method in ("source only", "TO", "TO+MS", "TL")}
    assert {row["domain"] for row in rows.values()} == {"phantom-breast-a"}
    assert len({row["n_figures"] for row in rows.values()}) == 1
    assert all(row["f1_pooled"] > 0.3 and row["ap"] > 0.3 for row in rows.values())
    assert all(row["f1_chosen"] >= rows[run, "TO"]["f1_chosen"] for (run, of), row in rows.items() if of == "TO+MS")
    assert said.rindex("source only") < said.rindex("TO ") < said.rindex("TO+MS") < said.rindex("TL ")
    tuned = load_bundle(str(output / "tl/seed-0/bundle"))
    before = load_bundle(str(runs[0] / "bundle"))
    assert tuned.normalisation == before.normalisation
    change = (tuned.weights["centre.weight"] - before.weights["centre.weight"]).abs().max().item()
    assert 0 < change < 8 * 1e-4 * 1.5  # eight steps of AdamW, each of about the learning rate at most

    files = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and path.name != "mlflow.json"
    }
    assert main(["tl", *options, "--mlflow", database]) == 0
    assert main(["ms", *options, "--mlflow", database]) == 0
    again = {path: path.stat().st_mtime_ns for path in files}
    assert again == files
    client = mlflow.MlflowClient(database)
    recorded = client.search_runs([client.get_experiment_by_name("mitoray").experiment_id])
    children = {run.info.run_name: run for run in recorded if "mlflow.parentRunId" in run.data.tags}
    assert len(children) == len(recorded) - 1 == 8
    assert children["seed-1 TL"].data.metrics["f1"] == rows["seed-1", "TL"]["f1_pooled"]
    assert "loss" in children["seed-1 TL"].data.metrics

    capsys.readouterr()
    assert main(["tl", *options, "--weight-decay", "0.5"]) == 2
    assert "fitting.weight_decay" in capsys.readouterr().err
    assert main(["to", *options, "--test-share", "0.2"]) == 2
    assert "parts.t" in capsys.readouterr().err


# What may be adapted


def test_a_run_is_a_bundle_or_a_folder_whose_bundle_is_the_source_choice(tmp_path):
    saved(tmp_path / "alone", untrained())
    saved(tmp_path / "several/bundle", untrained())
    for epoch in (1, 2):
        saved(tmp_path / f"several/epochs/epoch-00{epoch}", untrained(seed=epoch))
    saved(tmp_path / "unclear/a", untrained())
    saved(tmp_path / "unclear/b", untrained())
    (tmp_path / "empty").mkdir()
    alone, several, shipped = found_runs([str(tmp_path / "alone"), str(tmp_path / "several"), "mitoray-s"])
    assert (alone.name, len(alone.candidates)) == ("alone", 1)
    assert several.source == several.candidates[0] == f"{tmp_path}/several/bundle"
    assert [uri.rpartition("/")[2] for uri in several.candidates[1:]] == ["epoch-001", "epoch-002"]
    assert len(set(digests_of(several.candidates).values())) == 3
    assert (shipped.name, shipped.source) == ("mitoray-s", "mitoray-s")
    (inner,) = found_runs([f"{tmp_path}/several/bundle/"])
    assert (inner.name, len(inner.candidates)) == ("several", 1)
    with pytest.raises(BadModel, match=r"2 bundles \(a, b, …\), none of them called 'bundle'"):
        found_runs([str(tmp_path / "unclear")])
    with pytest.raises(BadModel, match=r"no bundle\.json"):
        found_runs([str(tmp_path / "empty")])
    with pytest.raises(BadOption, match="Two runs are called 'alone'"):
        found_runs([str(tmp_path / "alone")] * 2)


def test_runs_are_found_in_object_storage(s3, tmp_path):
    import s3fs

    saved(tmp_path / "bundle", untrained())
    bucket = s3fs.S3FileSystem(**s3)
    for place in ("bundle", "epochs/epoch-001"):
        bucket.put(str(tmp_path / "bundle"), f"slides/runs/seed-7/{place}", recursive=True)
    (run,) = found_runs(["s3://slides/runs/seed-7"], s3)
    assert run.name == "seed-7"
    assert run.candidates == ("s3://slides/runs/seed-7/bundle", "s3://slides/runs/seed-7/epochs/epoch-001")
    assert len(digests_of(run.candidates, s3)) == 2


def test_kept_epochs_become_bundles_that_load_again(tmp_path):
    bundle, other = untrained(threshold=0.4), untrained(seed=3)
    made = epoch_bundles(bundle, [(other.weights, {"epoch": 7, "val_ap": 0.25})])
    saved(tmp_path / "epoch-007", made["epoch-007"])
    loaded = load_bundle(str(tmp_path / "epoch-007"))
    assert (loaded.name, loaded.threshold, loaded.metrics[0].value) == ("untrained-epoch-007", 0.4, 0.25)
    assert all(torch.equal(loaded.weights[name], other.weights[name]) for name in other.weights)
    assert bundle.name == "untrained"


def corpus(figures):
    """Slides with so many figures each, by id; cases are slides, and the domain is the id's first letter."""
    slides = tuple(TrainingSlide(name, f"{name}.svs", name, name[0], 0.25, 1000, 1000) for name in figures)
    labels = [
        {"dataset": "d", "slide_id": name, "x_px": 10.0 * i, "y_px": 5.0, "kind": "mitotic_figure"}
        for name, n in figures.items()
        for i in range(n)
    ]
    labels.append({"dataset": "d", "slide_id": next(iter(figures)), "x_px": 1.0, "y_px": 1.0, "kind": "imposter"})
    return Corpus(slides, pa.Table.from_pylist(labels, schema=LABELS), {})


def test_the_target_is_parted_by_its_split_and_else_by_whole_cases_held_out():
    slides = corpus({"a1": 2, "a2": 3, "a3": 1, "b1": 4, "b2": 4, "b3": 4, "b4": 4})
    splits = {"a1": "train", "a2": "test", "a3": "validation"}
    target = target_of(slides, splits, domain="a")
    assert (target.domain, [s.slide_id for s in target.train], [s.slide_id for s in target.test]) == (
        "a",
        ["a1", "a3"],
        ["a2"],
    )
    assert target.validation == {"a3"}
    assert set(target.labels["slide_id"].to_pylist()) == {"a1", "a2", "a3"}
    drawn = target_of(slides, {}, domain="b", test_share=0.5)
    assert len(drawn.train) == len(drawn.test) == 2
    assert target_of(slides, {}).domain == "all"
    with pytest.raises(BadOption, match="There are a, b"):
        target_of(slides, splits, domain="c")


def test_a_target_without_figures_is_refused_by_name_and_part():
    slides = corpus({"a1": 0, "a2": 3, "b1": 2})
    with pytest.raises(
        BadLabels, match=r"domain 'a' has 1 slides in its training part, with no mitotic figure\. Label"
    ):
        target_of(slides, {"a1": "train", "a2": "test"}, domain="a")
    with pytest.raises(BadLabels, match=r"domain 'a' has 1 slides in its test part"):
        target_of(slides, {"a1": "test", "a2": "train"}, domain="a")
    with pytest.raises(BadLabels, match=r"domain 'b' has 0 slides in its test part"):
        target_of(slides, {"b1": "train"}, domain="b")


@pytest.mark.parametrize(
    ("command", "wrong", "told"),
    [
        ("to", ["--test-share", "1"], "test_share"),
        ("to", ["--domain", "phantom-lung-z"], "phantom-lung-z"),
        ("to", ["--runs", "[]"], "no runs"),
        ("to", ["--runs", '["nowhere"]'], "nowhere"),
        ("ms", [], "keep-epochs"),
        ("tl", ["--batch-size", "4096"], "batch"),
        ("tl", ["--mine-at", "[0.5]"], "hard_share"),
        ("tl", ["--at-once", "0"], "at_once"),
        ("everything", [], "everything"),
    ],
)
def test_wrong_options_end_with_status_2_before_anything_starts(job, target, tmp_path, capsys, command, wrong, told):
    options = ["--runs", '["mitoray-s"]', *target, *SMALL, "--output", str(tmp_path / "out")]
    assert job("adapt_domain")([command, *options, *wrong]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_no_run_of_a_detector(job, target, tmp_path, capsys):
    saved(tmp_path / "classifier", untrained(architecture="mitoray-c"))
    options = ["--runs", json.dumps([str(tmp_path / "classifier")]), *target, "--output", str(tmp_path / "out")]
    assert job("adapt_domain")(["to", *options]) == 2
    assert "'mitoray-c' is no detector" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_target_domain_without_labels_to_train_on_ends_with_status_2(job, target, tmp_path, capsys):
    table = pyarrow.csv.read_csv(target[1])
    split = ["test" if i < 2 else "train" for i in range(len(table))]
    pyarrow.csv.write_csv(table.append_column("split", [split]), tmp_path / "manifest.csv")
    labels = pq.read_table(target[3])
    tested = set(table["slide_id"].to_pylist()[:2])
    pq.write_table(labels.filter([name in tested for name in labels["slide_id"].to_pylist()]), tmp_path / "l.parquet")
    options = ["--manifest", str(tmp_path / "manifest.csv"), "--labels", str(tmp_path / "l.parquet")]
    assert (
        job("adapt_domain")(["tl", "--runs", '["mitoray-s"]', *options, *SMALL, "--output", str(tmp_path / "o")]) == 2
    )
    assert "'phantom-breast-a' has 4 slides in its training part" in capsys.readouterr().err
