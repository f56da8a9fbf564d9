"""The jobs that train, as users start them, on drawn slides."""

import json

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from crowded import draw_crowded

from mitoray.errors import BadOption
from mitoray.models import load_bundle
from mitoray.training.augment import Augmentation
from mitoray.training.experiments_sweep import distributions
from mitoray.training.feed import Sampling
from mitoray.training.fitting import Fitting
from mitoray.training.variation import varied

SMALL = [
    *("--architecture", "mitoray-s", "--settings", '{"width": 0.5}', "--model-mpp", "0.5", "--patch-px", "64"),
    *("--patches", "64", "--validation-patches", "24", "--batch-size", "16", "--epochs", "2", "--threads", "1"),
    *("--learning-rate", "4e-3", "--body-learning-rate", "4e-3"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Four slides each of two domains; options that name their manifest and labels."""
    folder = tmp_path_factory.mktemp("cohort")
    domains = ["phantom-lymphoma-a", "phantom-lung-a"]
    draw_crowded(folder, domains, n_slides=8, seed=71, side_px=1000)
    return ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]


@pytest.mark.slow
def test_a_detector_is_trained_recorded_registered_and_not_trained_twice(job, cohort, ray_session, tmp_path, capsys):
    main = job("train_detector")
    database = f"sqlite:///{tmp_path}/mlruns.db"
    options = [*cohort, *SMALL, "--output", str(tmp_path / "run")]
    recorded = ["--mlflow", database, "--register", "detector", "--alias", "champion"]
    assert main([*options, *recorded]) == 0
    said = capsys.readouterr().out
    assert "Registered as models:/detector/1" in said
    assert "(phantom)" in said
    bundle = load_bundle(str(tmp_path / "run/bundle"))
    assert bundle.settings == {"width": 0.5}
    assert bundle.training.data == ("phantom",)
    assert [epoch["epoch"] for epoch in json.loads((tmp_path / "run/history.json").read_text())] == [1, 2]
    assert (tmp_path / "run/training.png").stat().st_size > 10_000

    assert main(options) == 0
    assert load_bundle(str(tmp_path / "run/bundle")).digest == bundle.digest
    capsys.readouterr()
    assert main([*options, "--weight-decay", "0.5"]) == 2
    assert "fitting.weight_decay" in capsys.readouterr().err


@pytest.mark.slow
def test_a_detector_is_trained_from_and_into_object_storage(job, cohort, ray_session, s3, tmp_path):
    import s3fs

    bucket = s3fs.S3FileSystem(**s3)
    table = pyarrow.csv.read_csv(cohort[1])
    for uri in table["uri"].to_pylist():
        bucket.put(uri, f"slides/training/{uri.rpartition('/')[2]}")
    remote = [f"s3://slides/training/{uri.rpartition('/')[2]}" for uri in table["uri"].to_pylist()]
    manifest = tmp_path / "remote.csv"
    pyarrow.csv.write_csv(table.set_column(table.schema.get_field_index("uri"), "uri", [remote]), manifest)
    options = ["--manifest", str(manifest), *cohort[2:], *SMALL, "--storage-options", json.dumps(s3)]
    assert job("train_detector")([*options, "--output", "s3://slides/trained"]) == 0
    assert load_bundle("s3://slides/trained/bundle", s3).architecture == "mitoray-s"
    settings = json.loads(bucket.cat("slides/trained/settings.json"))
    assert "secret" not in json.dumps(settings)


@pytest.mark.slow
def test_the_domain_matrix_is_whole_recorded_and_resumed(job, cohort, ray_session, tmp_path, capsys):
    import mlflow

    main = job("domain_matrix")
    database = f"sqlite:///{tmp_path}/mlruns.db"
    options = [*cohort, *SMALL, "--output", str(tmp_path / "matrix"), "--folds", "2", "--mlflow", database]
    assert main([*options, "--protocol", "single", "--domains", '["phantom-lymphoma-a"]']) == 0
    first = {path: path.stat().st_mtime for path in (tmp_path / "matrix").glob("*/result.json")}
    assert len(first) == 2
    capsys.readouterr()
    assert main([*options, "--protocol", "single"]) == 0
    said = capsys.readouterr().out
    assert "in-domain" in said
    assert {path: path.stat().st_mtime for path in first} == first
    scores = pyarrow.csv.read_csv(tmp_path / "matrix/tables/scores.csv").to_pylist()
    assert len(scores) == 2 * 2 * 2  # trained domains, folds, test domains
    assert {row["n_slides"] for row in scores} == {1}
    assert (tmp_path / "matrix/single-f1_pooled.png").exists()
    assert load_bundle(str(next((tmp_path / "matrix").glob("single-*/bundle")))).mpp == 0.5
    client = mlflow.MlflowClient(database)
    runs = client.search_runs([client.get_experiment_by_name("mitoray").experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 4
    assert len({run.data.tags["mlflow.parentRunId"] for run in children}) == 1
    assert all("f1/phantom-lung-a" in run.data.metrics for run in children)


@pytest.mark.slow
def test_a_sweep_keeps_its_trials_and_goes_on_with_them(job, cohort, ray_session, tmp_path, capsys):
    import mlflow

    main = job("sweep")
    space = {
        "fitting.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "settings.width": {"choices": [0.25, 0.5]},
    }
    options = [
        *cohort,
        *SMALL,
        "--output",
        str(tmp_path / "sweep"),
        "--grace-epochs",
        "1",
        "--space",
        json.dumps(space),
    ]
    assert main([*options, "--trials", "2"]) == 0
    first = json.loads((tmp_path / "sweep/trials.json").read_text())
    assert len(first) == 2
    database = f"sqlite:///{tmp_path / 'mlruns.db'}"
    assert main([*options, "--trials", "3", "--mlflow", database]) == 0
    rows = json.loads((tmp_path / "sweep/trials.json").read_text())
    assert rows[:2] == first
    assert len(rows) == 3
    best = max(rows, key=lambda row: row["best"])
    assert json.loads((tmp_path / "sweep/best.json").read_text()) == best["values"]
    assert best["trial"] in capsys.readouterr().out
    for row in rows:
        assert [metrics["epoch"] for metrics in row["history"]] == list(range(1, row["epochs"] + 1))
        assert max(metrics["val_ap"] for metrics in row["history"]) == row["best"]
    client = mlflow.MlflowClient(database)
    (child,) = client.search_runs(
        [client.get_experiment_by_name("mitoray").experiment_id], f"tags.mlflow.runName = '{rows[2]['trial']}'"
    )
    recorded = client.get_metric_history(child.info.run_id, "loss")
    assert [(one.step, one.value) for one in recorded] == [(m["epoch"], m["loss"]) for m in rows[2]["history"]]


@pytest.mark.slow
def test_the_area_ablation_limits_what_is_trained_on(job, cohort, ray_session, tmp_path):
    table = pyarrow.csv.read_csv(cohort[1])
    split = ["test" if i >= 6 else "train" for i in range(len(table))]
    pyarrow.csv.write_csv(table.append_column("split", [split]), tmp_path / "split.csv")
    options = ["--manifest", str(tmp_path / "split.csv"), *cohort[2:], *SMALL, "--output", str(tmp_path / "area")]
    assert job("training_area")([*options, "--hpf", "[0.2]", "--repeats", "1"]) == 0
    (row,) = pyarrow.csv.read_csv(tmp_path / "area/scores.csv").to_pylist()
    assert row["area_mm2"] == pytest.approx(4 * 0.2 * 0.237, rel=0.03)
    assert 0 <= row["f1"] <= 1
    assert (tmp_path / "area/area.png").exists()


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("train_detector", ["--architecture", "yolo"], "architecture"),
        ("train_detector", ["--settings", '{"depth": 3}'], "depth"),
        ("train_detector", ["--register", "x"], "mlflow"),
        ("train_detector", ["--batch-size", "4096"], "batch"),
        ("train_detector", ["--validation-share", "1.5"], "validation_share"),
        ("train_detector", ["--head-epochs", "9"], "head_epochs"),
        ("domain_matrix", ["--at-once", "0"], "at_once"),
        ("domain_matrix", ["--folds", "5"], "folds"),
        ("domain_matrix", ["--domains", '["phantom-lung-z"]'], "phantom-lung-z"),
        ("sweep", ["--space", '{"fitting.nothing": {"low": 0, "high": 1}}'], "fitting.nothing"),
        ("sweep", ["--space", '{"fitting.epochs": {"from": 0}}'], "neither low and high"),
        ("training_area", [], "hpf or n_slides"),
        ("training_area", ["--n-slides", "[2]"], "split"),
    ],
)
def test_wrong_options_end_with_status_2_before_anything_starts(job, cohort, tmp_path, capsys, name, wrong, told):
    assert job(name)([*cohort, *SMALL, "--output", str(tmp_path / "out"), *wrong]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_domain_without_any_figure_is_refused_by_name(job, cohort, tmp_path, capsys):
    labels = pq.read_table(cohort[3])
    keep = [domain != "phantom-lung-a" for domain in labels["domain"].to_pylist()]
    pq.write_table(labels.filter(keep), tmp_path / "labels.parquet")
    options = [*cohort[:3], str(tmp_path / "labels.parquet"), *SMALL, "--folds", "2", "--output", str(tmp_path / "out")]
    assert job("domain_matrix")(options) == 2
    assert "phantom-lung-a" in capsys.readouterr().err


def test_a_sweep_varies_settings_by_name():
    parts = {"fitting": Fitting(), "sampling": Sampling(), "augmentation": Augmentation(), "settings": {"width": 1.0}}
    other = varied(parts, {"fitting.learning_rate": 5e-3, "settings.width": 2.0, "augmentation.tint": 3.0})
    assert other["fitting"].body_learning_rate == pytest.approx(5e-4)
    assert other["settings"] == {"width": 2.0}
    assert other["augmentation"].tint == 3.0
    assert other["sampling"] is not parts["settings"]
    with pytest.raises(BadOption, match=r"fitting\.speed"):
        varied(parts, {"fitting.speed": 1})


def test_a_space_is_read_as_a_configuration_file_writes_it():
    space = distributions(
        {"a": {"low": 1, "high": 8}, "b": {"low": 1e-4, "high": 1, "log": True}, "c": {"choices": ["x"]}}
    )
    assert [type(d).__name__ for d in space.values()] == [
        "IntDistribution",
        "FloatDistribution",
        "CategoricalDistribution",
    ]
    with pytest.raises(BadOption, match="cannot be searched"):
        distributions({"a": {"low": 2, "high": 1}})
