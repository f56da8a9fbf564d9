import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mitoray.errors import BadModel, BadOption
from mitoray.models import load_bundle, save_bundle
from mitoray.models.heatmap import HeatmapNet


class Trap:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def shipped():
    return load_bundle("mitoray-s")


@pytest.fixture
def folder(shipped, tmp_path):
    save_bundle(shipped, shipped.weights, tmp_path / "bundle")
    return tmp_path / "bundle"


def edit_card(folder, **changes):
    card = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**card, **changes}))


def edit_weights(folder, edit):
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    edit(weights)
    safetensors.torch.save_file(weights, folder / "weights.safetensors")


def test_a_bundle_comes_back_as_it_was_saved(shipped, folder):
    loaded = load_bundle(str(folder))
    assert loaded.model_dump() == shipped.model_dump()
    assert loaded.weights.keys() == shipped.weights.keys()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in shipped.weights.items())


def test_the_same_bundle_is_the_same_bytes(shipped, folder, tmp_path):
    backwards = dict(reversed(shipped.weights.items()))
    assert save_bundle(shipped, backwards, tmp_path / "again") == load_bundle(str(folder)).digest
    for name in ("weights.safetensors", "bundle.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_digest_is_sha256_over_weights_and_json(folder):
    import hashlib

    both = (folder / "weights.safetensors").read_bytes() + (folder / "bundle.json").read_bytes()
    assert load_bundle(str(folder)).digest == hashlib.sha256(both).hexdigest()


def test_an_expected_digest_lets_only_that_bundle_in(folder):
    digest = load_bundle(str(folder)).digest
    assert load_bundle(str(folder), expected_digest=digest).digest == digest
    edit_card(folder, threshold=0.123)
    with pytest.raises(BadModel, match="not the expected"):
        load_bundle(str(folder), expected_digest=digest)
    with pytest.raises(BadOption, match="64 hexadecimal digits"):
        load_bundle(str(folder), expected_digest="../escape")


@pytest.mark.parametrize("missing", ["weights.safetensors", "bundle.json"])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(BadModel, match=f"no {missing}"):
        load_bundle(str(folder))


def test_a_missing_folder_is_a_bad_model(tmp_path):
    with pytest.raises(BadModel, match=r"no weights\.safetensors there"):
        load_bundle(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "pytorch_model.bin"])
