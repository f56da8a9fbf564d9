"""The job from cached candidates to a new bundle, a registered version and an alias that moves or stays."""

import csv
import json

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mitoray.errors import BadLabels
from mitoray.evaluation.candidate_cache import candidate_cache, read_cache
from mitoray.evaluation.cohort import EvaluatedSlide
from mitoray.evaluation.matching import f1_score, match
from mitoray.evaluation.search_parts import search_parts
from mitoray.labels import read_labels
from mitoray.models import Bundle, Normalisation, Training, load_bundle, save_bundle
from mitoray.models.architectures import built
from mitoray.models.combination import Combination, Isotonic, Temperature
from mitoray.models.ensemble import ensemble_of
from mitoray.tracking import prepare, version_of

QUALITY = (0.5, 1.0, 1.3)
PER_SLIDE = 60
DOMAINS = ("lung", "breast")


def classifier(seed, mpp=0.25):
    torch.manual_seed(seed)
    settings = {"patch_px": 64, "width": 0.25}
    bundle = Bundle(
        name=f"member-{seed}",
        architecture="mitoray-c",
        settings=settings,
        mpp=mpp,
        threshold=0.5,
        thresholds={},
        normalisation=Normalisation(mean=(180.0, 140.0, 180.0), std=(40.0, 40.0, 40.0)),
        training=Training(data=("none",), licence="none", notes=()),
        metrics=(),
    )
    return bundle.model_copy(update={"weights": built("mitoray-c", settings).state_dict()})


