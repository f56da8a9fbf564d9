"""Which schemes may pass, at every door by which a path or URI comes in."""

import ast
from pathlib import Path

import fsspec
import pytest

import mitoray
from mitoray import uris
from mitoray.datasets.destination import Destination
from mitoray.errors import BadOption, RefusedUri, SlideError
from mitoray.evaluation.inputs import read_detections, read_slides
from mitoray.evaluation.trials import read_trial_scores
from mitoray.labels import read_labels
from mitoray.models import load_bundle
from mitoray.models.pretrained import initial_weights
from mitoray.scoring.manifest import ManifestRow as Row
from mitoray.scoring.manifest import checked, manifest_from_globs, read_manifest
from mitoray.slide import open_slide
from mitoray.storage import Folder
from mitoray.survival.clinical_files import read_text_table
from mitoray.survival.scored import read_scored_table
from mitoray.training.crops import read_crop_table

ROOT = Path(__file__).parents[2]

REFUSED = [
    "ftp://host/a.svs",
    "memory://a.svs",
    "github://owner:repo@main/a.svs",
    "sftp://host/a.svs",
    "local:///etc/passwd",
    "data://,text",
    "simplecache::s3://bucket/a.svs",
    "filecache::https://host/a.svs",
    "zip://a.svs::https://host/b.zip",
    "https://host/a.svs::ftp://host/b",
    "S3::x://a",
]

DOORS = {
    "slide": open_slide,
    "manifest": read_manifest,
    "glob": lambda uri: manifest_from_globs([f"{uri}*.svs"]),
    "bundle": load_bundle,
    "weights": lambda uri: initial_weights(f"{uri}.safetensors", box_network()),
    "labels": read_labels,
    "detections": read_detections,
    "slides": read_slides,
    "trial scores": read_trial_scores,
    "clinical table": read_text_table,
    "scored table": read_scored_table,
    "crops": read_crop_table,
    "output": Folder.at,
    "dataset": Destination,
}


def box_network():
    import torch

    from mitoray.models.architectures import built

    with torch.device("meta"):
        return built("retinanet", {})


@pytest.mark.parametrize("uri", REFUSED)
def test_other_schemes_and_chains_are_refused_by_name(uri):
    with pytest.raises(RefusedUri, match=r"may not be opened|chains file systems"):
        uris.file_system(uri)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_them(door):
    for uri in ("ftp://host/a", "zip://a::https://host/b"):
        with pytest.raises(RefusedUri):
            DOORS[door](uri)


def test_a_refused_slide_fails_alone_and_before_anything_is_opened():
    rows = checked([Row("a", "/data/a.svs"), Row("b", "ftp://h/b.svs"), Row("c", "/c.svs", tissue_uri="ssh://h/c.png")])
    assert [type(row.error) for row in rows] == [type(None), RefusedUri, RefusedUri]
    assert issubclass(RefusedUri, SlideError)
    assert issubclass(RefusedUri, BadOption)  # so that as an option it ends a job with status 2


def test_an_environment_variable_says_what_may_be_opened(monkeypatch, tmp_path):
    monkeypatch.setenv(uris.SCHEMES_VARIABLE, "memory, S3")
    fsspec.filesystem("memory").pipe_file("/a.txt", b"a")
    assert uris.read_file("memory://a.txt") == b"a"
    assert uris.scheme_of("s3a://bucket/a") == "s3a"
    for uri in (str(tmp_path), "file:///etc/passwd", "https://host/a"):
        with pytest.raises(RefusedUri, match="allowed are memory, s3"):
            uris.file_system(uri)


def test_a_refusal_shows_no_credentials():
    with pytest.raises(RefusedUri) as refused:
        uris.file_system("ftp://user:hidden@host/a?token=hidden")
    assert "hidden" not in str(refused.value)


def test_storage_options_choose_no_other_file_system(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    for options in ({"protocol": "memory"}, {"fo": "/etc/passwd", "target_protocol": "file"}):
        assert uris.read_file(str(tmp_path / "a"), options) == b"a"


def test_no_path_or_uri_is_opened_but_through_one_module():
    """Other modules may use an fsspec file system that they are given; none makes one."""
    makers = {"open", "open_local", "open_files", "url_to_fs", "filesystem", "get_filesystem_class", "from_uri"}
    found = set()
    for file in [*Path(mitoray.__file__).parent.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in makers:
                owner = ast.unparse(node.value)
                if owner.partition(".")[0] in ("fsspec", "pafs", "s3fs") or node.attr == "from_uri":
                    found.add(file.name)
    assert found == {"uris.py"}


def test_a_job_given_a_refused_uri_starts_nothing(job, capsys):
    for options in (["--output", "ftp://host/out"], ["--output", "out", "--model", "zip://m::https://host/m.zip"]):
        assert job("score_cohort")(["--slides", "x.svs", *options]) == 2
        assert capsys.readouterr().err.startswith("RefusedUri: ")


def test_a_copied_file_keeps_its_suffix(s3):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3["endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.put_object(Bucket="slides", Key="l/../labels.csv", Body=b"slide_id,x_px,y_px,kind\na,1,2,mitotic_figure\n")
    path = uris.local_copy("s3://slides/l/../labels.csv", s3)
    assert path.suffix == ".csv"
    assert read_labels(path).num_rows == 1
