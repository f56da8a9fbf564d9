import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mitoray.errors import BadOption
from mitoray.models import Bundle, Normalisation, Training, load_bundle, save_bundle
from mitoray.models.architectures import built
from mitoray.models.sources import SHIPPED
from mitoray.phantom import draw_patches
from mitoray.tracking import register_bundle

COLUMNS = ["image", "x_px", "y_px", "score"]


@pytest.fixture(scope="module")
def images():
    """Crops of drawn tissue, every third with a figure in it."""
    return draw_patches("phantom-breast-a", n=6, size_px=128, seed=5)[0]


@pytest.fixture(scope="module")
def registered(database):
    register_bundle(SHIPPED / "mitoray-s", "served", alias="champion", tracking_uri=database)


@pytest.fixture(scope="module")
def model(database, registered):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", database)
        return mlflow.pyfunc.load_model("models:/served@champion")


@pytest.fixture(scope="module")
def detected():
    """What the detector itself finds, as rows of the table."""
    bundle = load_bundle("mitoray-s")
    detector = bundle.detector()

    def detect(images, threshold=bundle.threshold):
        found = detector.detect(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), threshold)
        return [
            (number, *map(float, xy), float(score))
            for number, points in enumerate(found)
            for xy, score in zip(points.xy_px, points.scores, strict=True)
        ]

    return detect


def rows_of(table):
    return list(table[COLUMNS].itertuples(index=False, name=None))


def same(table, expected):
    assert list(table.columns) == COLUMNS
    assert rows_of(table) == [(n, x, y, pytest.approx(score, abs=1e-5)) for n, x, y, score in expected]


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_predictions_are_the_detectors_own(model, detected, images):
    expected = detected(images)
    assert len({row[0] for row in expected}) >= 2
    same(model.predict(images), expected)
    same(model.predict(list(images)), expected)


def test_images_may_come_as_files_in_a_table_also_in_base64(model, detected, images):
    files = [png(image) for image in images]
    same(model.predict(pd.DataFrame({"image": files})), detected(images))
    coded = [base64.b64encode(file).decode() for file in files]
    same(model.predict(pd.DataFrame({"image": coded})), detected(images))


def test_images_of_a_list_may_differ_in_size(model, detected, images):
    found = model.predict([images[1], images[4][:96, :112]])
    expected = detected(images[1:2]) + [(1, *row[1:]) for row in detected(images[4:5, :96, :112])]
    same(found, expected)


def test_the_threshold_is_the_bundles_unless_one_is_given(model, detected, images):
    lower = model.predict(images, params={"threshold": 0.01})
    same(lower, detected(images, 0.01))
    assert len(lower) > len(model.predict(images))
    assert model.metadata.get_params_schema().params[0].default == load_bundle("mitoray-s").threshold


def test_no_figures_give_an_empty_table_with_its_columns(model):
    found = model.predict(np.full((2, 64, 64, 3), 255, np.uint8))
    assert list(found.columns) == COLUMNS
    assert [str(kind) for kind in found.dtypes] == ["int64", "float32", "float32", "float32"]
    assert len(found) == 0
    assert len(model.predict([])) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), "image 0 is float32"),
        (np.full((1, 64, 64, 3), 300), "image 0 is int64"),
        (np.zeros((1, 64, 64, 4), np.uint8), "give RGB as uint8"),
        (np.zeros((64, 64, 3), np.uint8), "give RGB as uint8"),
        (pd.DataFrame({"picture": [b""]}), "give one named image"),
        (pd.DataFrame({"image": [b"no picture"]}), "image 0 is no PNG or JPEG"),
        (pd.DataFrame({"image": ["no base64!"]}), "image 0 is no PNG or JPEG"),
        (pd.DataFrame({"image": [None]}), "image 0 is no PNG or JPEG"),
    ],
)
def test_other_input_is_refused_with_what_is_wrong(model, given, message):
    with pytest.raises(BadOption, match=message):
        model.predict(given)


def test_a_clean_process_predicts_the_same_and_unpickles_nothing(database, registered, detected, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    script = Path(__file__).with_name("predict_without_pickle.py")
    subprocess.run(
        [sys.executable, script, "models:/served@champion", tmp_path / "images.npy", tmp_path / "found.json"],
        env={**os.environ, "MLFLOW_TRACKING_URI": database, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        check=True,
    )
    same(pd.DataFrame(json.loads((tmp_path / "found.json").read_text())), detected(images))


def test_a_registered_classifier_judges_patches(database, tmp_path, monkeypatch):
    folder = tmp_path / "classifier"
    settings = {"width": 0.25, "patch_px": 32}
    bundle = Bundle(
        name="judge",
        architecture="mitoray-c",
        settings=settings,
        mpp=0.5,
        threshold=0.5,
        thresholds={},
        normalisation=Normalisation(mean=(180.0, 140.0, 170.0), std=(40.0, 50.0, 40.0)),
        training=Training(data=("nothing",), licence="CC0", notes=()),
        metrics=(),
        weights=built("mitoray-c", settings).state_dict(),
    )
    save_bundle(bundle, bundle.weights, folder)
    register_bundle(folder, "judge", alias="champion", tracking_uri=database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    model = mlflow.pyfunc.load_model("models:/judge@champion")
    patches = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8))
    verdicts = bundle.classifier().classify(patches)
    table = model.predict(patches.permute(0, 2, 3, 1).numpy())
    assert list(table.columns) == ["image", "score", "atypical_probability"]
    np.testing.assert_allclose(table["score"], verdicts.members[:, 0], atol=1e-6)
    np.testing.assert_allclose(table["atypical_probability"], verdicts.atypical, atol=1e-6)
    with pytest.raises(BadOption, match="the classifier takes 32 by 32"):
        model.predict(np.zeros((1, 64, 64, 3), np.uint8))
