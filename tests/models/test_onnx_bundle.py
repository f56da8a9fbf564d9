"""ONNX files as bundles, and the job that makes them."""

import json

import numpy as np
import pytest
import torch
from spot_onnx import drawn, file_of, spot_network

from mitoray.errors import BadModel, BadOption
from mitoray.models import load_bundle, save_bundle
from mitoray.models.onnx_bundle import bundle_from_onnx


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spots.onnx"
    path.write_bytes(file_of(spot_network("yolov8", side=256)))
    return path


def test_a_bundle_of_an_onnx_file_is_two_files_and_detects(file, tmp_path):
    bundle, weights = bundle_from_onnx(file, name="spots", mpp=0.25, threshold=0.4, overlap_px=64)
    digest = save_bundle(bundle, weights, tmp_path / "bundle")
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["bundle.json", "weights.safetensors"]
    loaded = load_bundle(str(tmp_path / "bundle"), expected_digest=digest)
    assert loaded.settings == {
        "size_bytes": file.stat().st_size,
        "window_px": 256,
        "overlap_px": 64,
        "figure_class": 0,
        "layout": "yolov8",
        "box_format": "cxcywh",
    }
    assert bytes(loaded.weights["onnx"].tolist()) == file.read_bytes()
    (points,) = loaded.detector().detect(drawn([(220, 50)], [0.8], 300, 300)[None], loaded.threshold)
    assert points.xy_px == pytest.approx(np.array([[220, 50]]), abs=0.01)
    assert points.scores == pytest.approx([0.8], abs=0.005)


def test_a_bundle_whose_file_was_cut_or_swapped_is_refused(file, tmp_path):
    bundle, weights = bundle_from_onnx(file, name="spots", mpp=0.25, threshold=0.4, overlap_px=64)
    with pytest.raises(BadModel, match="do not fit architecture 'onnx-yolo'"):
        save_bundle(bundle, {"onnx": weights["onnx"][:-1]}, tmp_path / "bundle")
    save_bundle(bundle, {"onnx": torch.zeros_like(weights["onnx"])}, tmp_path / "bundle")
    with pytest.raises(BadModel, match=r"holds no network|no ONNX"):
        load_bundle(str(tmp_path / "bundle")).detector()


def test_a_card_that_asks_for_a_giant_is_refused_before_anything_is_allocated(file, tmp_path):
    bundle, weights = bundle_from_onnx(file, name="spots", mpp=0.25, threshold=0.4, overlap_px=64)
    save_bundle(bundle, weights, tmp_path)
    card = json.loads((tmp_path / "bundle.json").read_text())
    for size, message in ((2**31 - 1, "do not fit"), (2**60, "size_bytes")):
        card["settings"]["size_bytes"] = size
        (tmp_path / "bundle.json").write_text(json.dumps(card))
        with pytest.raises(BadModel, match=message):
            load_bundle(str(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "message"), [({"mpp": 5.0}, "mpp"), ({"threshold": 2.0}, "threshold"), ({"name": "a b"}, "name")]
)
def test_values_that_no_bundle_may_have_are_a_bad_option(file, wrong, message):
    with pytest.raises(BadOption, match=message):
        bundle_from_onnx(file, **{"name": "spots", "mpp": 0.25, "threshold": 0.4, "overlap_px": 64, **wrong})


# ---- the job


def test_the_job_makes_a_bundle(file, tmp_path, job, capsys):
    options = ["--onnx", file, "--name", "spots", "--mpp", "0.25", "--threshold", "0.4", "--overlap-px", "64"]
    more = ["--thresholds", '{"breast": 0.3}', "--licence", "CC0", "--output", tmp_path / "bundle"]
    assert job("import_model")([str(word) for word in [*options, *more]]) == 0
    bundle = load_bundle(str(tmp_path / "bundle"))
    assert (bundle.name, bundle.mpp, bundle.threshold, bundle.thresholds) == ("spots", 0.25, 0.4, {"breast": 0.3})
    assert bundle.training.licence == "CC0"
    assert bundle.normalisation.std == (255.0,) * 3
    told = capsys.readouterr().out
    assert "layout yolov8" in told
    assert bundle.digest in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--onnx", "nowhere.onnx"], "cannot be read"),
        (["--overlap-px", "500"], "overlap_px 500"),
        (["--layout", "yolov5"], "layout yolov5"),
        (["--std", "[0, 1, 1]"], "std"),
        (["--mpp", "9"], "mpp"),
    ],
)
def test_the_job_ends_with_status_2_and_writes_nothing(file, tmp_path, job, capsys, options, message):
    sound = ["--onnx", str(file), "--name", "spots", "--mpp", "0.25", "--threshold", "0.4", "--overlap-px", "64"]
    assert job("import_model")([*sound, "--output", str(tmp_path / "bundle"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