@pytest.fixture(scope="module")
def members():
    return [classifier(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def material(tmp_path_factory, members):
    """A cache of 24 slides in two domains, half of them for testing, its labels, its manifest, and the ensemble."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    found, labels = [], []
    for number in range(24):
        slide, domain = f"s{number:02d}", DOMAINS[number % 2]
        figures = rng.random((15, 2)) * 8000
        true = np.arange(PER_SLIDE) < 15
        points = np.where(true[:, None], figures[np.arange(PER_SLIDE) % 15] + rng.normal(0, 4, (PER_SLIDE, 2)), 0)
        points[~true] = rng.random((PER_SLIDE - 15, 2)) * 8000
        noise = rng.normal(0, 0.7, (PER_SLIDE, 1)) + rng.normal(0, 0.9, (PER_SLIDE, 3))
        # Too sure, and far too high. Those of the domain breast are lower, for figures and look-alikes alike.
        odds = 3 * ((2 * true[:, None] - 1) * np.array(QUALITY) + noise - (domain == "breast")) + 3
        scores = 1 / (1 + np.exp(-odds))
        detector = 1 / (1 + np.exp(-(true - 0.5 + rng.normal(0, 1, PER_SLIDE))))
        found += [
            {
                "slide_id": slide,
                "x_px": x,
                "y_px": y,
                "detector_score": d,
                "score": s.mean(),
                "member_scores": s.tolist(),
                "best": s[2],
            }
            for (x, y), d, s in zip(points.tolist(), detector.tolist(), scores, strict=True)
        ]
        labels += [f"phantom,{slide},{x},{y},mitotic_figure,{domain}" for x, y in figures.tolist()]
    kinds = {"member_scores": pa.list_(pa.float32())}
    kinds |= dict.fromkeys(("x_px", "y_px"), pa.float64())
    kinds |= dict.fromkeys(("detector_score", "score", "best"), pa.float32())
    schema = pa.schema([("slide_id", pa.string()), *kinds.items()])
    (folder / "detections").mkdir()
    pq.write_table(pa.Table.from_pylist(found, schema=schema), folder / "detections/all.parquet")
    (folder / "labels.csv").write_text("\n".join(["dataset,slide_id,x_px,y_px,kind,domain", *labels]) + "\n")
    rows = [f"s{n:02d},0.25,{DOMAINS[n % 2]},c{n // 2},{('validation', 'test')[n // 12]}" for n in range(24)]
    (folder / "slides.csv").write_text("\n".join(["slide_id,mpp,domain,case_id,split", *rows]) + "\n")
    save_bundle(*ensemble_of(members, name="three", threshold=0.5), folder / "three")
    for number, member in enumerate(members):
        save_bundle(member, member.weights, folder / f"member-{number}")
    return folder


@pytest.fixture
def search(job, material, tmp_path):
    """Runs the job on the material; gives its status, what it wrote and where."""
    main = job("search_thresholds")

    def run(*more, model="three", output="out"):
        arguments = [
            *("--detections", str(material / "detections"), "--labels", str(material / "labels.csv")),
            *("--manifest", str(material / "slides.csv"), "--output", str(tmp_path / output)),
            *("--trials", "4", "--evaluations", "20"),
        ]
        chosen = ["--model", str(material / model)] if model and not model.startswith("mitoray") else ["--model", model]
        status = main([*arguments, *(chosen if model else []), *map(str, more)])
        file = tmp_path / output / "search.json"
        return status, json.loads(file.read_text()) if file.exists() else None, tmp_path / output

    return run


def f1_of_bundle(bundle, material, part):
    """F1 of a bundle on a part: scores by hand, each slide matched anew without what lies below its threshold."""
    table = read_cache(str(material / "detections"))
    slides = [
        EvaluatedSlide(f"s{n:02d}", 0.25, DOMAINS[n % 2]) for n in (range(12) if part == "searched" else range(12, 24))
    ]
    cache = candidate_cache(table, read_labels(material / "labels.csv"), slides)
    counts, first = np.zeros(3, int), 0
    combining = bundle.combining if bundle.is_classifier else None
    for slide in cache.slides:
        scores = slide.detector_scores
        if combining:
            weights = np.array(combining.weights)
            scores = slide.member_scores @ weights + combining.detector_weight * slide.detector_scores
            scores = scores / (weights.sum() + combining.detector_weight)
            scores = combining.calibration(scores) if combining.calibration else scores
        kept = scores >= bundle.thresholds.get(slide.slide.domain, bundle.threshold)
        counts += match(slide.points_um[kept], scores[kept], slide.figures_um, 6.25).counts()
        first += len(scores)
    return f1_score(*counts.tolist())


@pytest.mark.slow
def test_a_search_makes_a_better_bundle_of_the_same_networks_and_says_how_good(ray_session, search, material, capsys):
    status, said, folder = search("--calibration", "isotonic", "--seed", 1)
    assert status == 0
    out = capsys.readouterr()
    assert "not searched" not in out.err
    made, present = load_bundle(str(folder / "bundle")), load_bundle(str(material / "three"))
    assert made.digest == said["bundle"]["digest"] != present.digest
    assert all(torch.equal(made.weights[name], present.weights[name]) for name in present.weights)
    assert isinstance(made.combination.calibration, Isotonic)
    assert set(made.thresholds) == set(DOMAINS)
    assert sum(made.combination.weights) == pytest.approx(1, abs=2e-3)

    rows = {(row["part"], row["domain"]): row for row in said["rows"]}
    for part in ("searched", "test"):
        before, after = rows[part, "all"]["F1 before"], rows[part, "all"]["F1 after"]
        assert before == pytest.approx(f1_of_bundle(present, material, part), abs=1e-9)
        assert after == pytest.approx(f1_of_bundle(made, material, part), abs=1e-9)
        assert after > before + 0.02, part
        assert {row["figures"] for (p, d), row in rows.items() if p == part and d != "all"} == {90}
    assert rows["searched", "all"]["F1 after"] > rows["searched", "all"]["F1 one threshold"]
    measured = {metric.name: (metric.value, metric.data) for metric in made.metrics}
    assert measured["F1 on slides not searched"] == (rows["test", "all"]["F1 after"], "phantom")
    assert said["calibration_error"]["part"] == "test"
    assert said["calibration_error"]["after"] < 0.5 * said["calibration_error"]["before"]
    assert (folder / "reliability.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "thresholds.csv").open() as file:
        assert float(next(iter(csv.DictReader(file)))["threshold"]) == made.thresholds["breast"]
    assert max(start["point"]["f1"] for start in said["search"]["starts"]) <= said["search"]["best"]["point"]["f1"]


@pytest.mark.slow
def test_a_version_takes_the_alias_only_with_a_higher_f1_on_the_searched_part(search, material, tmp_path, capsys):
    address = f"sqlite:///{tmp_path}/mlruns.db"
    prepare(address)
    to = ("--score-columns", "best", "--mlflow", address, "--register", "second", "--alias", "champion")

    def alias_after(*more, model="member-2", output="out"):
        status, said, _ = search(*to, *more, model=model, output=output)
        assert status == 0
        assert said["alias"] in capsys.readouterr().out
        return said, version_of("models:/second@champion", tracking_uri=address)

    first, version = alias_after("--min-figures", "1000")
    assert version == 1
    assert "no version had that alias" in first["alias"]
    better, version = alias_after("--calibration", "temperature", output="better")
    assert version == 2
    assert "judged on the same candidates" in better["alias"]
    same, version = alias_after("--calibration", "temperature")
    assert version == 2
    assert "@champion stays version 2" in same["alias"]

    other = classifier(7)
    save_bundle(other, other.weights, material / "other")
    strange, version = alias_after(model="other")
    assert version == 2
    assert "as recorded when it was registered" in strange["alias"]
    client = mlflow.MlflowClient(address, registry_uri=address)
    client.set_model_version_tag("second", "2", "f1_searched", "0.1")
    assert alias_after(model="other")[1] == 5
    client.delete_model_version_tag("second", "5", "f1_searched")
    untold, version = alias_after()
    assert version == 5
    assert "has no tag f1_searched" in untold["alias"]

    runs = client.search_runs([client.get_experiment_by_name("mitoray").experiment_id], order_by=["start_time ASC"])
    rows = {row["domain"]: row["F1 after"] for row in better["rows"] if row["part"] == "test"}
    assert {d: runs[1].data.metrics[f"f1/{d}"] for d in ("all", *DOMAINS)} == pytest.approx(rows)
    assert runs[1].data.metrics["ece"] < runs[1].data.metrics["ece_raw"]
    assert isinstance(load_bundle(str(tmp_path / "better/bundle")).combining.calibration, Temperature)


def test_a_detector_gets_thresholds_only(search, material, capsys):
    status, said, folder = search(model="mitoray-s")
    assert status == 0
    made = load_bundle(str(folder / "bundle"))
    assert made.combination is None
    assert said["search"] is None
    rows = {row["part"]: row for row in said["rows"] if row["domain"] == "all"}
    assert rows["test"]["F1 after"] == pytest.approx(f1_of_bundle(made, material, "test"), abs=1e-9)
    assert rows["searched"]["F1 after"] >= rows["searched"]["F1 before"]


def test_a_domain_with_few_figures_keeps_to_the_threshold_of_all_and_is_named(search, capsys):
    status, said, folder = search("--min-figures", "91", model="mitoray-s")
    assert status == 0
    assert "lung: 90 mitotic figures, fewer than 91" in capsys.readouterr().err
    assert load_bundle(str(folder / "bundle")).thresholds == {}
    assert set(said["without_own_threshold"]) == set(DOMAINS)


def test_a_share_of_the_cases_judges_where_no_split_is_given(search, material):
    _, said, _ = search("--test-share", "0.4", model="mitoray-s")
    case = {f"s{n:02d}": n // 2 for n in range(24)}
    searched, test = ({case[slide] for slide in said["slides"][part]} for part in ("searched", "test"))
    assert not searched & test
    assert len(searched | test) == 12
    assert 2 <= len(test) <= 8


def test_cases_keep_their_part_whatever_else_the_table_holds():
    ids = [f"s{n}" for n in range(400)]
    cases = pa.table(
        {"slide_id": ids, "case_id": [f"c{n // 2}" for n in range(400)], "split": pa.nulls(400, pa.string())}
    )
    searched, test = search_parts(cases, test_share=0.3)
    assert searched | test == set(ids)
    assert not searched & test
    assert all((ids[n] in test) == (ids[n + 1] in test) for n in range(0, 400, 2))
    assert 0.2 < len(test) / 400 < 0.4
    assert search_parts(cases.slice(100, 50), test_share=0.3)[1] == test & set(ids[100:150])
    assert search_parts(cases, test_share=0.3, seed=1)[1] != test
    assert search_parts(cases) == (frozenset(ids), frozenset())


@pytest.mark.parametrize("splits", [["validation", None], ["validation", "test"]])
def test_slides_without_a_part_and_cases_in_two_are_refused(splits):
    cases = pa.table({"slide_id": ["a", "b"], "case_id": ["c", "c"], "split": splits})
    with pytest.raises(BadLabels, match=r"no part|Keep cases whole"):
        search_parts(cases)


@pytest.mark.parametrize(
    ("more", "model", "said"),
    [
        (["--alias", "champion"], "three", "--alias needs --register"),
        (["--register", "x"], "three", "--register needs --mlflow"),
        (["--members", "a", "b"], "three", "either --model or --members"),
        (["--calibration", "isotonic"], "mitoray-s", "is a detector"),
        (["--searched", "train"], "three", "No slide is in the parts to search"),
        (["--searched", "test"], "three", "cannot be searched"),
        (["--min-figures", "0"], "three", "--min-figures must be"),
        (["--trials", "0"], "three", "at least 1"),
        ([], "member-0", "combines 1 classifiers, but the cached candidates have scores of 3"),
        ([], "nowhere", "BadModel"),
    ],
)
def test_bad_arguments_end_with_two_and_the_reason(search, more, model, said, capsys):
    assert search(*more, model=model)[:2] == (2, None)
    assert said in capsys.readouterr().err


def test_a_cohort_without_figures_gets_no_made_up_threshold(search, tmp_path, capsys):
    (tmp_path / "none.csv").write_text("slide_id,x_px,y_px,kind\ns01,5.0,5.0,imposter\n")
    assert search("--labels", tmp_path / "none.csv", model="mitoray-s")[:2] == (2, None)
    assert "hold no mitotic figure" in capsys.readouterr().err


def test_an_ensemble_is_made_with_equal_weights_or_given_ones(job, material, tmp_path, capsys):
    make = job("make_ensemble")
    uris = [str(material / f"member-{n}") for n in range(3)]
    assert make(["--members", *uris, "--name", "three", "--output", str(tmp_path / "even")]) == 0
    assert load_bundle(str(tmp_path / "even")).digest == load_bundle(str(material / "three")).digest
    assert make(["--members", *uris, "--name", "t", "--output", str(tmp_path / "w"), "--weights", "[1, 0, 3]"]) == 0
    assert load_bundle(str(tmp_path / "w")).combining == Combination(weights=(1.0, 0.0, 3.0))

    other = classifier(5, mpp=0.5)
    save_bundle(other, other.weights, tmp_path / "coarse")
    capsys.readouterr()
    assert make(["--members", uris[0], str(tmp_path / "coarse"), "--name", "x", "--output", str(tmp_path / "bad")]) == 2
    assert "µm/px" in capsys.readouterr().err
    assert make(["--name", "x", "--output", str(tmp_path / "bad")]) == 2
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_members_without_an_ensemble_become_one(ray_session, search, material, members):
    uris = [str(material / f"member-{n}") for n in range(3)]
    status, _, folder = search("--members", *uris, "--name", "fresh", model=None)
    assert status == 0
    made = load_bundle(str(folder / "bundle"))
    assert [member.name for member in made.members] == [member.name for member in members]
    assert made.name == "fresh"
