"""Slides and results in OpenStack Swift, by its S3 interface, and what it says to wrong requests; the same of moto."""

import json
import os

import boto3
import pytest
import requests
from swift_store import can_keep_metadata, free_port, server, swift, wait_for

from mitoray.errors import (
    BadManifest,
    BadModel,
    MitorayError,
    OutputUnreachable,
    SlideForbidden,
    SlideNotFound,
    SlideUnreachable,
)
from mitoray.models import load_bundle
from mitoray.models.sources import SHIPPED
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import manifest_from_globs, read_manifest
from mitoray.slide import open_slide
from mitoray.slide.storage import SlideFile
from mitoray.storage import Folder

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swift")
    if not can_keep_metadata(folder):
        pytest.skip("the file system keeps no extended attributes, which Swift needs")
    with swift(folder) as options:
        made(options, "slides")
        yield options


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """moto with its keys checked, which it leaves out otherwise; in a process of its own, all of which that changes."""
    folder, port = tmp_path_factory.mktemp("moto"), free_port()
    with server(folder, "moto_server", "--host", "127.0.0.1", "--port", str(port)):
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(f"{endpoint}/moto-api/", folder)
        first = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        plain = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        boto3.client("s3", **first, **plain).create_bucket(Bucket="slides")
        iam = boto3.client("iam", **first, **plain)
        iam.create_user(UserName="lab")
        rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="lab", PolicyName="all", PolicyDocument=json.dumps(rights))
        keys = iam.create_access_key(UserName="lab")["AccessKey"]
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
        yield {
            "key": keys["AccessKeyId"],
            "secret": keys["SecretAccessKey"],
            "endpoint_url": endpoint,
            "client_kwargs": {"region_name": "us-east-1"},
        }


@pytest.fixture(params=["real", "strict"])
def store(request):
    return request.getfixturevalue(request.param)


def made(options, bucket):
    keys = {"aws_access_key_id": options["key"], "aws_secret_access_key": options["secret"]}
    boto3.client("s3", endpoint_url=options["endpoint_url"], **options["client_kwargs"], **keys).create_bucket(
        Bucket=bucket
    )


def test_a_cohort_in_a_real_object_store_is_scored_as_one_on_disk(real, job, ray_session, tmp_path):
    draw_cohort(tmp_path, n_slides=1, seed=971_000, width_px=1500, height_px=1200)
    (slide,) = tmp_path.glob("*.svs")
    Folder.at("s3://slides/cohort", real).write_bytes(slide.name, slide.read_bytes())
    Folder.at("s3://slides/model", real).write_bytes(
        "weights.safetensors", (SHIPPED / "mitoray-s/weights.safetensors").read_bytes()
    )
    Folder.at("s3://slides/model", real).write_bytes("bundle.json", (SHIPPED / "mitoray-s/bundle.json").read_bytes())
    score_cohort = job("score_cohort")
    assert score_cohort(["--slides", str(slide), "--output", str(tmp_path / "out"), "--report", "false"]) == 0
    command = ["--slides", "s3://slides/cohort/*.svs", "--model", "s3://slides/model", "--output", "s3://slides/out"]
    assert score_cohort([*command, "--storage-options", json.dumps(real)]) == 0
    here, there = Folder.at(str(tmp_path / "out")), Folder.at("s3://slides/out", real)
    assert there.read_json("run.json")["status"] == "complete"
    assert there.exists("report.html")
    for name in ("slides", "cases"):
        table = f"{name}/{name}.parquet"
        assert there.read_table(table).drop(["uri"] * (name == "slides")) == here.read_table(table).drop(
            ["uri"] * (name == "slides")
        )
    (detections,) = there.names("detections", ".parquet")
    assert there.read_table(detections) == here.read_table(detections)
    assert there.read_table(detections).num_rows > 0


def test_a_file_that_takes_many_parts_to_write_is_read_by_ranges(store):
    content = os.urandom(MIB) * 120
    Folder.at("s3://slides/large", store).write_bytes("many-parts.svs", content)
    file = SlideFile("s3://slides/large/many-parts.svs", store)
    assert file.size_bytes == len(content)
    spans = [
        (0, 10),
        (MIB - 5, MIB + 5),
        (50 * MIB - 7, 50 * MIB + 9),
        (119 * MIB, 120 * MIB),
        (120 * MIB - 1, 120 * MIB),
    ]
    assert file.read_ranges(spans) == [content[start:end] for start, end in spans]


WRONG = {
    "secret": ({"secret": "hunter2-of-nobody"}, SlideForbidden, "not allow|PermissionError"),
    "key": ({"key": "nobody"}, SlideForbidden, "not allow|PermissionError"),
    "endpoint": (
        {"endpoint_url": "http://127.0.0.1:9"},
        SlideUnreachable,
        "did not answer|does not answer|ConnectionError",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_access_is_told_apart_and_by_name(store, job, tmp_path, capsys, wrong):
    changed, of_slide, told = WRONG[wrong]
    options = {**store, **changed, "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2}}
    messages = [
        refused(of_slide, told, lambda: open_slide("s3://slides/cohort/a.svs", storage_options=options)),
        refused(BadManifest, told, lambda: read_manifest("s3://slides/cohort.csv", options)),
        refused(BadManifest, told, lambda: manifest_from_globs(["s3://slides/cohort/*.svs"], options)),
        refused(OutputUnreachable, told, Folder.at("s3://slides/out", options).check),
        refused(BadModel, "cannot be read", lambda: load_bundle("s3://slides/model", options)),
    ]
    command = [
        "--slides",
        str(tmp_path / "a.svs"),
        "--output",
        "s3://slides/out",
        "--storage-options",
        json.dumps(options),
    ]
    assert job("score_cohort")(command) == 2
    messages.append(capsys.readouterr().err)
    assert "OutputUnreachable: s3://slides/out: the storage" in messages[-1]
    assert not any(secret in message for message in messages for secret in (options["secret"], "Signature"))


def test_what_is_missing_is_told_apart_and_by_name(store, job, tmp_path, capsys):
    refused(SlideNotFound, "no such file", lambda: open_slide("s3://slides/none.svs", storage_options=store))
    refused(SlideNotFound, "no such file", lambda: open_slide("s3://nowhere/none.svs", storage_options=store))
    refused(BadManifest, "no manifest at", lambda: read_manifest("s3://nowhere/cohort.csv", store))
    refused(BadManifest, "matches no slide file", lambda: manifest_from_globs(["s3://nowhere/*.svs"], store))
    refused(BadModel, "no weights.safetensors there", lambda: load_bundle("s3://nowhere/model", store))
    command = [
        "--slides",
        str(tmp_path / "a.svs"),
        "--output",
        "s3://nowhere/out",
        "--storage-options",
        json.dumps(store),
    ]
    assert job("score_cohort")(command) == 2
    assert "OutputUnreachable: s3://nowhere/out: there is no bucket nowhere. Make it" in capsys.readouterr().err
    refused(OutputUnreachable, "no bucket", Folder.at("s3://nowhere/out", store).check)  # and none was made


def refused(error: type[MitorayError], told: str, ask) -> str:
    with pytest.raises(error, match=told) as caught:
        ask()
    return str(caught.value)
