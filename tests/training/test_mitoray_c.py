import sys
from pathlib import Path

import pytest
import torch

from mitoray.models import load_bundle
from mitoray.scoring.config import Method
from mitoray.scoring.stages import check_stages
from mitoray.training.mitoray_c import judged_on_crops

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))
sys.path.insert(0, str(Path(__file__).parent))
import train_mitoray_c
from shipped_material import lay_out

DATA = Path(__file__).parents[3] / "shared/data"


def test_the_shipped_classifier_leaves_the_detectors_scores_and_tells_subtypes():
    detector, bundle = load_bundle("mitoray-s"), load_bundle("mitoray-c")
    check_stages(detector, bundle, Method(subtypes=True))
    assert bundle.combining.scores([0.3, 0.9], [[1.0], [0.0]]).tolist() == pytest.approx([0.3, 0.9])
    assert (bundle.threshold, bundle.mpp) == (detector.threshold, detector.mpp)
    classifier = bundle.classifier()
    images = torch.randint(0, 256, (4, 3, classifier.patch_px, classifier.patch_px), dtype=torch.uint8)
    atypical = classifier.classify(images).atypical
    assert ((atypical >= 0) & (atypical <= 1)).all()


@pytest.mark.skipif(not DATA.exists(), reason="the real crops are not here")
def test_the_card_states_what_the_shipped_classifier_does_on_real_crops():
    bundle = load_bundle("mitoray-c")
    stated = {metric.name: metric.value for metric in bundle.metrics}
    for name, found in judged_on_crops(bundle.classifier(), DATA, repeats=2).items():
        assert found.value == pytest.approx(stated[f"atypical or normal, {name}, AMi-Br"], abs=0.01)
        assert found.value > 0.70


@pytest.mark.slow
def test_the_job_trains_judges_and_writes_a_bundle(tmp_path, capsys, ray_session):
    output = tmp_path / "mitoray-c"
    options = ["--data-dir", lay_out(tmp_path / "data"), "--output", output, "--epochs", 1, "--subtype-epochs", 1]
    small = ["--patches", 64, "--random-negatives", 20, "--phantom-patches", 4, "--threads", 1]
    assert train_mitoray_c.main([str(word) for word in (*options, *small)]) == 0
    bundle = load_bundle(str(output))
    assert bundle.name == "mitoray-c"
    assert bundle.combining.detector_weight == 1
    names = [metric.name for metric in bundle.metrics]
    assert any("scanner B" in name for name in names)
    assert {metric.data for metric in bundle.metrics} == {"real crops"}
    assert "ROC AUC" in capsys.readouterr().out


def test_missing_material_ends_with_status_2(tmp_path, capsys):
    assert train_mitoray_c.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "bundle")]) == 2
    assert "atnorm-br.parquet" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
