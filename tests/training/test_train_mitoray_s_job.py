import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitoray.models import load_bundle
from mitoray.training import quality
from mitoray.training.crops import read_crop_table
from mitoray.training.material import read_image, read_real
from mitoray.training.mitoray_s import MaterialFeed, Recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))
sys.path.insert(0, str(Path(__file__).parent))
import crops_of_phantoms_and_tissue
import train_mitoray_s
from shipped_material import lay_out


@pytest.fixture
def data_dir(tmp_path):
    return lay_out(tmp_path)


@pytest.mark.slow
def test_the_job_trains_judges_and_writes_a_bundle(data_dir, tmp_path, monkeypatch, capsys, ray_session):
    monkeypatch.setattr(quality, "SLIDE_UM", 100.0)
    output = tmp_path / "bundle"
    options = ["--data-dir", str(data_dir), "--output", str(output), "--epochs", "7", "--steps", "1", "--threads", "1"]
    assert train_mitoray_s.main(options) == 0
    bundle = load_bundle(str(output))
    assert bundle.mpp == 0.5
    assert bundle.settings["stride"] == 4
    assert {metric.data for metric in bundle.metrics} == {"phantom", "real crops", "real tissue"}
    assert 0.1 <= bundle.threshold <= 0.95
    assert "AMi-Br, scanner B" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--epochs", "0"], ["--steps", "0"], ["--threads", "0"], ["--model-mpp", "1"], []])
def test_bad_options_and_missing_material_end_with_status_2(tmp_path, capsys, options):
    assert train_mitoray_s.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "bundle"), *options]) == 2
    named = options[0].strip("-").replace("-", "_") if options else "atnorm-br.parquet"
    assert named in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_held_out_material_is_never_served(data_dir):
    real = read_real(data_dir)
    feed = MaterialFeed(data_dir, replace(Recipe(), steps=2, phantom_patches=3))
    served = {image.numpy().tobytes() for (batch, _) in next(iter(feed.epochs(0, 1, 0, 1))) for image in batch.images}
    assert len(served) > 50
    held = {corner(image) for image in real.held_out_crops.images}
    assert held
    assert not held & {corner(image) for image in real.crops.images}
    edge = real.tissue.shape[2]
    whole = read_image(sorted((data_dir / "negative_tissue").glob("*.jpg"))[0])
    assert (whole[:, :, :edge] == real.tissue).all()
    assert (whole[:, :, edge:] == real.held_out_tissue).all()


def corner(image):
    return image.numpy().tobytes()


@pytest.mark.slow
def test_crops_of_tissue_and_phantoms_go_with_published_ones(data_dir, tmp_path, capsys):
    output = tmp_path / "others/crops.parquet"
    options = ["--data-dir", str(data_dir), "--output", str(output)]
    assert crops_of_phantoms_and_tissue.main([*options, "--random-negatives", "40", "--phantom-patches", "3"]) == 0
    crops = read_crop_table(str(output))
    rows = crops.to_pylist()
    assert {(row["domain"], row["kind"]) for row in rows} >= {
        ("tissue", "random"),
        ("phantom", "mitotic_figure"),
        ("phantom", "imposter"),
    }
    assert not any(row["subtype"] for row in rows)
    assert f"{len(rows)} crops" in capsys.readouterr().out
    red = read_real(data_dir).tissue[0].numpy()
    of_tissue = [row for row in rows if row["domain"] == "tissue"]
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as image:
            assert image.width == image.height == pytest.approx(32 / row["mpp"], abs=0.5)
            if row is of_tissue[0]:
                found = np.lib.stride_tricks.sliding_window_view(red, image.size) == np.asarray(image)[..., 0]
                assert found.all(axis=(2, 3)).any()
    assert crops_of_phantoms_and_tissue.main([*options, "--random-negatives", "0"]) == 2
