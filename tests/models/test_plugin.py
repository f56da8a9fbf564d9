"""Plug-ins: modules of a user's own, written into a folder on the path."""

import hashlib
import importlib
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mitoray.errors import BadModel, BadOption
from mitoray.models import load_bundle, plugin
from mitoray.models.model import Model, load_model
from mitoray.models.plugin import load_plugin

SOUND = """
import numpy as np
import torch
from mitoray.models import Points
from mitoray.models.detector import checked_images, suppress


class Brightest:
    mpp, halo_um = 0.25, 16.0

    def __init__(self, device):
        self.device = device

    def detect(self, images, threshold):
        checked_images(images, threshold)
        cells = torch.nn.functional.avg_pool2d(images.to(self.device) / 255.0, 16).mean(1).numpy()
        places = [np.argwhere(cell >= threshold) for cell in cells]
        xy_px = [place[:, ::-1].astype(np.float32) * 16 + 7.5 for place in places]
        return [suppress(xy, cell[tuple(place.T)], 25) for xy, cell, place in zip(xy_px, cells, places)]


class Careful(Brightest):
    name = "careful"
    threshold = 0.9
    thresholds = {"breast": 0.7}


def build(device):
    return Brightest(device)


class Lab:
    best = Brightest
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a module into a folder on the path; what was imported from there is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def sound(written):
    return written("lab_detectors", SOUND)


def face(model: Model):
    return model.name, model.mpp, model.threshold, dict(model.thresholds)


def test_a_plug_in_has_the_face_of_a_bundle_and_detects(sound):
    model = load_plugin("python:lab_detectors:Brightest")
    assert face(model) == ("lab_detectors.Brightest", 0.25, 0.5, {})
    image = torch.zeros(1, 3, 100, 90, dtype=torch.uint8)
    image[:, :, 32:48, 64:80] = 204
    (points,) = model.detector().detect(image, model.threshold)
    assert points.xy_px.tolist() == [[71.5, 39.5]]
    assert points.scores == pytest.approx([0.8], abs=1e-5)


def test_a_plug_in_says_its_name_and_thresholds(sound):
    assert face(load_plugin("python:lab_detectors:Careful")) == ("careful", 0.25, 0.9, {"breast": 0.7})


def test_the_address_overrides_the_threshold(sound):
    for score in ("0.4", "0", "1"):
        assert load_plugin(f"python:lab_detectors:Careful?threshold={score}").threshold == float(score)


def test_only_a_model_of_the_users_own_may_be_code(sound):
    assert load_model("python:lab_detectors:build").name == "lab_detectors.build"
    with pytest.raises(BadModel):
        load_bundle("python:lab_detectors:build")


@pytest.mark.parametrize("attribute", ["build", "Lab.best"])
def test_functions_and_nested_attributes_build_detectors_too(sound, attribute):
    assert load_plugin(f"python:lab_detectors:{attribute}").mpp == 0.25


def test_modules_in_packages_are_found(written):
    written("our_lab.detectors", SOUND)
    assert load_plugin("python:our_lab.detectors:build").name == "our_lab.detectors.build"


def test_the_digest_follows_the_address_and_the_file(sound):
    first = load_plugin("python:lab_detectors:build").digest
    assert load_plugin("python:lab_detectors:build", expected_digest=first).digest == first
    assert load_plugin("python:lab_detectors:build?threshold=0.4").digest != first
    sound.write_text(f"{SOUND}\n# changed\n")
    with pytest.raises(BadModel, match="is not the expected"):
        load_plugin("python:lab_detectors:build", expected_digest=first)


def test_the_digest_follows_the_version_of_the_package(sound, tmp_path):
    first = load_plugin("python:lab_detectors:build").digest
    info = tmp_path / "our_lab-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-lab\nVersion: 1.2\n")
    (info / "RECORD").write_text("lab_detectors.py,,\nour_lab-1.2.dist-info/METADATA,,\n")
    importlib.invalidate_caches()
    parts = (b"python:lab_detectors:build", b"our-lab 1.2", SOUND.encode())
    expected = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
    assert load_plugin("python:lab_detectors:build").digest == expected != first


def test_a_missing_module_is_named_with_how_to_ship_it(sound):
    for module in ("nowhere_to_be_found", "nowhere_to_be_found.detectors"):
        with pytest.raises(BadModel, match=r"no module nowhere_to_be_found.*ray job submit --working-dir"):
            load_plugin(f"python:{module}:build")


def test_an_installed_package_is_found_with_its_version():
    for module in ("fsspec", "fsspec.core"):
        file = Path(importlib.import_module(module).__file__)
        assert plugin._version(module, file) == f"fsspec {version('fsspec')}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_installed_here", "cannot be imported .*not_installed_here"),
        ("1 / 0", "cannot be imported .ZeroDivisionError"),
        ("def build(:", "cannot be imported .SyntaxError"),
        ("", "has no build"),
        ("build = 3", "build is int, not callable"),
        ("def build(device): raise OSError('weights are gone')", "cannot be built .OSError: weights are gone"),
        ("def build(): pass", "cannot be built .TypeError"),
        ("def build(device): return None", "gives NoneType without mpp, halo_um, device, detect"),
        (f"{SOUND}\nBrightest.mpp = 40.0", "mpp 40.0 is no number from 0.1 to 2"),
        (f"{SOUND}\nBrightest.halo_um = None", "halo_um None"),
        (f"{SOUND}\nBrightest.device = property(lambda self: 'cpu', lambda self, place: None)", "device must be"),
        (f"{SOUND}\nBrightest.detect = 3", "detect callable"),
        (f"{SOUND}\nBrightest.detect = lambda self, images, threshold: 1 / 0", "blank image .ZeroDivisionError"),
        (f"{SOUND}\nBrightest.detect = lambda self, images: []", "blank image .TypeError"),
        (f"{SOUND}\nBrightest.detect = lambda self, images, threshold: []", "gives list for a blank image"),
        (f"{SOUND}\nBrightest.detect = lambda self, images, threshold: [(1, 2)]", "gives list for a blank image"),
        (
            f"{SOUND}\nBrightest.detect = lambda self, images, threshold: [Points(np.zeros((3, 4)), np.zeros(3))]",
            r"points of shape \(3, 4\)",
        ),
        (f"{SOUND}\nbuild.threshold = 2", "threshold 2 is no number"),
        (f"{SOUND}\nbuild.threshold = 'high'", "threshold 'high' is no number"),
        (f"{SOUND}\nbuild.thresholds = 0.5", "thresholds are float"),
        (f"{SOUND}\nbuild.thresholds = {{'breast': None}}", "threshold None is no number"),
        (f"{SOUND}\nbuild.name = 'a b'", "name 'a b' must be"),
    ],
    ids=lambda value: value.splitlines()[-1][:50] if value else "empty",
)
def test_what_is_no_detector_is_refused(written, text, message):
    written("bad_detectors", text)
    with pytest.raises(BadModel, match=f"python:bad_detectors:build.*{message}"):
        load_plugin("python:bad_detectors:build")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("python:lab_detectors", "write python:package.module:attribute"),
        ("python:lab_detectors:", "write python:package.module:attribute"),
        ("python:../lab_detectors:build", "write python:package.module:attribute"),
        ("python:lab_detectors:build()", "write python:package.module:attribute"),
        ("python:lab_detectors:build?thresold=0.4", "thresold is no option"),
        ("python:lab_detectors:build?", "is no option"),
        ("python:lab_detectors:build?threshold=", "threshold '' is no number"),
        ("python:lab_detectors:build?threshold=2", "threshold '2' is no number"),
        ("python:lab_detectors:build?threshold=nan", "threshold 'nan' is no number"),
    ],
)
def test_a_malformed_address_is_refused(sound, address, message):
    with pytest.raises(BadModel, match=message):
        load_plugin(address)


def test_devices_and_threads_are_those_of_bundles(sound):
    model = load_plugin("python:lab_detectors:build")
    with pytest.raises(BadOption, match="unknown"):
        model.detector("abacus")
    with pytest.raises(BadOption, match="below 1"):
        model.detector(threads=0)
    before = torch.get_num_threads()
    try:
        model.detector(threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_example_of_the_documentation_works(written):
    lines = plugin.__doc__.splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("    "))
    imports = "import numpy as np\nimport torch\nfrom mitoray.models.detector import suppress\n"
    written("documented", imports + example)
    image = torch.full((1, 3, 100, 100), 255, dtype=torch.uint8)
    image[:, :, 50:75, 25:50] = 51
    (points,) = load_plugin("python:documented:Darkest").detector().detect(image, 0.5)
    assert points.xy_px.tolist() == [[37.0, 62.0]]
    assert points.scores == pytest.approx([0.8], abs=1e-5)