def test_pickled_weights_are_refused_unread(folder, tmp_path, name):
    (folder / "weights.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(BadModel, match=f"pickled weights \\({name}\\)"):
        load_bundle(str(folder))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json"])
def test_a_pickle_under_an_honest_name_is_not_unpickled(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(BadModel, match=name):
        load_bundle(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_another_schema_version_is_refused(folder):
    edit_card(folder, schema_version=2)
    with pytest.raises(BadModel, match="schema_version is not 1"):
        load_bundle(str(folder))


def test_an_unknown_architecture_is_refused_and_the_known_are_named(folder):
    edit_card(folder, architecture="resnet-9000")
    with pytest.raises(BadModel, match="'resnet-9000' is unknown; this version knows mitoray-s"):
        load_bundle(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"mpp": 0.0},
        {"mpp": "0.25"},
        {"mpp": float("nan")},
        {"threshold": 1.5},
        {"thresholds": {"breast": -0.1}},
        {"normalisation": {"mean": [1, 2, 3], "std": [1, 0, 1]}},
        {"normalisation": {"mean": [1, 2], "std": [1, 1, 1]}},
        {"metrics": [{"name": "F1", "value": 0.9, "data": "hearsay"}]},
        {"name": "../up"},
        {"extra": "field"},
        {"digest": "0" * 64},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_a_card_is_validated_strictly(folder, changes):
    edit_card(folder, **changes)
    with pytest.raises(BadModel, match=next(iter(changes))):
        load_bundle(str(folder))


@pytest.mark.parametrize(("field", "message"), [("mpp", "mpp: Field required"), ("schema_version", "not 1")])
def test_a_card_that_lacks_a_field_is_refused(folder, field, message):
    card = json.loads((folder / "bundle.json").read_text())
    del card[field]
    (folder / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match=message):
        load_bundle(str(folder))


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, kept):
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[:kept])
    with pytest.raises(BadModel, match="truncated or not safetensors"):
        load_bundle(str(folder))


@pytest.mark.parametrize(
    "edit",
    [
        lambda weights: weights.pop("centre.bias"),
        lambda weights: weights.update({"centre.bias": torch.zeros(2)}),
        lambda weights: weights.update({"centre.bias": torch.zeros(1, dtype=torch.float64)}),
        lambda weights: weights.update({"more": torch.zeros(1)}),
    ],
    ids=["missing", "shape", "dtype", "surplus"],
)
def test_weights_that_do_not_fit_are_refused(folder, edit):
    edit_weights(folder, edit)
    with pytest.raises(BadModel, match="do not fit architecture"):
        load_bundle(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(shipped, folder, tmp_path, value):
    edit_weights(folder, lambda weights: weights["centre.bias"].fill_(value))
    with pytest.raises(BadModel, match=r"NaN or infinity, first in 'centre\.bias'"):
        load_bundle(str(folder))
    with pytest.raises(BadModel, match="NaN or infinity"):
        save_bundle(shipped, {**shipped.weights, "centre.bias": torch.tensor([value])}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("device", "message"), [("abacus", "unknown"), ("cuda:99", "GPUs"), ("mps", "not supported")])
def test_a_device_that_is_not_there_is_a_bad_option(shipped, device, message):
    with pytest.raises(BadOption, match=message):
        shipped.detector(device)


def test_the_number_of_threads_can_be_set(shipped):
    before = torch.get_num_threads()
    try:
        shipped.detector(threads=1)
        assert torch.get_num_threads() == 1
        with pytest.raises(BadOption, match="below 1"):
            shipped.detector(threads=0)
    finally:
        torch.set_num_threads(before)


def settled(shipped, **settings):
    """A bundle of the heat-map network with these settings, and fitting weights."""
    torch.manual_seed(0)
    return shipped.model_copy(update={"settings": settings}), HeatmapNet(**settings).state_dict()


@pytest.mark.parametrize(
    "settings", [{}, {"width": 0.5}, {"stride": 2}, {"width": 2, "stride": 2}], ids=lambda settings: str(settings)
)
def test_a_bundle_keeps_the_settings_of_its_network(shipped, tmp_path, settings):
    bundle, weights = settled(shipped, **settings)
    save_bundle(bundle, weights, tmp_path / "settled")
    loaded = load_bundle(str(tmp_path / "settled"))
    assert loaded.settings == settings
    heat = loaded.detector().heatmap(torch.zeros(1, 3, 50, 70, dtype=torch.uint8))
    stride = settings.get("stride", 4)
    assert heat.shape == (1, -(-50 // stride), -(-70 // stride))
    assert sum(t.numel() for t in loaded.weights.values()) == sum(t.numel() for t in weights.values())


def test_weights_of_other_settings_are_refused(shipped, tmp_path):
    bundle, weights = settled(shipped, width=0.5)
    save_bundle(bundle, weights, tmp_path)
    edit_card(tmp_path, settings={"width": 1.0})
    with pytest.raises(BadModel, match="do not fit architecture 'mitoray-s'"):
        load_bundle(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100.0}, "width 100.0 lies outside 0.25 to 4"),
        ({"stride": 3}, "stride 3 is not offered"),
        ({"stride": "4"}, "stride must be int, not '4'"),
        ({"height": 2}, "has no setting 'height'; it has width, stride"),
        ({"width": [1, 2]}, "settings"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(folder, settings, message):
    edit_card(folder, settings=settings)
    with pytest.raises(BadModel, match=message):
        load_bundle(str(folder))
