"""Labels carried over to rescans: pairs in the manifest, the filter of figures, the table, and the job as a whole."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mitoray.curation.registration import Extent, Registration
from mitoray.curation.rescans import (
    carried,
    check_pairs,
    kept_table,
    read_originals,
    rescan_labels,
    threshold_keeping,
    with_states,
)
from mitoray.curation.versions import version_of
from mitoray.errors import BadLabels, BadManifest, BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom import DOMAINS, draw_phantom, write_slide
from mitoray.phantom.rescan import Rescanning, draw_rescan

FIGURE, IMPOSTER = "mitotic_figure", "imposter"
A, B = DOMAINS["phantom-breast-a"], DOMAINS["phantom-breast-b"]


def manifest(tmp_path, rows, header="slide_id,uri,case_id,original_id"):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rescans_are_rows_that_name_their_original(tmp_path):
    path = manifest(tmp_path, ["a,a.svs,1,", "b,b.svs,1,a", "c,c.svs,1,a"])
    assert read_originals(path) == {"b": "a", "c": "a"}


def test_a_manifest_that_names_no_rescan_is_refused(tmp_path):
    with pytest.raises(BadManifest, match="lacks the column original_id"):
        read_originals(manifest(tmp_path, ["a,a.svs"], "slide_id,uri"))
    with pytest.raises(BadManifest, match="names no rescan"):
        read_originals(manifest(tmp_path, ["a,a.svs,1,"]))


@pytest.mark.parametrize(
    ("originals", "labelled", "error", "message"),
    [
        ({"b": "z"}, [], BadManifest, "'z', which the manifest does not list"),
        ({"b": "a", "c": "b"}, [], BadManifest, "is a rescan itself"),
        ({"d": "a"}, [], BadManifest, "Give both the same case_id"),
        ({"b": "a"}, ["a", "b"], BadLabels, "'b' has labels already"),
    ],
)
def test_pairs_that_cannot_be_are_refused(originals, labelled, error, message):
    with pytest.raises(error, match=message):
        check_pairs(originals, {"a": "1", "b": "1", "c": "1", "d": "2"}, labelled)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_threshold_keeps_the_share_and_no_higher_one_does(scores, share):
    values = np.array(scores)
    threshold = threshold_keeping(values, share)
    assert (values >= threshold).mean() >= share - 1e-9
    higher = values[values > threshold]
    assert not len(higher) or (values >= higher.min()).mean() < share


def test_a_threshold_needs_scores_and_a_share():
    with pytest.raises(BadLabels, match="No figure of the originals"):
        threshold_keeping(np.array([]), 0.95)
    with pytest.raises(BadOption, match="at most 1"):
        threshold_keeping(np.array([0.5]), 1.5)


def row(slide_id, x, kind, subtype=None, votes=None):
    of = {"slide_id": slide_id, "x_px": float(x), "y_px": 50.0, "kind": kind, "subtype": subtype}
    return {**dict.fromkeys(LABELS.names), **of, "votes": votes}


@pytest.fixture(scope="module")
def moved():
    """Labels of an original and its rescan, 40 px to the right of it, where the last one falls off."""
    votes = [{"rater": "expert", "kind": FIGURE}]
    rows = [
        row("a", 10, FIGURE, "normal", votes),
        row("a", 20, FIGURE, "atypical"),
        row("a", 30, IMPOSTER),
        row("a", 95, FIGURE, "atypical"),
        row("other", 10, FIGURE),
    ]
    labels = pa.Table.from_pylist(rows, schema=LABELS)
    found = Registration((1.0, 0.0, 10.0, 0.0, 1.0, 0.0), 20, (), Extent(100, 100, 0.25), Extent(100, 100, 0.25))
    return labels, carried(labels, "a", "b", found)


def test_labels_are_carried_by_the_map_and_those_beyond_the_rescan_known(moved):
    _, table = moved
    assert table["x_px"].to_pylist() == pytest.approx([50.0, 60.0, 70.0, 135.0])
    assert table["label"].to_pylist() == [0, 1, 2, 3]
    assert table["on_rescan"].to_pylist() == [True, True, True, False]
    assert table["quality"].to_pylist() == [None] * 4


def test_figures_under_the_threshold_are_masked_with_a_vote_and_others_kept_as_they_were(moved):
    labels, table = moved
    table = with_states(table, {("b", 0): 0.3, ("b", 1): 0.8}, 0.5)
    assert table["state"].to_pylist() == ["masked", "kept", "kept", "outside"]
    made = rescan_labels(labels, table, {"b": "scanner-b"}, "ensemble")
    assert [(one["kind"], one["subtype"], one["slide_id"], one["domain"]) for one in made] == [
        ("uncertain", None, "b", "scanner-b"),
        (FIGURE, "atypical", "b", "scanner-b"),
        (IMPOSTER, None, "b", "scanner-b"),
    ]
    assert made[0]["votes"] == [{"rater": "expert", "kind": FIGURE}, {"rater": "ensemble", "kind": "uncertain"}]
    unread = with_states(table.drop(["score", "state"]), {("b", 0): 0.9}, 0.5)
    assert unread["state"].to_pylist() == ["kept", "not scored", "kept", "outside"]
    assert rescan_labels(labels, unread, {}, "ensemble")[1]["kind"] == "uncertain"


def test_the_table_counts_what_is_kept_of_the_originals_figures(moved):
    labels, table = moved
    table = with_states(table, {("b", 0): 0.3, ("b", 1): 0.8}, 0.5)
    own, rescan = kept_table(table, labels, ["a"], {"a": "scanner-a", "b": "scanner-b"})
    assert (own["scan"], own["figures_kept"], own["figures_of"], own["atypical_of"]) == ("original", 3, 3, 2)
    assert rescan == {
        "scan": "rescan",
        "domain": "scanner-b",
        "slides": 1,
        "figures_kept": 1,
        "figures_of": 3,
        "figures_masked": 1,
        "figures_outside": 1,
        "atypical_kept": 1,
        "atypical_of": 2,
        "kept_percent": 33.3,
    }


@pytest.fixture(scope="module")
def rescanned(tmp_path_factory):
    """A folder with two labelled slides, a rescan of each, and one of a third slide that calls itself the first's."""
    folder = tmp_path_factory.mktemp("rescanned")
    crowded = replace(A, tumour=replace(A.tumour, figures_per_mm2=120, imposters_per_mm2=40))
    tables, truths, rows = [], {}, []
    for number in range(2):
        name = f"slide-{number}"
        phantom = draw_phantom(crowded, seed=50 + number, width_px=2000, height_px=2000, slide_id=name)
        write_slide(phantom, folder / f"{name}.svs")
        how = Rescanning(3.0 + 177 * number, (20.0, 10.0), 4.0, blurred=5, blurred_um=140.0, defocus_um=3.0)
        truths[name] = draw_rescan(phantom, B, how, seed=number, slide_id=f"{name}-b")
        write_slide(truths[name].phantom, folder / f"{name}-b.svs")
        tables.append(phantom.labels)
        rows += [f"{name},{name}.svs,{name},scanner-a,", f"{name}-b,{name}-b.svs,{name},scanner-b,{name}"]
    stranger = draw_phantom(B, seed=77, width_px=1800, height_px=1800)
    write_slide(stranger, folder / "stranger.svs")
    rows.append("stranger,stranger.svs,slide-0,scanner-b,slide-0")
    manifest(folder, rows, "slide_id,uri,case_id,domain,original_id")
    pq.write_table(pa.concat_tables(tables), folder / "labels.parquet")
    return folder, pa.concat_tables(tables), truths


