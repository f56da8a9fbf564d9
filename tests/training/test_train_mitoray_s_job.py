import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mitoray.models import load_bundle
from mitoray.phantom import draw_patches
from mitoray.training import mitoray_s, quality
from mitoray.training.material import CROP_FILES, EVALUATION_FILE

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))
import train_mitoray_s


def webp(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True)
    return file.getvalue()


@pytest.fixture
def data_dir(tmp_path):
    """Material of the real layout, drawn instead of scanned."""
    (tmp_path / "crops").mkdir()
    (tmp_path / "negative_tissue").mkdir()
    images, _ = draw_patches("phantom-breast-a", n=30, size_px=128, seed=3)
    for name in (*CROP_FILES, EVALUATION_FILE):
        ids = [f"{name}/{i}" for i in range(len(images))]
        pq.write_table(pa.table({"crop_id": ids, "image": [webp(image) for image in images]}), tmp_path / name)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.concatenate(images[:4])).save(tmp_path / "negative_tissue" / name)
    return tmp_path


@pytest.mark.slow
def test_the_job_trains_judges_and_writes_a_bundle(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "SLIDE_UM", 100.0)
    monkeypatch.setattr(mitoray_s, "DOMAINS", ("phantom-breast-a",))
    output = tmp_path / "bundle"
    status = train_mitoray_s.main(
        ["--data-dir", str(data_dir), "--output", str(output), "--steps", "6", "--threads", "1"]
    )
    assert status == 0
    bundle = load_bundle(str(output))
    assert {metric.data for metric in bundle.metrics} == {"phantom", "real crops", "real tissue"}
    assert 0.1 <= bundle.threshold <= 0.95
    assert "all domains" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--minutes", "0"], ["--steps", "0"], ["--threads", "0"], []])
def test_bad_options_and_missing_material_end_with_status_2(tmp_path, capsys, options):
    assert train_mitoray_s.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "bundle"), *options]) == 2
    assert (options[0].strip("-") if options else "atnorm-br.parquet") in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
