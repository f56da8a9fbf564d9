import json
import random
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from dataset_services import serving

from mitoray.labels.cases import read_cases
from mitoray.scoring.manifest import read_manifest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"
SLIDES = {name: random.Random(name).randbytes(400_000) for name in ("001.tiff", "201.tiff", "505.tiff")}
LABELS = {
    "info": {"description": "MIDOG++: three cases"},
    "images": [
        {"id": int(name[:3]), "file_name": name, "width": 7215, "height": 5412, "tumor_type": tumor}
        for name, tumor in zip(SLIDES, ("human breast cancer", "canine lung cancer", "human melanoma"), strict=True)
    ],
    "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 200, 150, 250], "labels": [1, 1]},
        {"id": 2, "image_id": 201, "category_id": 2, "bbox": [300, 300, 350, 350], "labels": [2, 1, 2]},
        {"id": 3, "image_id": 505, "category_id": 1, "bbox": [1000, 20, 1050, 70], "labels": [1, 1]},
    ],
}


@pytest.fixture
def fetch(job):
    return job("fetch_dataset")


@pytest.fixture
def services():
    with serving() as services:
        for name, content in SLIDES.items():
            services.add(name, content)
        services.add("MIDOG++.json", json.dumps(LABELS).encode())
        yield services


def test_a_dataset_arrives_ready_for_scoring_and_training(ray_session, fetch, services, tmp_path, capsys):
    to = tmp_path / "midogpp"
    assert fetch(["midog++", "--to", str(to), "--mirror", services.url, "--parallel", "2"]) == 0
    assert {p.name: p.read_bytes() for p in (to / "slides").iterdir()} == SLIDES
    assert "CC0-1.0" in capsys.readouterr().out

    rows = read_manifest(str(to / "manifest.csv"))
    assert [(row.slide_id, row.domain, row.mpp, row.error) for row in rows] == [
        ("001", "human breast cancer, Hamamatsu XR, UMC Utrecht, Human", 0.23, None),
        ("201", "canine lung cancer, 3D Histech, VMU Vienna, Canine", 0.25, None),
        ("505", "human melanoma, Hamamatsu XR, UMC Utrecht, Human", 0.23, None),
    ]
    assert Path(rows[0].uri).read_bytes() == SLIDES["001.tiff"]
    labels = pq.read_table(to / "labels.parquet").to_pylist()
    assert [(label["slide_id"], label["kind"], label["x_px"], label["y_px"]) for label in labels] == [
        ("001", "mitotic_figure", 125, 225),
        ("201", "imposter", 325, 325),
        ("505", "mitotic_figure", 1025, 45),
    ]
    cases = {case["slide_id"]: case for case in read_cases(to / "manifest.csv").to_pylist()}
    assert [label["domain"] for label in labels] == [cases[label["slide_id"]]["domain"] for label in labels]
    assert {cases[slide]["split"] for slide in cases} <= {"train", "test"}


def test_a_failed_file_is_named_and_the_same_command_fetches_it_alone(ray_session, fetch, services, tmp_path, capsys):
    bad = services.files[1]
    bad.announced = b"something else"
    command = ["midog++", "--to", str(tmp_path), "--mirror", services.url]
    assert fetch(command) == 3
    assert "slides/201.tiff failed: 201.tiff came twice with another checksum" in capsys.readouterr().err
    assert [row.slide_id for row in read_manifest(str(tmp_path / "manifest.csv"))] == ["001", "505"]
    assert pq.read_table(tmp_path / "labels.parquet")["slide_id"].to_pylist() == ["001", "505"]

    (tmp_path / "_fetch/listing.json").unlink()
    bad.announced = None
    services.requests.clear()
    assert fetch(command) == 0
    assert services.content_requests() == ["201.tiff"]
    assert len(read_manifest(str(tmp_path / "manifest.csv"))) == 3

    services.requests.clear()
    assert fetch(command) == 0
    assert services.requests == []


def test_finished_files_stay_when_another_mirror_takes_over(ray_session, fetch, services, tmp_path):
    assert fetch(["midog++", "--to", str(tmp_path), "--mirror", services.url]) == 0
    with serving() as other:
        other.files = services.files
        other.add("202.tiff", b"new there")
        assert fetch(["midog++", "--to", str(tmp_path), "--mirror", other.url]) == 0
        assert other.content_requests() == ["202.tiff"]


def test_only_some_slides_come_with_their_labels(ray_session, fetch, services, tmp_path):
    assert fetch(["midog++", "--to", str(tmp_path), "--mirror", services.url, "--only", "0*.tiff,5*.tiff"]) == 0
    assert sorted(p.name for p in (tmp_path / "slides").iterdir()) == ["001.tiff", "505.tiff"]
    assert pq.read_table(tmp_path / "labels.parquet")["slide_id"].to_pylist() == ["001", "505"]


def test_verify_names_what_differs_from_catalogue_and_listing(ray_session, fetch, services, tmp_path, capsys):
    command = ["midog++", "--to", str(tmp_path), "--mirror", services.url]
    assert fetch(command) == 0
    (tmp_path / "slides/505.tiff").write_bytes(b"cut off")
    (tmp_path / "slides/201.tiff").unlink()
    services.requests.clear()
    assert fetch([*command, "--verify"]) == 3
    said = capsys.readouterr().err
    assert "slides/505.tiff has 7 of 400,000 bytes" in said
    assert "slides/201.tiff is missing" in said
    assert "list 3 slides, the catalogue 503" in said
    assert "holds 2 labels of kind mitotic_figure, the catalogue 11,937" in said
    assert services.requests == []


