from collections import Counter
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pytest
import tifffile

from mitoray.errors import BadOption, SlideNotFound
from mitoray.labels.schema import LABELS
from mitoray.phantom import domain_named, draw_phantom, write_slide
from mitoray.slide import Rect, open_slide
from mitoray.training import reading
from mitoray.training.reading import MASK_RADIUS_UM, PatchReader
from mitoray.training.sampling import sample_midog, with_figures
from mitoray.training.slides import open_training_slide

DOMAINS = ["phantom-breast-a", "phantom-breast-b", "phantom-neuroendocrine-a"]
"""At 0.25, 0.23 and 0.5 µm/px."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three small slides with many figures, and their labels."""
    folder = tmp_path_factory.mktemp("cohort")
    slides, labels = [], []
    for name in DOMAINS:
        tumour = replace(domain_named(name).tumour, figures_per_mm2=300.0, imposters_per_mm2=100.0)
        phantom = draw_phantom(replace(domain_named(name), tumour=tumour), seed=70, width_px=1100, height_px=900)
        write_slide(phantom, folder / f"{name}.svs")
        labels.append(phantom.labels)
        uri = str(folder / f"{name}.svs")
        slides.append(open_training_slide(phantom.slide_id, uri, case_id=f"case-{name}", domain=name))
    return slides, pa.concat_tables(labels)


def patches_of(cohort, n, mpp, patch_px, seed=0, labels=None):
    slides, all_labels = cohort
    places = sample_midog(slides, all_labels, n, mpp * patch_px, np.random.default_rng(seed), guided_share=1)
    return with_figures(places, slides, all_labels if labels is None else labels, mpp)


def full(slide, rect):
    """Pixels of level 0."""
    with open_slide(slide.uri) as opened:
        return opened.read_region(rect, opened.mpp)


