import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mitoray.errors import BadModel
from mitoray.models import load_bundle, save_bundle
from mitoray.models.sources import SHIPPED

FILES = ("weights.safetensors", "bundle.json")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MITORAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


@pytest.fixture(scope="module")
def shipped():
    return load_bundle("mitoray-s")


@pytest.fixture
def web(tmp_path):
    (tmp_path / "www").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "www")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "www"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "hidden-value"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="models")
    for name in FILES:
        client.upload_file(str(SHIPPED / "mitoray-s" / name), "models", f"team/mitoray-s/{name}")
    client.put_object(Bucket="models", Key="pickled/model.pt", Body=b"\x80\x04.")
    yield {"key": "key", "secret": "hidden-value", "client_kwargs": {"endpoint_url": endpoint}}
    server.stop()


def test_a_local_folder_wins_no_name_but_a_path(tmp_path, monkeypatch, shipped):
    save_bundle(shipped.model_copy(update={"threshold": 0.01}), shipped.weights, tmp_path / "mitoray-s")
    monkeypatch.chdir(tmp_path)
    assert load_bundle("mitoray-s").digest == shipped.digest
    assert load_bundle("./mitoray-s").threshold == 0.01


def test_a_bundle_loads_from_s3_and_then_from_the_cache(s3, cache, shipped):
    uri = "s3://models/team/mitoray-s"
    assert load_bundle(uri, s3).digest == shipped.digest
    nowhere = {**s3, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    assert load_bundle(uri, nowhere, expected_digest=shipped.digest).digest == shipped.digest
    (cache / shipped.digest / "bundle.json").write_text("{}")
    assert load_bundle(uri + "/", s3, expected_digest=shipped.digest).digest == shipped.digest


def test_a_cache_that_cannot_be_written_costs_only_the_cache(s3, shipped, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MITORAY_CACHE", str(tmp_path / "file"))
    assert load_bundle("s3://models/team/mitoray-s", s3).digest == shipped.digest


def test_pickled_weights_on_s3_are_refused(s3):
    with pytest.raises(BadModel, match=r"pickled weights \(model\.pt\)"):
        load_bundle("s3://models/pickled", s3)


def test_storage_errors_name_the_model_and_no_secret(s3):
    nowhere = {
        **s3,
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    with pytest.raises(BadModel, match="s3://models/team/mitoray-s: cannot be read") as refused:
        load_bundle("s3://models/team/mitoray-s", nowhere)
    assert "hidden-value" not in str(refused.value)


def test_a_bundle_loads_from_a_web_server(web, shipped):
    address, root = web
    digest = save_bundle(shipped, shipped.weights, root / "bundle")
    assert load_bundle(f"{address}/bundle").digest == digest
    with pytest.raises(BadModel, match=r"/other: no weights\.safetensors"):
        load_bundle(f"{address}/other".replace("http://", "http://user:hidden-value@"))


def test_a_web_address_is_shown_without_its_credentials(web):
    address, _ = web
    with pytest.raises(BadModel) as refused:
        load_bundle(f"{address}/other?token=hidden-value".replace("http://", "http://user:hidden-value@"))
    assert "hidden-value" not in str(refused.value)


def test_a_changed_remote_bundle_is_fetched_anew(web, shipped):
    address, root = web
    save_bundle(shipped, shipped.weights, root / "bundle")
    load_bundle(f"{address}/bundle")
    card = json.loads((root / "bundle" / "bundle.json").read_text())
    (root / "bundle" / "bundle.json").write_text(json.dumps({**card, "threshold": 0.02}))
    assert load_bundle(f"{address}/bundle").threshold == 0.02


def test_an_allowed_protocol_that_nothing_opens_is_a_bad_model(monkeypatch):
    monkeypatch.setenv("MITORAY_SCHEMES", "gopher")
    with pytest.raises(BadModel, match="Protocol not known: gopher"):
        load_bundle("gopher://models/mitoray-s")