@pytest.mark.skipif(not DATA.is_dir(), reason="the public label files are not in ../shared/data")
def test_the_published_tupac_labels_pass_verification(ray_session, fetch, tmp_path, capsys):
    with serving() as services:
        for name, file in (
            ("TUPAC_alternativeLabels_augmented_training.sqlite", "alternative_labels.sqlite"),
            ("TUPAC_stitched.sqlite", "original_labels.sqlite"),
        ):
            services.add(name, (DATA / "tupac" / file).read_bytes())
        command = ["tupac16", "--to", str(tmp_path), "--mirror", services.url, "--labels", "original"]
        assert fetch(command) == 0
        assert fetch([*command, "--verify"]) == 0
    labels = pq.read_table(tmp_path / "labels.parquet")
    assert labels.num_rows == 1552
    assert not (tmp_path / "manifest.csv").exists()
    assert labels["domain"][0].as_py() == "human breast cancer, Aperio ScanScope XT, UMC Utrecht, Human"


def test_atypical_figures_of_ami_br_become_a_label_table(ray_session, fetch, tmp_path):
    header = "slide,dataset,uid,x,y,expert1_label,expert1_atypical,expert2_atypical,expert3_atypical,majority_atypical"
    rows = ["002.tiff,MIDOG21,6,4422,216,x,False,False,False,False", "01.tif,TUPAC16,7,5,6,x,True,True,False,True"]
    with serving() as services:
        services.add("AMi-Br.csv", "\n".join([header, *rows]).encode())
        assert fetch(["ami-br", "--to", str(tmp_path), "--mirror", services.url]) == 0
    labels = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert [(r["dataset"], r["slide_id"], r["x_px"], r["subtype"]) for r in labels] == [
        ("MIDOG21", "002", 4422, "normal"),
        ("TUPAC16", "01", 5, "atypical"),
    ]


def test_a_dataset_arrives_in_object_storage(ray_session, fetch, services, s3):
    command = ["midog++", "--to", "s3://slides/midogpp", "--mirror", services.url, "--storage_options", json.dumps(s3)]
    assert fetch(command) == 0
    rows = read_manifest("s3://slides/midogpp/manifest.csv", s3)
    assert [row.uri for row in rows] == [f"s3://slides/midogpp/slides/{name}" for name in SLIDES]
    filesystem = fsspec.filesystem("s3", **s3)
    assert filesystem.cat_file(rows[1].uri) == SLIDES["201.tiff"]
    assert not filesystem.exists("s3://slides/midogpp/_fetch/parts")
    services.requests.clear()
    assert fetch(command) == 0
    assert services.requests == []


def test_a_folder_of_one_dataset_is_not_filled_with_another(ray_session, fetch, services, tmp_path, capsys):
    assert fetch(["midog++", "--to", str(tmp_path), "--mirror", services.url]) == 0
    assert fetch(["cmc", "--to", str(tmp_path), "--mirror", services.url]) == 2
    assert "holds midog++" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["camelyon", "--to", "x"], "No dataset is called 'camelyon'"),
        (["cmc"], "Give the name of a dataset and a destination"),
        (["cmc", "--to", "x", "--parallel", "0"], "between 1 and 64"),
        (["cmc", "--to", "x", "--labels", "HEAEL"], "no labels called 'HEAEL'"),
        (["cmc", "--to", "x", "--bogus", "1"], "bogus"),
        (["cmc", "--to", "https://host/x"], "to disk or to S3, not to https://"),
        (["cmc", "--to", "nowhere-yet", "--verify"], "Nothing was fetched into this destination yet"),
    ],
)
def test_bad_arguments_end_with_2_before_any_work(fetch, arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fetch(arguments) == 2
    assert said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_glob_without_slides_ends_with_2(fetch, services, tmp_path):
    assert fetch(["midog++", "--to", str(tmp_path), "--mirror", services.url, "--only", "*.svs"]) == 2
    assert not (tmp_path / "slides").exists()


def test_an_unreachable_service_ends_with_1(fetch, services, tmp_path, capsys):
    services.answers["/zenodo/records/4643381"] = [(404, {})]
    assert fetch(["midog2021", "--to", str(tmp_path), "--mirror", services.url]) == 1
    assert "zenodo at 127.0.0.1 did not answer" in capsys.readouterr().err


def test_a_destination_that_cannot_be_written_ends_with_1(fetch, services, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"no folder")
    assert fetch(["midog++", "--to", str(tmp_path / "file"), "--mirror", services.url]) == 1
    assert "file" in capsys.readouterr().err


def test_a_disk_too_small_is_named_before_any_work(fetch, services, tmp_path, monkeypatch, capsys):
    usage = __import__("shutil").disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert fetch(["midog++", "--to", str(tmp_path), "--mirror", services.url]) == 2
    assert "are free in" in capsys.readouterr().err
    assert services.content_requests() == []


def test_the_catalogue_and_the_help_name_counts_units_and_defaults(fetch, capsys):
    assert fetch(["--list"]) == 0
    assert "CODAEL 13,907 / 36,379" in capsys.readouterr().out
    assert fetch(["--help"]) == 0
    assert "1 to 64" in capsys.readouterr().out
