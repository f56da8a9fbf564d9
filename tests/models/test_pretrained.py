import os
import pickle
import sys
from pathlib import Path

import boto3
import pytest
import safetensors.torch
import torch
from torchvision.models import resnet18, resnet34

sys.path.append(str(Path(__file__).parents[1] / "slide"))
from range_server import serving

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Normalisation, Training, save_bundle
from mitoray.models.architectures import built
from mitoray.models.pretrained import initial_weights


class Trap:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def published():
    """A ResNet-18 with its classifier, as torchvision publishes them: older than the counters of batch norms."""
    torch.manual_seed(3)
    state = resnet18(weights=None).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    return built("retinanet", {"channels": 32})


def bundle_of(architecture, **settings):
    return Bundle(
        name="earlier",
        architecture=architecture,
        settings=settings,
        mpp=0.25,
        threshold=0.5,
        thresholds={},
        normalisation=Normalisation(mean=(180, 140, 170), std=(40, 50, 40)),
        training=Training(data=(), licence="MIT", notes=()),
        metrics=(),
    )


def assert_taken(weights, network, published):
    """The body is the published one, all else the network's, and the network takes it."""
    own = network.state_dict()
    for name, tensor in weights.items():
        place = name.removeprefix("backbone.stem.").removeprefix("backbone.layers.")
        if name.startswith("backbone.layers."):
            place = f"layer{int(place[0]) + 1}{place[1:]}"
        expected = published.get(place) if name.startswith(("backbone.stem.", "backbone.layers.")) else own[name]
        if expected is None:
            assert name.endswith("num_batches_tracked")
            expected = own[name]
        assert torch.equal(tensor, expected), name
    fresh = built("retinanet", {"channels": 32})
    fresh.load_state_dict(weights)
    assert torch.equal(fresh.backbone.stem.conv1.weight, published["conv1.weight"])


def test_weights_come_from_safetensors(tmp_path, network, published):
    safetensors.torch.save_file(published, tmp_path / "resnet18.safetensors")
    assert_taken(initial_weights(str(tmp_path / "resnet18.safetensors"), network), network, published)


def test_weights_come_from_a_pth_file_of_tensors(tmp_path, network, published):
    torch.save(published, tmp_path / "resnet18.pth")
    assert_taken(initial_weights(f"file://{tmp_path}/resnet18.pth", network), network, published)


def test_counters_of_batch_norms_are_taken_where_they_are_given(tmp_path, network, published):
    torch.save({**published, "bn1.num_batches_tracked": torch.tensor(77)}, tmp_path / "resnet18.pth")
    weights = initial_weights(str(tmp_path / "resnet18.pth"), network)
    assert weights["backbone.stem.bn1.num_batches_tracked"] == 77
    assert weights["backbone.layers.0.0.bn1.num_batches_tracked"] == 0


def test_a_body_computes_what_the_published_network_computes(tmp_path, network, published):
    torch.save(published, tmp_path / "resnet18.pth")
    fresh = built("fcos", {"channels": 32, "level": 5}).eval()
    fresh.load_state_dict(initial_weights(str(tmp_path / "resnet18.pth"), fresh))
    theirs = resnet18(weights=None).eval()
    theirs.load_state_dict(published)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = fresh.backbone.stem(x)
        for layer in fresh.backbone.layers:
            features = layer(features)
        expected = theirs.fc(features.mean(dim=(2, 3)))
        torch.testing.assert_close(theirs(x), expected)


def test_weights_come_over_http_whatever_the_query(tmp_path, network, published):
    torch.save(published, tmp_path / "resnet18.pth")
    with serving(tmp_path) as server:
        weights = initial_weights(f"{server.url}/resnet18.pth?signature=abc", network, {"key": "for s3 only"})
    assert_taken(weights, network, published)


def test_weights_come_from_s3(tmp_path, network, published, s3):
    safetensors.torch.save_file(published, tmp_path / "r.safetensors")
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=s3["endpoint_url"], region_name="us-east-1", **keys)
    client.upload_file(str(tmp_path / "r.safetensors"), "slides", "weights/r.safetensors")
    assert_taken(initial_weights("s3://slides/weights/r.safetensors", network, s3), network, published)
    with pytest.raises(BadModel, match=r"s3://slides/weights/gone\.safetensors: cannot be read as weights"):
        initial_weights("s3://slides/weights/gone.safetensors", network, s3)


