"""Labels at odds with their neighbours', from drawn cells to a new version of the labels."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from panel import fill_in, label_in_sliderunner
from PIL import Image
from scipy.special import logsumexp

from mitoray.curation.cells import cell_id, checked_classes, class_names, codes_of
from mitoray.curation.contrastive import Contrast, supervised_contrastive_loss, train_on
from mitoray.curation.embedding import Embedder, readable
from mitoray.curation.neighbours import Neighbours, oddness, ranked
from mitoray.curation.versions import version_of
from mitoray.errors import BadModel, TooFewCells
from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort, draw_patches
from mitoray.training.augment import Augmentation
from mitoray.training.crops import CROPS, png

FIGURE, IMPOSTER = "mitotic_figure", "imposter"


@pytest.fixture(scope="module")
def drawn():
    """Crops of drawn figures and imposters, schema `CROPS`."""
    images, labels = draw_patches("phantom-lymphoma-a", n=24, size_px=384, seed=77)
    rows = []
    for number, row in enumerate(labels.to_pylist()):
        left, top = round(row["x_px"] - 63.5), round(row["y_px"] - 63.5)
        crop = images[row["patch"]][max(top, 0) : top + 128, max(left, 0) : left + 128]
        if crop.shape == (128, 128, 3) and row["kind"] in (FIGURE, IMPOSTER):
            of = {"crop_id": f"c{number}", "slide_id": f"p{row['patch']}", "case_id": f"p{row['patch']}"}
            rows.append({**of, "kind": row["kind"], "mpp": 0.25, "image": png(crop)})
    return pa.Table.from_pylist(rows, schema=CROPS)


@pytest.fixture(scope="module")
def embedded(drawn):
    """Embedder, images, embeddings, and classes as numbers."""
    embedder = Embedder(load_bundle("mitoray-c"))
    kept, images, _ = readable(drawn, embedder.mpp, embedder.patch_px + 16, embedder.patch_px)
    names = class_names(kept, "kind")
    return embedder, images, embedder.embed(images), codes_of(names, checked_classes(names))


def test_flipped_labels_of_drawn_cells_rank_far_above_a_random_order(embedded):
    _, _, embeddings, codes = embedded
    flipped = np.random.default_rng(0).choice(len(codes), max(3, round(0.03 * len(codes))), replace=False)
    wrong = codes.copy()
    wrong[flipped] = 1 - wrong[flipped]
    for score in ("share", "likelihood"):
        order = ranked(oddness(embeddings, wrong, Neighbours(neighbours=10, score=score)))
        assert np.isin(flipped, order[: round(0.1 * len(codes))]).mean() >= 0.6  # 0.1 at random


def test_scores_are_those_of_the_neighbours_counted_one_by_one():
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(40, 6)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    codes, slides = rng.integers(0, 3, 40), rng.integers(0, 5, 40)
    for same_slide in (True, False):
        found = oddness(embeddings, codes, Neighbours(5, "share", same_slide), slides)
        for i in range(40):
            others = [j for j in range(40) if j != i and (same_slide or slides[j] != slides[i])]
            nearest = sorted(others, key=lambda j: -float(embeddings[i] @ embeddings[j]))[:5]
            assert found[i] == pytest.approx(np.mean(codes[nearest] != codes[i]), abs=1e-5)


def test_likelihood_is_above_0_where_another_class_fits_better_and_below_where_the_own_does():
    angles = np.concatenate([np.linspace(0, 0.1, 10), np.linspace(1.5, 1.6, 10)])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    codes = np.repeat([0, 1], 10)
    codes[4] = 1
    odds = oddness(embeddings, codes, Neighbours(5, "likelihood"))
    assert ranked(odds)[0] == 4
    assert ((odds > 0) == (np.arange(20) == 4)).all()


def test_fewer_cells_than_neighbours_and_a_class_of_one_cell_are_refused_by_name():
    with pytest.raises(TooFewCells, match="has 3 others to be compared with, not 20"):
        oddness(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), Neighbours())
    with pytest.raises(TooFewCells, match="'imposter' has one cell"):
        checked_classes([FIGURE, FIGURE, IMPOSTER])
    with pytest.raises(TooFewCells, match="All 2 cells are of one class"):
        checked_classes([FIGURE, FIGURE])


def test_the_loss_is_khosla_s_second_equation():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(7, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    classes = np.array([0, 0, 1, 1, 1, 0, 2])  # the last has no other of its class
    terms = []
    for i in range(6):
        others = [a for a in range(7) if a != i]
        denominator = logsumexp([z[i] @ z[a] / 0.1 for a in others])
        own = [p for p in others if classes[p] == classes[i]]
        terms.append(-np.mean([z[i] @ z[p] / 0.1 - denominator for p in own]))
    found = supervised_contrastive_loss(torch.from_numpy(z), torch.from_numpy(classes), 0.1)
    assert float(found) == pytest.approx(np.mean(terms))


@pytest.mark.slow
def test_training_on_by_contrast_brings_classes_together_the_same_way_each_time(embedded):
    _, images, before, codes = embedded
    after = []
    for _ in range(2):
        embedder = Embedder(load_bundle("mitoray-c"))
        history = train_on(embedder, images, codes, Contrast(epochs=2, batch_size=32), Augmentation.none())
        assert [round(row["epoch"]) for row in history] == [1, 2]
        after.append(embedder.embed(images))
    assert np.array_equal(*after)
    assert _gap(after[0], codes) > _gap(before, codes)


def _gap(embeddings, codes):
    """How much more alike cells of one class are than of two."""
    alike, same = embeddings @ embeddings.T, codes[:, None] == codes[None]
    return alike[same].mean() - alike[~same].mean()


def test_an_embedding_does_not_depend_on_how_the_cell_lies(embedded):
    embedder, images, embeddings, _ = embedded
    turned = embedder.embed(torch.rot90(images[:6], 1, (-2, -1)).flip(-1))
    assert np.allclose(turned, embeddings[:6], atol=1e-4)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_a_detector_embeds_nothing():
    with pytest.raises(BadModel, match="no single classifier"):
        Embedder(load_bundle("mitoray-s"))


def test_the_job_skips_a_crop_that_cannot_be_read_names_it_and_goes_on_where_it_was(job, drawn, tmp_path, capsys):
    main, output = job("curate_consistency"), tmp_path / "out"
    rows = drawn.to_pylist()
    rows[3]["image"] = rows[3]["image"][:50]
    pq.write_table(pa.Table.from_pylist(rows, schema=CROPS), tmp_path / "crops.parquet")
    embed = ["embed", "--crops", f"[{tmp_path / 'crops.parquet'}]", "--output", str(output)]
    assert main(embed) == 3
    assert f"failed: '{rows[3]['crop_id']}': Crop" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*.parquet")}
    assert main(embed) == 3
    assert {path: path.stat().st_mtime_ns for path in output.glob("*/*.parquet")} == before
    assert main([*embed, "--margin-px", "8"]) == 2
    assert "OutputBelongsToAnotherRun" in capsys.readouterr().err

    assert main(["rank", "--output", str(output), "--neighbours", "8", "--top", "12"]) == 0
    with (output / "inconsistent.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in table] == list(range(1, len(rows)))
    scores = [float(row["score"]) for row in table]
    assert scores == sorted(scores, reverse=True)
    assert Image.open(output / "inconsistent.png").size[0] > 1000
    assert main(["rank", "--output", str(output), "--neighbours", "5000"]) == 2
    assert main(["rank", "--output", str(tmp_path / "nothing")]) == 2
    assert main(["map", "--output", str(output), "--umap-neighbours", "5000"]) == 2
    assert main(["nonsense"]) == 2
    assert main(["map", "--help"]) == 0
    assert "--umap-neighbours" in capsys.readouterr().out


@pytest.mark.slow
def test_what_an_expert_changed_on_the_map_is_reviewed_blinded_and_the_majority_makes_a_new_version(
    job, ray_session, tmp_path, capsys
):
    draw_cohort(tmp_path, n_slides=2, seed=31, width_px=2600, height_px=2600, domains=["phantom-lymphoma-a"])
    labels, output = tmp_path / "labels.parquet", tmp_path / "out"
    rows = pq.read_table(labels).to_pylist()
    inner = [n for n, row in enumerate(rows) if row["kind"] in (FIGURE, IMPOSTER)]
    wrong, kept = inner[::9][:3], pq.read_table(labels)
    truth = {n: rows[n]["kind"] for n in wrong}
    for n in wrong:
        rows[n] |= {"kind": IMPOSTER if truth[n] == FIGURE else FIGURE, "subtype": None}
    pq.write_table(pa.Table.from_pylist(rows, schema=kept.schema), labels)
    as_it_was = labels.read_bytes()
    main, there = job("curate_consistency"), ["--output", str(output)]
    assert main(["embed", "--manifest", str(tmp_path / "manifest.csv"), "--labels", str(labels), *there]) == 0
    draw = ["map", "--umap-neighbours", "8", "--cell-px", "64", "--permutations", "99", *there]
    assert main(draw) == 0
    files = {path: path.stat().st_mtime_ns for path in (output / "map").glob("cells.*")}
    assert len(files) == 4
    assert main(draw) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files

    cells = pa.concat_tables([pq.read_table(path) for path in (output / "embeddings").iterdir()]).to_pylist()
    at = {(cell["slide_id"], cell["x_px"], cell["y_px"]): cell["cell_id"] for cell in cells}
    assert all(cell["cell_id"] == cell_id(cell["slide_id"], cell["crop_id"]) for cell in cells)
    ids = [at[rows[n]["slide_id"], rows[n]["x_px"], rows[n]["y_px"]] for n in wrong]
    database = output / "map" / "cells.sqlite"
    label_in_sliderunner(database, "Ada", dict(zip(ids, truth.values(), strict=True)))
    given = [*there, "--first", str(database), "--names", "[Ada, Bo, Cy]"]
    assert main(["changes", *given]) == 0
    second = output / "for-expert-2"
    shown = json.loads(next((second / "qupath").glob("*.geojson")).read_text())
    assert "classification" not in shown["features"][0]["properties"]
    assert sorted(path.stem for path in (second / "crops").iterdir()) == sorted(ids)
    assert {Image.open(io.BytesIO(path.read_bytes())).size for path in (second / "crops").iterdir()} == {(128, 128)}

    # Bo agrees on the first two and not on the third; Cy sides with the labels as they were.
    decided = {ids[0]: truth[wrong[0]], ids[1]: truth[wrong[1]], ids[2]: rows[wrong[2]]["kind"]}
    fill_in(second / "decisions.csv", decided)
    given += ["--second", str(second)]
    new = ["--labels", str(labels), "--version", str(tmp_path / "better.parquet")]
    assert main(["import", *given, *new]) == 2
    assert "ExpertsDisagree" in capsys.readouterr().err
    assert main(["third", *given]) == 0
    third = output / "for-expert-3"
    assert [path.stem for path in (third / "crops").iterdir()] == [ids[2]]
    fill_in(third / "decisions.csv", {ids[2]: rows[wrong[2]]["kind"]})
    assert main(["import", *given, "--third", str(third), *new]) == 0
    after = pq.read_table(tmp_path / "better.parquet").to_pylist()
    expected = [row["kind"] for row in rows]
    expected[wrong[0]], expected[wrong[1]] = truth[wrong[0]], truth[wrong[1]]
    assert [row["kind"] for row in after] == expected
    assert [vote["rater"] for vote in after[wrong[2]]["votes"]][-3:] == ["Ada", "Bo", "Cy"]
    assert version_of(tmp_path / "better.parquet").raters == ("Ada", "Bo", "Cy")
    assert labels.read_bytes() == as_it_was
