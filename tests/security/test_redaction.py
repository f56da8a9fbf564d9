"""Secrets go where they are needed, and into no file, log, record or message."""

import json
import logging
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusing_server import refusing
from secret_scan import leaks, shows
from test_uris import DOORS

from mitoray.commandline import FAILED, run_job
from mitoray.errors import MitorayError, TrackingUnreachable
from mitoray.logs import JsonLines, Lines
from mitoray.phantom import draw_phantom, write_slide
from mitoray.scoring.manifest import slide_id_of
from mitoray.tracking import TrackedRun
from mitoray.uris import redact_text

KEY, SECRET = "PLANTEDKEY5d1c", "planted/s3cret+77a9"
PASSWORD, SIGNATURE = "planted-pa55word", "planted5ignature0f3e"
SECRETS = (KEY, SECRET, PASSWORD, SIGNATURE)


@pytest.fixture(scope="module")
def refuser():
    with refusing() as address:
        yield address


@pytest.fixture(scope="module")
def slides(s3, refuser, tmp_path_factory):
    """URIs by slide_id: two slides that can be scored, the others fail each in a way of its own."""
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    write_slide(draw_phantom("phantom-breast-a", seed=5, width_px=700, height_px=600), path)
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=s3["endpoint_url"], region_name="us-east-1", **keys)
    client.upload_file(str(path), "slides", "secret-run/a.svs")
    signed = client.generate_presigned_url("get_object", {"Bucket": "slides", "Key": "secret-run/a.svs"})
    assert shows(signed, KEY)
    return {
        "kept": "s3://slides/secret-run/a.svs",
        "signed": f"{signed}&X-Amz-Signature={SIGNATURE}",
        "gone": "s3://slides/secret-run/gone.svs",
        "no bucket": f"s3://{KEY}:{SECRET}@no-such-bucket/a.svs",
        "password": f"http://someone:{PASSWORD}@{refuser}/401/a.svs",
        "signature": f"http://{refuser}/403/a.svs?X-Amz-Signature={SIGNATURE}&X-Amz-Expires=60",
        "no server": f"https://someone:{PASSWORD}@127.0.0.1:9/a.svs?sig={SIGNATURE}",
        "no port": f"http://someone:{PASSWORD}@127.0.0.1:port/a.svs?sig={SIGNATURE}",
        "no scheme": f"ftp://someone:{PASSWORD}@host/a.svs?sig={SIGNATURE}",
    }


@pytest.mark.slow
def test_a_run_that_is_full_of_secrets_writes_none_of_them(
    job, ray_session, s3, slides, refuser, tmp_path, capfd, monkeypatch
):
    from ray._private.worker import _global_node

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{PASSWORD}@{refuser}/403")
    masks = [None] * len(slides) + [f"http://someone:{PASSWORD}@{refuser}/403/m.png?sig={SIGNATURE}"]
    table = {"slide_id": [*slides, "masked"], "uri": [*slides.values(), slides["kept"]], "tissue_uri": masks}
    pq.write_table(pa.table(table), tmp_path / "manifest.parquet")
    given = ["--manifest", str(tmp_path / "manifest.parquet"), "--output", str(tmp_path / "out")]
    options = json.dumps(s3 | {"key": KEY, "secret": SECRET})
    logs = ["--log-level", "debug", "--log-format", "json"]
    records = ["--mlflow", f"sqlite:///{tmp_path}/mlflow/mlruns.db"]
    assert job("score_cohort")([*given, "--storage-options", options, *logs, *records]) == 3
    told = capfd.readouterr()
    rows = pq.read_table(tmp_path / "out" / "slides" / "slides.parquet").to_pylist()
    assert {row["slide_id"] for row in rows if row["status"] == "scored"} == {"kept", "signed"}
    assert not [row for row in rows if row["status"] != "scored" and "Unforeseen" in row["error"]]
    assert (tmp_path / "out" / "report.html").exists()
    assert list((tmp_path / "mlflow").rglob("failures.json"))
    assert "slide 'signed' scored" in told.err
    assert leaks([tmp_path / "out", tmp_path / "mlflow", Path(_global_node.get_logs_dir_path())], SECRETS) == []
    assert [secret for secret in SECRETS if shows(told.out + told.err, secret)] == []