@pytest.mark.parametrize("architecture", ["retinanet", "fcos", "mitoray-s"])
def test_a_bundle_of_the_same_architecture_gives_all_its_weights(tmp_path, architecture):
    settings = {} if architecture == "mitoray-s" else {"channels": 32}
    torch.manual_seed(8)
    earlier, later = (built(architecture, settings) for _ in range(2))
    save_bundle(bundle_of(architecture, **settings), earlier.state_dict(), tmp_path / "bundle")
    later.load_state_dict(initial_weights(str(tmp_path / "bundle"), later))
    assert all(torch.equal(a, b) for a, b in zip(earlier.parameters(), later.parameters(), strict=True))


def test_a_bundle_of_another_network_is_refused(tmp_path, network):
    other = built("mitoray-s", {})
    save_bundle(bundle_of("mitoray-s"), other.state_dict(), tmp_path / "bundle")
    with pytest.raises(BadModel, match="weights of another network"):
        initial_weights(str(tmp_path / "bundle"), network)
    wider = built("retinanet", {"channels": 64})
    save_bundle(bundle_of("retinanet", channels=64), wider.state_dict(), tmp_path / "wider")
    with pytest.raises(BadModel, match="weights of another network"):
        initial_weights(str(tmp_path / "wider"), network)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, network, published):
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    torch.save({**published, "trap": Trap(tmp_path / "sprung")}, tmp_path / "zipped.pth")
    for name in ("plain.pth", "zipped.pth"):
        with pytest.raises(BadModel, match=r"cannot be read as weights \(UnpicklingError\)"):
            initial_weights(str(tmp_path / name), network)
        assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())  # the trap itself works  # noqa: S301
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 7, 100_000])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path, network, published, suffix, kept):
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(published, path)
    else:
        safetensors.torch.save_file(published, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadModel, match=r"truncated or not safetensors|cannot be read as weights"):
        initial_weights(str(path), network)


def test_weights_that_are_no_resnet18_are_refused(tmp_path, network, published):
    torch.save(resnet34(weights=None).state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(BadModel, match=r"another network: \d+ tensors differ, first 'backbone\.layers\.0\.2"):
        initial_weights(str(tmp_path / "deeper.pth"), network)
    torch.save({**published, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(BadModel, match=r"first 'backbone\.stem\.conv1\.weight'"):
        initial_weights(str(tmp_path / "grey.pth"), network)
    torch.save({n: t for n, t in published.items() if not n.startswith("layer4.1")}, tmp_path / "short.pth")
    with pytest.raises(BadModel, match="no ResNet-18: it lacks 10 tensors"):
        initial_weights(str(tmp_path / "short.pth"), network)
    torch.save({"state_dict": published, "epoch": 3, 5: "five"}, tmp_path / "nested.pth")
    with pytest.raises(BadModel, match="no ResNet-18: it lacks 100 tensors"):
        initial_weights(str(tmp_path / "nested.pth"), network)
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(BadModel, match="cannot be read as weights"):
        initial_weights(str(tmp_path / "list.pth"), network)


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
def test_a_network_without_a_resnet_takes_none(tmp_path, published, name):
    torch.save(published, tmp_path / "resnet18.pth")
    safetensors.torch.save_file(published, tmp_path / "resnet18.safetensors")
    with pytest.raises(BadOption, match="only retinanet and fcos have a ResNet-18"):
        initial_weights(str(tmp_path / name), built("mitoray-s", {}))
    with pytest.raises(BadOption, match="imagenet: only retinanet and fcos"):
        initial_weights("imagenet", built("mitoray-s", {}))


def test_what_cannot_be_had_is_named_without_its_secrets(tmp_path, network):
    with pytest.raises(BadModel, match=r"gone\.pth: cannot be read as weights \(FileNotFoundError\)"):
        initial_weights(str(tmp_path / "gone.pth"), network)
    with serving(tmp_path) as server:
        address = server.url.replace("http://", "http://user:hidden-value@")
        with pytest.raises(BadModel, match=r"gone\.pth: cannot be read") as refused:
            initial_weights(f"{address}/gone.pth?token=hidden-value", network)
    assert "hidden-value" not in str(refused.value)
    with pytest.raises(BadModel, match=r"no weights\.safetensors there"):
        initial_weights(str(tmp_path / "no-bundle"), network)