def given_to(folder, output, *more):
    files = ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]
    return [*files, "--output", str(output), *more]


@pytest.mark.slow
def test_the_job_carries_labels_masks_what_is_out_of_focus_names_what_is_no_rescan_and_resumes(
    job, rescanned, ray_session, tmp_path, capsys
):
    main = job("curate_rescans")
    folder, labels, truths = rescanned
    output = tmp_path / "out"
    tracking = f"sqlite:///{tmp_path}/mlruns.db"
    assert main(given_to(folder, output, "--mlflow", tracking)) == 3
    told = capsys.readouterr()
    assert "failed: 'stranger': RegistrationRefused" in told.err
    assert "Recorded as" in told.out
    after = pq.read_table(output / "labels.parquet")
    assert after.slice(0, len(labels)).select(LABELS.names).equals(labels.cast(LABELS))
    version = version_of(output / "labels.parquet")
    assert version.step == "rescans"
    assert version.added[FIGURE] > 10
    carried = pq.read_table(output / "carried.parquet").to_pylist()
    states, distances = {"clear": [], "blurred": []}, []
    for one in carried:
        rescan = truths[one["original_id"]]
        own = [n for n, slide in enumerate(labels["slide_id"].to_pylist()) if slide == one["original_id"]]
        n = own.index(one["label"])
        truth = rescan.states[n]
        if one["kind"] == FIGURE and truth in states:
            states[truth].append(one["state"] == "kept")
        if truth == "clear":
            off = np.hypot(*(rescan.places_px[n] - (one["x_px"], one["y_px"])))
            distances.append(off * B.mpp)
    assert np.mean(np.array(distances) <= 6.25) >= 0.99
    assert np.mean(states["clear"]) > 0.75
    assert np.mean(states["blurred"]) < np.mean(states["clear"]) - 0.3
    kept = pyarrow.csv.read_csv(output / "kept.csv").to_pylist()
    assert [one["scan"] for one in kept] == ["original", "rescan"]
    assert kept[1]["figures_kept"] == version.added[FIGURE]
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert pictures == [f"slide-{n}-b-{what}.png" for n in (0, 1) for what in ("figures", "registration")]
    for name in pictures:
        with Image.open(output / "pictures" / name) as picture:
            assert min(picture.size) > 300
    first = {path: path.stat().st_mtime_ns for path in (output / "registrations").iterdir()}
    (output / "labels.parquet").unlink()
    assert main(given_to(folder, output)) == 3  # goes on: what was registered and scored stays
    assert {path: path.stat().st_mtime_ns for path in (output / "registrations").iterdir()} == first
    assert pq.read_table(output / "labels.parquet").equals(after)
    assert main(given_to(folder, output, "--leaf-um", "300")) == 2
    assert "with other settings (curation.registering)" in capsys.readouterr().err


def test_arguments_that_cannot_be_are_refused_before_anything_is_written(job, rescanned, tmp_path, capsys):
    main = job("curate_rescans")
    folder, *_ = rescanned
    output = tmp_path / "out"
    for wrong in (["--kept-originals", "0"], ["--threshold", "2"], ["--classifiers", "[]"], ["--version", "a/b"]):
        assert main(given_to(folder, output, *wrong)) == 2
    (tmp_path / "m.csv").write_text("slide_id,uri\na,a.svs\n")
    assert main([*given_to(folder, output), "--manifest", str(tmp_path / "m.csv")]) == 2
    assert "lacks the column original_id" in capsys.readouterr().err
    assert not output.exists()
