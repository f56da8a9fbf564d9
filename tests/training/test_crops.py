import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from crowded import draw_crowded
from PIL import Image

from mitoray.errors import BadLabels, BadOption, SlideError
from mitoray.labels.schema import LABELS
from mitoray.models import load_bundle
from mitoray.models.classifier import PADDING
from mitoray.slide import Rect, open_slide
from mitoray.training.crop_extraction import Extraction, slide_crops
from mitoray.training.crops import CROPS, as_crops, crop_images, crop_targets, png, read_crop_table
from mitoray.training.slides import open_training_slide

AT = {"mpp": 0.25, "side_px": 96}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    manifest, labels = draw_crowded(folder, ["phantom-lymphoma-a"], n_slides=1, seed=71, side_px=1000)
    return [open_training_slide(row["slide_id"], row["uri"]) for row in manifest.to_pylist()], labels


def pictures(n=3, side=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def table_of(images, **columns):
    ids = [f"c{i}" for i in range(len(images))]
    return pa.table({"crop_id": ids, "image": [png(image) for image in images], **columns})


def label(slide, x, y, kind="mitotic_figure", subtype=None):
    return {"slide_id": slide.slide_id, "x_px": x, "y_px": y, "kind": kind, "subtype": subtype, "dataset": "people"}


def pixels_of(crops):
    return [np.array(Image.open(io.BytesIO(data))) for data in crops["image"].to_pylist()]


def test_each_label_becomes_a_crop_with_its_cell_in_the_middle(cohort):
    (slide,), labels = cohort
    crops = slide_crops(slide, labels, Extraction(), **AT)
    assert crops.schema == CROPS
    places = {(row["x_px"], row["y_px"]): row for row in crops.to_pylist()}
    assert len(places) == len(crops) == len(labels)
    for known in labels.to_pylist():
        assert places[known["x_px"], known["y_px"]]["kind"] == known["kind"]
        assert places[known["x_px"], known["y_px"]]["subtype"] == known["subtype"]
    assert set(crops["case_id"].to_pylist()) == {slide.case_id}
    with open_slide(slide.uri) as pixels:
        for row, image in zip(crops.to_pylist(), pixels_of(crops), strict=True):
            at = Rect(round(row["x_px"] - 47.5), round(row["y_px"] - 47.5), 96, 96)
            assert (image == pixels.read_region(at, 0.25)).all()


def test_a_crop_at_another_resolution_shows_as_many_micrometres(cohort):
    (slide,), labels = cohort
    fine = pixels_of(slide_crops(slide, labels, Extraction(), **AT))
    coarse = pixels_of(slide_crops(slide, labels, Extraction(), mpp=0.5, side_px=48))
    assert {image.shape for image in coarse} == {(48, 48, 3)}
    for large, small in zip(fine, coarse, strict=True):
        halved = np.asarray(Image.fromarray(large).reduce(2), float)
        assert np.abs(halved[4:-4, 4:-4] - small[4:-4, 4:-4]).mean() < 8


def test_beyond_the_slides_edge_a_crop_is_white(cohort):
    (slide,), _ = cohort
    labels = pa.Table.from_pylist([label(slide, 0.0, 0.0)], schema=LABELS)
    (image,) = pixels_of(slide_crops(slide, labels, Extraction(), **AT))
    assert (image[:47] == PADDING).all()
    assert (image[:, :47] == PADDING).all()
    assert (image[49:, 49:] != PADDING).any()


def test_kinds_that_are_no_candidates_give_no_crops(cohort):
    (slide,), _ = cohort
    rows = [label(slide, 100.0, 100.0, kind) for kind in ("mitotic_figure", "imposter", "uncertain", "granulocyte")]
    crops = slide_crops(slide, pa.Table.from_pylist(rows, schema=LABELS), Extraction(), **AT)
    assert sorted(crops["kind"].to_pylist()) == ["imposter", "mitotic_figure", "uncertain"]


def test_random_negatives_lie_on_tissue_far_from_labels_the_same_each_time(cohort):
    (slide,), labels = cohort
    first = slide_crops(slide, labels, Extraction(random_negatives=12), **AT)
    again = slide_crops(slide, labels, Extraction(random_negatives=12), **AT)
    assert first.equals(again)
    assert not first.equals(slide_crops(slide, labels, Extraction(random_negatives=12), seed=1, **AT))
    random = [row for row in first.to_pylist() if row["kind"] == "random"]
    assert len(random) == 12
    known = np.column_stack([labels["x_px"], labels["y_px"]])
    for row in random:
        assert np.hypot(*(known - (row["x_px"], row["y_px"])).T).min() * slide.mpp > 12.5


def test_a_detectors_false_positives_are_mined_far_from_every_label(cohort):
    (slide,), labels = cohort
    detector = load_bundle("mitoray-s").detector()
    known = labels.slice(0, 1)
    crops = slide_crops(slide, known, Extraction(mine_score=0.2), detector=detector, **AT)
    mined = [row for row in crops.to_pylist() if row["kind"] == "mined"]
    assert len(mined) >= 3  # the figures whose labels are not known here
    assert {row["subtype"] for row in mined} == {None}
    for row in mined:
        assert np.hypot(row["x_px"] - known["x_px"][0].as_py(), row["y_px"] - known["y_px"][0].as_py()) > 50


def test_a_broken_slide_is_an_error_by_name(cohort, tmp_path):
    (slide,), labels = cohort
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    with pytest.raises(SlideError, match=r"broken\.svs"):
        slide_crops(type(slide)(**{**vars(slide), "uri": str(broken)}), labels, Extraction(), **AT)


def test_a_table_of_ids_and_images_is_one_of_figures_at_a_quarter_um():
    crops = as_crops(table_of(pictures()), "here")
    assert crops.schema == CROPS
    (first, *_) = crops.to_pylist()
    assert (first["kind"], first["mpp"], first["slide_id"], first["case_id"]) == ("mitotic_figure", 0.25, "c0", "c0")
    assert first["subtype"] is None


def test_other_tables_names_for_columns_are_understood():
    given = table_of(pictures(), slide=["a", "a", None], scanner=["X", "Y", "X"], x=[1, 2, 3], y=[4, 5, 6])
    rows = as_crops(given, "here").to_pylist()
    assert [row["slide_id"] for row in rows] == ["a", "a", "c2"]
    assert [row["case_id"] for row in rows] == ["a", "a", "c2"]
    assert [(row["domain"], row["x_px"], row["y_px"]) for row in rows] == [("X", 1, 4), ("Y", 2, 5), ("X", 3, 6)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"crop_id": ["a"]}), "here lacks the column 'image'"),
        (table_of(pictures(2), kind=["imposter", "blob"]), "the kind 'blob'"),
        (table_of(pictures(2), subtype=["normal", "odd"]), "the subtype 'odd'"),
        (table_of(pictures(2), mpp=[0.25, 25.0]), r"outside 0\.05 to 4 µm/px"),
        (pa.table({"crop_id": ["a", "a"], "image": [b"", b""]}), "two of the same"),
    ],
)
def test_a_table_that_says_what_cannot_be_is_refused(table, message):
    with pytest.raises(BadLabels, match=message):
        as_crops(table, "here")