@pytest.mark.parametrize("where", ["403/a", "404/a", "no port", "no bucket"])
@pytest.mark.parametrize("door", sorted(DOORS.keys() - {"glob", "output", "dataset"}))
def test_no_door_tells_what_was_secret_in_a_uri(door, where, slides, refuser):
    uri = slides.get(where) or f"http://someone:{PASSWORD}@{refuser}/{where}.csv?sig={SIGNATURE}"
    with pytest.raises((MitorayError, FileNotFoundError)) as refused:
        DOORS[door](uri)
    assert [secret for secret in SECRETS if shows("".join(traceback.format_exception(refused.value)), secret)] == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"403, url='https://a:{PASSWORD}@h/x?sig={SIGNATURE}'", "403, url='https://h/x"),
        (f"no /x?X-Amz-Signature={SIGNATURE}&b=1", "no /x?X-Amz-Signature=…&b=1"),
        (f"s3://{KEY}:{SECRET}@bucket/a and http://h:80/b@c.svs", "s3://bucket/a and http://h:80/b@c.svs"),
        ("token=… https://host/a.svs: gone; ./a?b.svs", "token=… https://host/a.svs: gone; ./a?b.svs"),
    ],
)
def test_uris_are_redacted_within_texts(said, shown):
    assert redact_text(said) == shown


@pytest.mark.parametrize("form", [JsonLines, Lines])
def test_logs_tell_no_secret_not_even_of_what_other_libraries_raise(form):
    try:
        raise ValueError(f"bad https://a:{PASSWORD}@h/x?sig={SIGNATURE}")
    except ValueError as error:
        facts = (type(error), error, error.__traceback__)
    record = logging.LogRecord("mitoray", logging.ERROR, "", 1, "asked %s", (f"s3://{KEY}:{SECRET}@b/a",), facts)
    line = form().format(record)
    assert "s3://b/a" in line
    assert "ValueError" in line
    assert [secret for secret in SECRETS if shows(line, secret)] == []


def test_an_error_that_nobody_foresaw_ends_a_job_with_its_traceback_and_no_secret(capsys):
    def job():
        raise ZeroDivisionError(f"https://a:{PASSWORD}@h/x")

    assert run_job(job, bad_input=()) == FAILED
    told = capsys.readouterr().err
    assert "ZeroDivisionError: https://h/x" in told
    assert "Traceback" in told
    assert PASSWORD not in told


def test_an_address_without_a_file_gives_no_secret_to_a_slide_id():
    assert slide_id_of(f"https://someone:{PASSWORD}@host") == "host"
    assert slide_id_of(f"https://someone:{PASSWORD}@host/b/a.svs?sig={SIGNATURE}") == "a"


def test_mlflow_is_told_no_secret_and_its_own_address_is_not_repeated(refuser, tmp_path, caplog):
    address = f"sqlite:///{tmp_path}/mlruns.db"
    settings = {"uri": f"s3://{KEY}:{SECRET}@b/a", "storage_options": {"secret": SECRET}, "password": PASSWORD}
    with TrackedRun.start("secrets", tracking_uri=address, tags={"source": f"https://h/a?sig={SIGNATURE}"}) as run:
        run.log_parameters(settings)
    with closing(sqlite3.connect(tmp_path / "mlruns.db")) as database:
        assert ("uri", "s3://b/a") in database.execute("SELECT key, value FROM params").fetchall()
    with pytest.raises(TrackingUnreachable) as unreachable:
        TrackedRun.start("refused", tracking_uri=f"http://someone:{PASSWORD}@{refuser}/403")
    assert leaks([tmp_path], SECRETS) == []
    told = "".join(traceback.format_exception(unreachable.value)) + caplog.text
    assert [secret for secret in SECRETS if shows(told, secret)] == []


@pytest.mark.parametrize("kind", ["text", "parquet", "sqlite", "url", "basic authentication", "name", "zip"])
def test_the_scan_finds_a_secret_wherever_it_is(kind, tmp_path):
    file = tmp_path / "file"
    match kind:
        case "text":
            file.write_text(f"…{SECRET}…")
        case "parquet":
            pq.write_table(pa.table({"a": [{"b": [SECRET]}]}), file, compression="zstd", use_dictionary=False)
        case "sqlite":
            with closing(sqlite3.connect(file)) as database:
                database.execute("CREATE TABLE a (b TEXT)")
                database.execute("INSERT INTO a VALUES (?)", (SECRET,))
                database.commit()
        case "url":
            file.write_text("https://h/?a=planted%2Fs3cret%2B77a9")
        case "basic authentication":
            file.write_bytes(b"Basic c29tZW9uZTpwbGFudGVkL3MzY3JldCs3N2E5")
        case "name":
            file = tmp_path / SECRET
            file.parent.mkdir()
            file.touch()
        case "zip":
            import zipfile

            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a", SECRET * 100)
    assert leaks([tmp_path], [SECRET]) == [f"{file}: {SECRET}"]
    assert leaks([tmp_path], ["another"]) == []