def darkness_offset_um(image, xy_px, mpp, sigma_um=2.0, ground=200.0):
    """x, y from a point to the centre of what is dark around it: nearly zero for a figure's own; NaN for a pale one."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.exp(-((x - xy_px[0]) ** 2 + (y - xy_px[1]) ** 2) * mpp**2 / 2 / sigma_um**2)
    dark = np.maximum(ground - image.mean(axis=2), 0) * weight
    if dark.sum() < 20 * weight.sum():
        return np.full(2, np.nan)
    return np.array([((x - xy_px[0]) * dark).sum(), ((y - xy_px[1]) * dark).sum()]) / dark.sum() * mpp


def test_slides_know_their_size_and_resolution(cohort):
    slides, _ = cohort
    assert [slide.mpp for slide in slides] == pytest.approx([0.25, 0.23, 0.5], rel=1e-3)
    assert {(slide.width_px, slide.height_px) for slide in slides} == {(1100, 900)}
    assert [slide.domain for slide in slides] == DOMAINS


def test_a_slide_without_a_case_is_its_own_and_one_without_file_an_error(cohort, tmp_path):
    slides, _ = cohort
    assert open_training_slide("alone", slides[0].uri, mpp=0.3).case_id == "alone"
    assert open_training_slide("alone", slides[0].uri, mpp=0.3).mpp == 0.3
    with pytest.raises(SlideNotFound):
        open_training_slide("gone", str(tmp_path / "gone.svs"))


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_figures_stand_in_the_patches_where_the_labels_stand_on_the_slides(cohort, mpp):
    slides, labels = cohort
    n, patch_px = 60, round(48 / mpp)
    patches = patches_of(cohort, n, mpp, patch_px)
    read = PatchReader(slides, mpp, patch_px).read(patches)
    assert read["image"].shape == (n, patch_px, patch_px, 3)
    assert not read["failed"].any()
    by_id = {slide.slide_id: slide for slide in slides}
    figures = labels.filter(pa.compute.equal(labels["kind"], "mitotic_figure")).to_pylist()
    apart_px = []
    for image, points, patch in zip(read["image"], read["figures_px"], patches.to_pylist(), strict=True):
        slide = by_id[patch["slide_id"]]
        rect = Rect(patch["x_px"], patch["y_px"], patch["side_px"], patch["side_px"])
        inner = rect.expanded(-round(4 / slide.mpp))
        places = [(f["x_px"], f["y_px"]) for f in figures if f["slide_id"] == patch["slide_id"]]
        for place in np.array(places)[inner.contains(places)]:
            expected_px = (place - (rect.x_px, rect.y_px) + 0.5) * slide.mpp / mpp - 0.5
            nearest = points[np.nanargmin(np.hypot(*(points - expected_px).T))]
            around = Rect(round(place[0]) - 40, round(place[1]) - 40, 81, 81)
            on_slide = darkness_offset_um(full(slide, around), place - (around.x_px, around.y_px), slide.mpp)
            apart_px.append((darkness_offset_um(image, nearest, mpp) - on_slide) / mpp)
    distance = np.hypot(*np.transpose(apart_px))
    distance = distance[np.isfinite(distance)]
    assert len(distance) >= 30
    assert np.median(distance) < 0.05
    assert distance.max() < 0.5


@pytest.mark.parametrize("mpp", [0.2529, 0.25, 0.2449, 0.23, 0.5, 0.13])
def test_figures_are_met_to_the_pixel_at_every_resolution(tmp_path, mpp):
    # Within 3 % of 0.25 pixels are read as they are, so that patches cover a little more or less than was placed.
    rng = np.random.default_rng(4)
    image = np.full((1000, 1000, 3), 255, np.uint8)
    grid = 50 * np.stack(np.meshgrid(np.arange(1, 19), np.arange(1, 19)), axis=-1).reshape(-1, 2)
    centres = grid + rng.integers(-8, 9, grid.shape)
    for x, y in centres:
        image[y - 3 : y + 4, x - 3 : x + 4] = 0
    path = tmp_path / "dots.tif"
    per_cm = 1e4 / mpp
    tifffile.imwrite(path, image, tile=(256, 256), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    slides = [open_training_slide("dots", str(path))]
    rows = [{"slide_id": "dots", "x_px": x, "y_px": y, "kind": "mitotic_figure"} for x, y in centres]
    patches = patches_of((slides, pa.Table.from_pylist(rows, schema=LABELS)), 12, 0.25, 256)
    read = PatchReader(slides, 0.25, 256, max_figures=256).read(patches)
    seen, size = 0, mpp / 0.25
    for patch, points in zip(read["image"], read["figures_px"], strict=True):
        inside = ((points > 8 * size) & (points < 255 - 8 * size)).all(axis=1)
        for point in points[inside][:9]:
            assert np.abs(darkness_offset_um(patch, point, 1.0, 3 * size, ground=255)).max() < 0.06
            seen += 1
    assert seen > 30


def test_pixels_of_about_the_right_resolution_are_not_resampled(cohort):
    slides, labels = cohort
    patches = patches_of(([slides[0]], labels), 20, 0.2537, 128)
    read = PatchReader(slides, 0.2537, 128).read(patches)
    with open_slide(slides[0].uri) as slide:
        full = slide.read_region(slides[0].sampled, slide.mpp)
    views = np.lib.stride_tricks.sliding_window_view(full[..., 0], (128, 128))
    for image, patch in zip(read["image"], patches.to_pylist(), strict=True):
        assert patch["side_px"] == 130
        assert (views[patch["y_px"] + 1, patch["x_px"] + 1] == image[..., 0]).all()


def test_uncertain_figures_are_hidden_under_white_discs(cohort):
    slides, labels = cohort
    kinds = labels["kind"].to_pylist()
    uncertain = pa.array(["uncertain" if k == "mitotic_figure" and i % 2 else k for i, k in enumerate(kinds)])
    masked = labels.set_column(labels.schema.get_field_index("kind"), LABELS.field("kind"), uncertain)
    mpp, patch_px = 0.3, 128
    patches = patches_of(cohort, 60, mpp, patch_px, labels=masked)
    plain = PatchReader(slides, mpp, patch_px).read(
        patches.set_column(6, "masks_px", patches_of(cohort, 60, mpp, 128)["masks_px"])
    )
    read = PatchReader(slides, mpp, patch_px).read(patches)
    y, x = np.mgrid[:patch_px, :patch_px]
    discs = 0
    for image, before, points in zip(read["image"], plain["image"], patches["masks_px"].to_pylist(), strict=True):
        under = np.zeros((patch_px, patch_px), bool)
        for mask_x, mask_y in points:
            under |= np.hypot(x - mask_x, y - mask_y) <= MASK_RADIUS_UM / mpp
            discs += 1
        edge = np.zeros_like(under)
        for mask_x, mask_y in points:  # sides were rounded to whole px, so a disc's edge may move by a fraction of one
            edge |= abs(np.hypot(x - mask_x, y - mask_y) - MASK_RADIUS_UM / mpp) < 1
        assert (image[under & ~edge] == 255).all()
        assert (image[~under & ~edge] == before[~under & ~edge]).all()
    assert discs >= 15


def test_a_figure_under_a_disc_is_none(cohort):
    slides, _ = cohort
    rows = [(500, 500, "mitotic_figure"), (520, 500, "uncertain"), (560, 500, "mitotic_figure")]
    names = ("slide_id", "x_px", "y_px", "kind")
    labels = pa.Table.from_pylist(
        [dict(zip(names, (slides[0].slide_id, *r), strict=True)) for r in rows], schema=LABELS
    )
    place = {"slide_id": slides[0].slide_id, "x_px": 400, "y_px": 400, "side_px": 256, "reason": "random"}
    patches = with_figures(pa.Table.from_pylist([place]), slides, labels, 0.25)
    read = PatchReader(slides, 0.25, 256, max_figures=3).read(patches)
    assert read["figures_px"][0, 0] == pytest.approx([160, 100], abs=1e-3)
    assert np.isnan(read["figures_px"][0, 1:]).all()


def test_beyond_the_slide_patches_are_white(cohort):
    slides, labels = cohort
    place = {"slide_id": slides[0].slide_id, "x_px": 1000, "y_px": -100, "side_px": 200, "reason": "random"}
    patches = with_figures(pa.Table.from_pylist([place]), slides, labels, 0.25)
    (image,) = PatchReader(slides, 0.25, 200).read(patches)["image"]
    assert (image[:100] == 255).all()
    assert (image[:, 100:] == 255).all()
    assert image[100:, :100].min() < 255


def test_patches_from_s3_are_those_from_disk(cohort, s3):
    slides, _ = cohort
    client = boto3.client(
        "s3",
        endpoint_url=s3["endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    there = []
    for slide in slides:
        client.upload_file(slide.uri, "slides", f"training/{slide.slide_id}.svs")
        uri = f"s3://slides/training/{slide.slide_id}.svs"
        there.append(
            open_training_slide(slide.slide_id, uri, case_id=slide.case_id, domain=slide.domain, storage_options=s3)
        )
        assert there[-1].mpp == slide.mpp
    patches = patches_of(cohort, 24, 0.25, 128)
    on_disk = PatchReader(slides, 0.25, 128, s3).read(patches)
    in_s3 = PatchReader(there, 0.25, 128, s3).read(patches)
    assert on_disk["image"].std() > 10
    for name, column in on_disk.items():
        assert np.array_equal(column, in_s3[name], equal_nan=name == "figures_px"), name


def test_threads_change_nothing(cohort):
    slides, _ = cohort
    patches = patches_of(cohort, 40, 0.25, 128)
    one, four = (PatchReader(slides, 0.25, 128, threads=threads).read(patches) for threads in (1, 4))
    assert (one["image"] == four["image"]).all()


def test_a_deleted_slide_fails_its_own_patches_only_and_is_told_once(cohort, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reading, "TILE_CACHE_BYTES", 0)  # or what was read before would still be at hand
    slides, _ = cohort
    copies = []
    for slide in slides:
        copy = tmp_path / f"{slide.slide_id}.svs"
        copy.write_bytes(Path(slide.uri).read_bytes())
        copies.append(replace(slide, uri=str(copy)))
    patches = patches_of(cohort, 30, 0.25, 128)
    reader = PatchReader(copies, 0.25, 128)
    whole = reader.read(patches.slice(0, 3))
    assert not whole["failed"].any()
    Path(copies[1].uri).unlink()
    for fresh in (reader, PatchReader(copies, 0.25, 128)):  # gone after it was opened, and before
        caplog.clear()
        read = fresh.read(patches)
        lost = np.array(patches["slide_id"].to_pylist()) == slides[1].slide_id
        assert lost.sum() == 10
        assert read["failed"].tolist() == lost.tolist()
        assert (read["image"][lost] == 255).all()
        assert np.isnan(read["figures_px"][lost]).all()
        expected = PatchReader(slides, 0.25, 128).read(patches)
        assert (read["image"][~lost] == expected["image"][~lost]).all()
        assert Counter(record.levelname for record in caplog.records) == {"WARNING": 1}
        assert f"Slide {slides[1].slide_id}" in caplog.text
        assert "SlideNotFound" in caplog.text


def test_too_many_figures_are_told(cohort, caplog):
    slides, _ = cohort
    rows = [{"slide_id": slides[0].slide_id, "x_px": 100 + i, "y_px": 100, "kind": "mitotic_figure"} for i in range(5)]
    place = {"slide_id": slides[0].slide_id, "x_px": 50, "y_px": 50, "side_px": 128, "reason": "random"}
    patches = with_figures(pa.Table.from_pylist([place]), slides, pa.Table.from_pylist(rows, schema=LABELS), 0.25)
    read = PatchReader(slides, 0.25, 128, max_figures=3).read(patches)
    assert np.isfinite(read["figures_px"]).all()
    assert "a patch holds 5 figures" in caplog.text


def test_an_empty_batch_gives_empty_arrays(cohort):
    slides, _ = cohort
    read = PatchReader(slides, 0.25, 32, max_figures=2).read(patches_of(cohort, 1, 0.25, 32).slice(0, 0))
    shapes = {name: (column.shape, column.dtype) for name, column in read.items()}
    assert shapes == {
        "image": ((0, 32, 32, 3), np.uint8),
        "figures_px": ((0, 2, 2), np.float32),
        "failed": ((0,), bool),
    }


def test_patches_that_are_not_the_readers_are_refused(cohort):
    slides, _ = cohort
    patches = patches_of(cohort, 6, 0.25, 128)
    with pytest.raises(BadOption, match="which the reader was not given"):
        PatchReader(slides[:1], 0.25, 128).read(patches)
    with pytest.raises(BadOption, match="sample with patch_um=64"):
        PatchReader(slides, 0.5, 128).read(patches)
    with pytest.raises(BadOption, match="give 0 to 16 µm"):
        PatchReader(slides, 0.25, 128, mask_radius_um=20)
    with pytest.raises(BadOption, match="must be positive"):
        PatchReader(slides, 0.25, 0)