@pytest.mark.parametrize("suffix", ["PNG", "WEBP"])
def test_images_stored_without_loss_come_back_exact_and_cut_to_their_middle(suffix):
    images, stored = pictures(side=21), []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, suffix, lossless=True)
        stored.append(file.getvalue())
    crops = as_crops(pa.table({"crop_id": ["a", "b", "c"], "image": stored}), "here")
    assert (crop_images(crops, 0.25, 11, 11).permute(0, 2, 3, 1).numpy() == images[:, 5:16, 5:16]).all()


def test_crops_are_brought_to_the_models_resolution():
    flat = np.full((1, 40, 40, 3), 90, np.uint8)
    crops = as_crops(table_of(flat, mpp=[0.25]), "here")
    assert crop_images(crops, 0.5, None, 8).shape == (1, 3, 20, 20)
    assert (crop_images(crops, 0.5, None, 8) == 90).all()
    assert crop_images(crops, 0.2501, None, 8).shape == (1, 3, 40, 40)


def test_crops_of_several_sizes_are_as_large_as_the_smallest():
    crops = as_crops(table_of([*pictures(1, side=30), *pictures(1, side=24)]), "here")
    assert crop_images(crops, 0.25, 48, 16).shape == (2, 3, 24, 24)
    with pytest.raises(BadLabels, match="'c1' is 24 px wide"):
        crop_images(crops, 0.25, 48, 28)


def test_what_is_no_image_is_named():
    with pytest.raises(BadLabels, match="'a' holds no image"):
        crop_images(as_crops(pa.table({"crop_id": ["a"], "image": [b"x"]}), "here"), 0.25, 8, 8)


def test_no_crops_are_no_images():
    assert crop_images(CROPS.empty_table(), 0.25, 8, 8).shape == (0, 3, 8, 8)


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(BadLabels, match=r"x\.parquet cannot be read"):
        read_crop_table(str(tmp_path / "x.parquet"))


def test_a_table_is_read_from_object_storage(s3, tmp_path):
    import s3fs

    pq.write_table(table_of(pictures()), tmp_path / "crops.parquet")
    s3fs.S3FileSystem(**s3).put(str(tmp_path / "crops.parquet"), "slides/crop-tables/crops.parquet")
    assert len(read_crop_table("s3://slides/crop-tables/crops.parquet", s3)) == 3


def test_targets_say_what_is_known_and_no_more():
    kinds = ["mitotic_figure", "mitotic_figure", "mitotic_figure", "imposter", "mined", "random", "uncertain"]
    subtypes = ["atypical", "normal", None, None, None, None, "atypical"]
    crops = as_crops(table_of(pictures(7), kind=kinds, subtype=subtypes), "here")
    nan = np.nan
    expected = [[1, 1], [1, 0], [1, nan], [0, nan], [0, nan], [0, nan], [nan, nan]]
    assert np.array_equal(crop_targets(crops), np.array(expected, np.float32), equal_nan=True)
    assert crop_targets(crops, "positive")[6, 0] == 1
    assert crop_targets(crops, "negative")[6, 0] == 0
    assert torch.from_numpy(crop_targets(crops)).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"mine_score": 0}, "mine_score"), ({"random_negatives": -1}, "random_negatives"), ({"margin_px": -2}, "margin")],
)
def test_impossible_extractions_are_refused(settings, message):
    with pytest.raises(BadOption, match=message):
        Extraction(**settings)
