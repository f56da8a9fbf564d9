"""Two stages on a real phantom slide, held to a recomputation candidate by candidate."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stage_models import classifier_bundle, detector_bundle, ensemble_bundle, saved

from mitoray.errors import BadModel, BadOption, OutputBelongsToAnotherRun
from mitoray.models import Combination, load_bundle
from mitoray.phantom import draw_cohort
from mitoray.scoring import stages
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.patches import patches_around
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.run import Run
from mitoray.scoring.schema import CANDIDATE, DETECTIONS, SCORES
from mitoray.scoring.score import RegionReader, RegionScorer
from mitoray.scoring.stages import DETECTOR_THRESHOLD, Levels, SecondStage, classifier_scores
from mitoray.slide import Rect, open_slide

WIDTH_PX, HEIGHT_PX = 1000, 760
REGION_UM = 128.0


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of 0.25 µm/px and one level, all of it tissue by its mask, so that its edges are scored too."""
    folder = tmp_path_factory.mktemp("slide")
    size = {"width_px": WIDTH_PX, "height_px": HEIGHT_PX, "domains": ["phantom-lymphoma-a"]}
    manifest, _ = draw_cohort(folder, n_slides=1, seed=410_000, **size)
    Image.new("L", (100, 76), 255).save(folder / "everywhere.png")
    return ManifestRow(**manifest.to_pylist()[0], tissue_uri=str(folder / "everywhere.png"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """URIs of a detector and of an ensemble that sees further than it."""
    folder = tmp_path_factory.mktemp("models")
    return saved(detector_bundle(), folder / "detector"), saved(ensemble_bundle(), folder / "ensemble")


METHOD = Method(region_um=REGION_UM, detector_threshold=0.9, candidate_threshold=0.05)


@pytest.fixture(scope="module")
def run(ray_session, slide, models, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "out"
    run = Run.claim(Cohort([slide], models[0], str(output), METHOD, classifier=models[1]))
    slides = score_cohort(run, Resources(num_actors=1), progress=False)
    return run, slides.to_pylist()[0]


@pytest.fixture(scope="module")
def detections(run):
    return run[0].folder.read_table(run[1]["detections_file"])


def patches_read_anew(slide, table, mpp, patch_px):
    """The patch around each detection, each read by itself: uint8 (n, 3, patch_px, patch_px)."""
    with open_slide(slide.uri) as pixels:
        side_px = round(patch_px * mpp / pixels.mpp)
        rects = [
            Rect(round(x) - side_px // 2, round(y) - side_px // 2, side_px, side_px)
            for x, y in zip(table["x_px"].to_pylist(), table["y_px"].to_pylist(), strict=True)
        ]
        images = np.stack([pixels.read_region(rect, mpp) for rect in rects])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_every_score_is_that_of_the_patch_read_around_the_candidate(slide, models, detections):
    ensemble = load_bundle(models[1])
    assert detections.num_rows > 40
    verdicts = ensemble.classifier().classify(patches_read_anew(slide, detections, 0.25, 128))
    members = np.array(detections["member_scores"].to_pylist())
    assert np.ptp(members, axis=0).min() > 0.05
    np.testing.assert_allclose(members, verdicts.members, atol=1e-4)
    np.testing.assert_allclose(detections["atypical_probability"], verdicts.atypical, atol=1e-4)
    np.testing.assert_allclose(detections["classifier_score"], members @ [0.75, 0.25], atol=1e-5)
    by_hand = (members @ [3.0, 1.0] + detections["detector_score"].to_numpy()) / 5
    np.testing.assert_allclose(detections["score"], by_hand, atol=1e-5)


def test_candidates_at_the_slides_edge_are_classified_with_white_beyond_it(slide, models, detections):
    x, y = detections["x_px"].to_numpy(), detections["y_px"].to_numpy()
    edge = np.minimum.reduce([x, y, WIDTH_PX - 1 - x, HEIGHT_PX - 1 - y]) < 40
    assert edge.sum() >= 5
    table = detections.filter(edge)
    with open_slide(slide.uri) as pixels:
        whole = pixels.read_region(Rect(0, 0, WIDTH_PX, HEIGHT_PX), 0.25)
    padded = np.pad(whole, ((64, 64), (64, 64), (0, 0)), constant_values=255)
    places = zip(table["x_px"].to_pylist(), table["y_px"].to_pylist(), strict=True)
    cut = np.stack([padded[int(y) : int(y) + 128, int(x) : int(x) + 128] for x, y in places])
    verdicts = load_bundle(models[1]).classifier().classify(torch.from_numpy(cut).permute(0, 3, 1, 2))
    np.testing.assert_allclose(np.array(table["member_scores"].to_pylist()), verdicts.members, atol=1e-4)


def test_candidates_on_borders_of_regions_see_past_them(run, slide, detections):
    """Their patches reach further than the detector's own halo."""
    assert run[0].halo_um() > run[0].bundle.detector().halo_um
    core_px = REGION_UM / 0.25
    x = detections["x_px"].to_numpy()
    near = (np.abs(x - core_px) < 16) | (np.abs(detections["y_px"].to_numpy() - core_px) < 16)
    assert near.sum() >= 3


def test_the_best_final_score_of_a_neighbourhood_stays_and_all_reach_the_lowest(detections):
    assert detections.schema == DETECTIONS
    scores = detections["score"].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert scores.min() >= METHOD.candidate_threshold
    assert detections["detector_score"].to_numpy().min() >= METHOD.detector_threshold
    xy_um = np.column_stack([detections["x_px"], detections["y_px"]]) * 0.25
    distances = np.linalg.norm(xy_um[:, None] - xy_um, axis=2) + np.eye(len(xy_um)) * 1e6
    assert distances.min() > METHOD.nms_radius_um


def test_what_counts_is_the_classifiers_own_threshold_of_the_domain(run, detections):
    assert run[1]["threshold"] == 0.45
    assert run[1]["n_detections"] == (detections["score"].to_numpy() >= 0.45).sum() > 0


def test_the_record_names_both_models_and_the_seconds_of_each(run, models):
    record = run[0].folder.read_json("run.json")
    assert record["status"] == "complete"
    assert record["identity"]["classifier_digest"] == load_bundle(models[1]).digest
    assert record["classifier"] == {
        "name": "pair",
        "mpp": 0.25,
        "uri": models[1],
        "digest": load_bundle(models[1]).digest,
        "members": ["mitoray-c-1", "mitoray-c-2"],
    }
    assert set(record["actor_seconds"]) == {"fetch", "decode", "detect", "classify", "wait"}
    assert record["actor_seconds"]["classify"] > 0


def test_geojson_tells_atypical_figures_by_name_and_colour(run, detections):
    document = json.loads(run[0].folder.read_bytes(run[1]["geojson_file"]))
    points = [f["properties"] for f in document["features"] if f["geometry"]["type"] == "Point"]
    atypical = detections["atypical_probability"].to_numpy() >= 0.5
    assert 0 < atypical.sum() < len(atypical)
    named = [p["classification"]["name"] == "Atypical mitotic figure" for p in points]
    assert named == atypical.tolist()
    assert len({(p["classification"]["name"], *p["classification"]["color"]) for p in points}) == 2
    assert {"classifier_score", "atypical_probability"} <= points[0]["measurements"].keys()


def test_another_classifier_does_not_resume_the_run(run, slide, models, tmp_path):
    folder = run[0].folder.uri
    other = saved(classifier_bundle(7), tmp_path / "other")
    with pytest.raises(OutputBelongsToAnotherRun, match=r"classifier_digest: was [0-9a-f]{64}, is [0-9a-f]{64}"):
        Run.claim(Cohort([slide], models[0], folder, METHOD, classifier=other))
    single = Method(region_um=REGION_UM, candidate_threshold=0.05)
    with pytest.raises(OutputBelongsToAnotherRun, match=r"classifier_digest: was [0-9a-f]{64}, is None"):
        Run.claim(Cohort([slide], models[0], folder, single))
    copy = saved(ensemble_bundle(), tmp_path / "copy")
    assert Run.claim(Cohort([slide], models[0], folder, METHOD, classifier=copy)).status == "complete"


@pytest.mark.slow
def test_a_run_recorded_before_there_were_classifiers_is_resumed(ray_session, slide, models, tmp_path):
    """Its record lacks the settings and its scores the column that came with them."""
    cohort = Cohort([slide], models[0], str(tmp_path / "out"), Method(region_um=REGION_UM, threshold=0.9))
    run = Run.claim(cohort)
    before = score_cohort(run, Resources(num_actors=1), progress=False)
    detections = run.folder.read_table(before["detections_file"][0].as_py())
    assert detections.num_rows > 5
    assert {detections[name].null_count for name in ("classifier_score", "atypical_probability", "member_scores")} == {
        detections.num_rows
    }
    assert detections["score"].equals(detections["detector_score"])
    record = run.folder.read_json("run.json")
    assert "classifier" not in record
    record["status"] = "running"
    for name in ("classifier", "classifier_digest"):
        del record["identity"][name]
    for name in ("detector_threshold", "subtypes"):
        del record["identity"]["method"][name]
    run.folder.write_json("run.json", record)
    older = pa.list_(pa.struct([field for field in CANDIDATE if field.name != "member_scores"]))
    schema = SCORES.set(SCORES.get_field_index("candidates"), pa.field("candidates", older))
    for name in run.folder.names("work/scores", ".parquet"):
        rows = run.folder.read_table(name).to_pylist()
        for candidate in (candidate for row in rows for candidate in row["candidates"]):
            del candidate["member_scores"]
        run.folder.write_table(name, pa.Table.from_pylist(rows, schema=schema))
    again = Run.claim(cohort)
    assert score_cohort(again, Resources(num_actors=1), progress=False).equals(before)
    assert again.folder.read_table(before["detections_file"][0].as_py()).equals(detections)


def test_a_coarser_classifier_sees_what_the_slide_gives_at_its_resolution(slide):
    """Crops are resampled on the device as the slide's own reading does."""
    points = np.array([[300.0, 300.0], [512.0, 200.0], [40.0, 700.0], [996.0, 756.0]])
    with open_slide(slide.uri, reduced_decode=False) as pixels:
        image = torch.from_numpy(pixels.read_region(Rect(0, 0, WIDTH_PX, HEIGHT_PX), 0.25).copy())
        expected = np.stack([pixels.read_region(Rect(int(x) - 64, int(y) - 64, 128, 128), 0.5) for x, y in points])
    patches = patches_around(image, points, image_mpp=0.25, mpp=0.5, patch_px=64).permute(0, 2, 3, 1).numpy()
    difference = np.abs(patches.astype(int) - expected.astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.2
    assert expected.std() > 10


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    points=st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 45)), min_size=0, max_size=4),
    side=st.sampled_from([2, 8, 16, 33]),
)
def test_patches_are_those_of_the_image_in_endless_white(shape, points, side):
    image = np.random.default_rng(3).integers(0, 255, (*shape, 3), dtype=np.uint8)
    xy = np.array(points).reshape(-1, 2)
    patches = patches_around(torch.from_numpy(image), xy, image_mpp=0.25, mpp=0.25, patch_px=side)
    assert patches.shape == (len(xy), 3, side, side)
    for patch, (x, y) in zip(patches.permute(0, 2, 3, 1).numpy(), xy, strict=True):
        left, top = int(np.ceil(x - side / 2)), int(np.ceil(y - side / 2))
        expected = np.full((side, side, 3), 255, np.uint8)
        for row in range(side):
            for column in range(side):
                if 0 <= top + row < shape[0] and 0 <= left + column < shape[1]:
                    expected[row, column] = image[top + row, left + column]
        np.testing.assert_array_equal(patch, expected)
        assert abs(left + (side - 1) / 2 - x) <= 0.5 + 1e-9


def test_a_crowd_of_candidates_is_classified_in_bounded_batches(models, monkeypatch):
    second = SecondStage(load_bundle(models[1]), 0.0)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    xy = np.random.default_rng(1).uniform(0, 199, (11, 2))
    given_to = (image, 0.25, xy, xy, np.full(11, 0.5, np.float32))
    whole = second.judged(*given_to)
    monkeypatch.setattr(stages, "BATCH", 4)
    parts = second.judged(*given_to)
    for name in ("score", "atypical_probability"):
        np.testing.assert_allclose([row[name] for row in parts], [row[name] for row in whole], atol=1e-5)
    assert [row["x_px"] for row in parts] == xy[:, 0].tolist()


def test_a_detector_of_ones_own_has_a_second_stage_as_well(slide, models, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "grid_of_points.py").write_text(
        "import numpy as np\n"
        "from mitoray.models import Points\n"
        "class Everywhere:\n"
        "    mpp, halo_um, threshold = 0.25, 4.0, 0.9\n"
        "    def __init__(self, device):\n"
        "        self.device = device\n"
        "    def detect(self, images, threshold):\n"
        "        x, y = np.meshgrid(np.arange(20, images.shape[3], 100), np.arange(20, images.shape[2], 100))\n"
        "        xy = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)\n"
        "        return [Points(xy, np.full(len(xy), 0.2, np.float32)) for _ in images]\n"
    )
    uri = "python:grid_of_points:Everywhere"
    method = Method(region_um=REGION_UM, candidate_threshold=0.01)
    with pytest.raises(BadOption, match="second stage"):
        Run.claim(Cohort([slide], uri, str(tmp_path / "no"), Method(detector_threshold=0.3)))
    run = Run.claim(Cohort([slide], uri, str(tmp_path / "out"), method, classifier=models[1]))
    assert run.levels == Levels(DETECTOR_THRESHOLD, 0.01)
    sizes = {"region_um": REGION_UM, "halo_um": run.halo_um()}
    regions = regions_of(plan_slide(slide, **sizes), slide.uri, **sizes).to_pylist()
    second = SecondStage.of(run.cohort, run.identity.classifier_digest, run.levels.final, "cpu")
    scorer = RegionScorer(RegionReader([slide], 0.25), run.bundle.detector(), run.levels.detector, second=second)
    found = [candidate for row in scorer.score(regions) for candidate in row["candidates"]]
    assert len(found) > 20
    table = pa.Table.from_pylist([{"slide_id": "s", **row} for row in found], schema=DETECTIONS)
    verdicts = load_bundle(models[1]).classifier().classify(patches_read_anew(slide, table, 0.25, 128))
    np.testing.assert_allclose([row["member_scores"] for row in found], verdicts.members, atol=1e-4)


def claimed(slide, tmp_path, *, model="mitoray-s", method=None, classifier):
    return Run.claim(Cohort([slide], model, str(tmp_path / "out"), method or Method(), classifier=classifier))


def test_models_that_cannot_work_together_are_refused_before_anything_starts(slide, models, tmp_path):
    finer = saved(classifier_bundle(mpp=0.25), tmp_path / "finer")
    with pytest.raises(
        BadModel, match=r"mitoray-c-1 takes 0\.25 µm/px, finer than the 0\.5 µm/px that model mitoray-s"
    ):
        claimed(slide, tmp_path, classifier=finer)
    near = saved(classifier_bundle(mpp=0.49), tmp_path / "near")
    assert claimed(slide, tmp_path, classifier=near).deciding.name == "mitoray-c-1"
    untold = saved(classifier_bundle(mpp=0.5, subtypes=False), tmp_path / "untold")
    with pytest.raises(BadModel, match="mitoray-c-1 has no subtype head, and subtypes are asked for"):
        claimed(slide, tmp_path, classifier=untold, method=Method(subtypes=True))
    assert claimed(slide, tmp_path, classifier=near, method=Method(subtypes=True)).classifier.has_subtypes
    with pytest.raises(BadModel, match="cannot classify them"):
        claimed(slide, tmp_path, classifier="mitoray-s")
    with pytest.raises(BadModel, match="classifies candidates and finds none"):
        claimed(slide, tmp_path, model=near, classifier=near)
    with pytest.raises(BadOption, match="subtypes is of the second stage"):
        claimed(slide, tmp_path, classifier=None, method=Method(subtypes=True))
    wide = saved(classifier_bundle(mpp=0.5, patch_px=256), tmp_path / "wide")
    with pytest.raises(BadOption, match="region_um 64 must be above the 69 µm"):
        claimed(slide, tmp_path, classifier=wide, method=Method(region_um=64))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("own", "given", "expected"), [(None, None, 0.1), (0.3, None, 0.3), (0.3, 0.2, 0.2)])
def test_the_detectors_threshold_is_the_methods_or_the_classifiers_or_low(own, given, expected):
    classifier = classifier_bundle(candidate_threshold=own, thresholds={"a": 0.3})
    detector = load_bundle("mitoray-s")
    assert Levels.of(Method(detector_threshold=given), detector, classifier) == Levels(expected, 0.3)
    assert Levels.of(Method(), detector, None) == Levels(detector.threshold, detector.threshold)


def test_where_only_the_detector_counts_the_classifiers_mean_is_plain():
    members = np.array([[0.2, 0.8], [0.4, 0.6]], np.float32)
    alone = Combination(weights=(0.0, 0.0), detector_weight=1.0)
    np.testing.assert_allclose(classifier_scores(alone, members), [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(classifier_scores(Combination(weights=(3.0, 1.0)), members), [0.35, 0.45], rtol=1e-6)
