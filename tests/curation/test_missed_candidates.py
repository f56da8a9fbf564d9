"""Candidates that labels have missed, from drawn slides to a new version of the labels."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel import fill_in, label_in_sliderunner

from mitoray.curation.hard_examples import split_by_score
from mitoray.curation.missed import added_table, case_parts, new_detections, score_groups
from mitoray.curation.review import read_review_set
from mitoray.curation.versions import version_of
from mitoray.errors import BadLabels, BadOption
from mitoray.labels.schema import LABELS
from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort
from mitoray.training.slides import TrainingSlide

FIGURE, IMPOSTER = "mitotic_figure", "imposter"


def slide(slide_id="a", mpp=0.25, case=None, domain="d"):
    return TrainingSlide(slide_id, "", case or slide_id, domain, mpp, 10_000, 10_000)


def at(points, slide_id="a"):
    return pa.table(
        {"slide_id": [slide_id] * len(points), "x_px": [p[0] for p in points], "y_px": [p[1] for p in points]}
    )


POINTS = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), max_size=12)


@given(POINTS, POINTS, st.sampled_from([0.125, 0.25, 0.5]))
@settings(deadline=None)
def test_a_detection_is_new_if_it_is_farther_in_um_than_the_radius_from_every_label(found, known, mpp):
    new = new_detections(at(found).cast(_PLACES), at(known).cast(_PLACES), [slide(mpp=mpp)])
    far = [p for p in found if all(np.hypot(p[0] - q[0], p[1] - q[1]) * mpp > 6.25 for q in known)]
    assert list(zip(new["x_px"].to_pylist(), new["y_px"].to_pylist(), strict=True)) == far


_PLACES = pa.schema([("slide_id", pa.string()), ("x_px", pa.float64()), ("y_px", pa.float64())])


def test_the_radius_is_25_px_at_a_quarter_um_and_12_and_a_half_at_a_half():
    found = at([(25.0, 0.0), (26.0, 0.0), (12.0, 0.0), (13.0, 0.0)])
    for mpp, kept in ((0.25, [26.0]), (0.5, [25.0, 26.0, 13.0])):
        assert new_detections(found, at([(0.0, 0.0)]), [slide(mpp=mpp)])["x_px"].to_pylist() == kept
    assert len(new_detections(found, at([(0.0, 0.0)], "b"), [slide()])) == 4
    assert len(new_detections(found, at([]).cast(_PLACES), [slide("b")])) == 0


def test_ten_groups_are_tenths_and_one_is_in_the_last():
    assert score_groups(np.array([0.0, 0.05, 0.1, 0.55, 0.99, 1.0])).tolist() == [0, 0, 1, 5, 9, 9]
    with pytest.raises(BadOption):
        score_groups(np.array([1.2]))


def test_cases_stay_whole_and_each_is_in_one_part():
    slides = [slide(f"s{i}", case=f"c{i // 2}", domain="ab"[i % 4 // 2]) for i in range(16)]
    parts = case_parts(slides, {f"s{i}": i for i in range(16)}, 3)
    assert sorted(one for part in parts for one in part) == sorted(one.slide_id for one in slides)
    for part in parts:
        assert {f"s{int(one[1:]) ^ 1}" for one in part} == part
        assert part
    with pytest.raises(BadLabels, match="2 cases make no 3 parts"):
        case_parts(slides[:4], {}, 3)


def test_what_was_added_is_told_as_table_1_does():
    def labels(figures, imposters):
        rows = [
            {"slide_id": "a", "kind": kind} for kind, n in ((FIGURE, figures), (IMPOSTER, imposters)) for _ in range(n)
        ]
        return pa.Table.from_pylist(
            [{**row, "x_px": float(i), "y_px": 0.0} for i, row in enumerate(rows)], schema=LABELS
        )

    of_slide, total = added_table(labels(47, 0), labels(61, 5))
    assert (of_slide["figures_before"], of_slide["figures_after"]) == (47, 61)  # case 1 of the table
    assert of_slide["figures_added_percent"] == pytest.approx(100 * 14 / 47, abs=0.005)
    assert (of_slide["imposters_after"], of_slide["imposters_added_percent"]) == (5, None)
    assert {**of_slide, "slide_id": "total"} == total


def test_an_ambiguous_class_is_split_by_score_and_nothing_is_lost():
    split = split_by_score([3, 5, 7, 9], np.array([0.5, 0.49, 0.1, 0.9]), likely=0.5, look_alike=0.2)
    assert (split.likely, split.look_alikes, split.others) == ((3, 9), (5,), (7,))
    with pytest.raises(BadOption):
        split_by_score([], np.array([]), likely=0.2, look_alike=0.5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two slides with figures deleted and an ambiguous class in their labels; gives the folder and those deleted."""
    folder = tmp_path_factory.mktemp("cohort")
    draw_cohort(folder, n_slides=2, seed=410, width_px=2600, height_px=2600, domains=["phantom-lymphoma-a"])
    rows = pq.read_table(folder / "labels.parquet").to_pylist()
    figures = [n for n, row in enumerate(rows) if row["kind"] == FIGURE]
    gone = figures[:: max(2, len(figures) // 3)]
    for n in [n for n in figures if n not in gone][:4] + [n for n, row in enumerate(rows) if row["kind"] == IMPOSTER][
        :4
    ]:
        rows[n] |= {"kind": "ambiguous", "subtype": None}
    left = [row for n, row in enumerate(rows) if n not in gone]
    pq.write_table(pa.Table.from_pylist(left, schema=LABELS), folder / "labels.parquet")
    return folder, [rows[n] for n in gone]


def near(row, others):
    return any(
        row["slide_id"] == o["slide_id"] and np.hypot(row["x_px"] - o["x_px"], row["y_px"] - o["y_px"]) <= 25
        for o in others
    )


@pytest.mark.slow
def test_deleted_figures_are_found_reviewed_and_added(job, cohort, ray_session, tmp_path, capsys):
    folder, gone = cohort
    main, out = job("curate_missed"), tmp_path / "out"
    options = ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]
    options += ["--models", '["mitoray-s"]', "--classifier", "mitoray-c", "--output", str(out), "--threads", "1"]
    assert main(["third", *options]) == 2
    assert "holds no proposal" in capsys.readouterr().err
    assert main(["propose", *options]) == 0
    assert "groups by the score of the classifier" in capsys.readouterr().out
    review = read_review_set(out / "review.parquet")
    truth = {row["candidate_id"]: FIGURE if near(row, gone) else IMPOSTER for row in review.table.to_pylist()}
    found = list(truth.values()).count(FIGURE)
    assert found >= len(gone) - 1 >= 1

    written = {path: path.stat().st_mtime_ns for path in out.rglob("for-expert*/**/*")}
    assert main(["propose", *options]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("for-expert*/**/*")} == written
    assert main(["propose", *options, "--least-score", "0.5"]) == 2
    assert "curation.least_score" in capsys.readouterr().err

    one = next(iter(truth))
    other = {**truth, one: FIGURE if truth[one] == IMPOSTER else IMPOSTER}
    label_in_sliderunner(out / "for-expert-1/candidates.sqlite", "CB", truth)
    fill_in(out / "for-expert-2/decisions.csv", other)
    panel = ["--first", str(out / "for-expert-1"), "--second", str(out / "for-expert-2"), "--names", '["CB", "RK"]']
    assert main(["import", *options, *panel]) == 2
    assert "ExpertsDisagree" in capsys.readouterr().err
    assert not (out / "labels.parquet").exists()
    assert main(["third", *options, *panel]) == 0
    label_in_sliderunner(out / "for-third-expert/candidates.sqlite", "TD", {one: truth[one]})
    panel += ["--third", str(out / "for-third-expert")]
    database = f"sqlite:///{tmp_path}/mlruns.db"
    assert main(["import", *options, *panel, "--mlflow", database]) == 0
    assert main(["import", *options, *panel]) == 0

    before, after = pq.read_table(folder / "labels.parquet"), pq.read_table(out / "labels.parquet")
    added = after.slice(len(before)).to_pylist()
    assert len(added) == len(truth)
    assert sum(row["kind"] == FIGURE for row in added) == found
    assert sorted(len(row["votes"]) for row in added) == [3] * (len(truth) - 1) + [4]
    assert {row["votes"][-1]["rater"] for row in added} == {"model mitoray-s"}
    assert {row["dataset"] for row in added} == {"phantom"}
    version = version_of(out / "labels.parquet")
    assert (version.raters, version.added.get(FIGURE), version.notes["proposer"]) == (
        ("CB", "RK", "TD"),
        found,
        "model mitoray-s",
    )
    total = pyarrow.csv.read_csv(out / "added.csv").to_pylist()[-1]
    assert total["figures_after"] - total["figures_before"] == found
    with closing(sqlite3.connect(f"file:{out}/for-expert-1/candidates.sqlite?mode=ro", uri=True)) as sql:
        joined = (
            "SELECT a.guid, p.name, c.name FROM Annotations_label l JOIN Annotations a ON a.uid = l.annoId "
            "JOIN Persons p ON p.uid = l.person JOIN Classes c ON c.uid = l.class"
        )
        assert {guid: kind for guid, person, kind in sql.execute(joined) if person == "CB"} == truth
    pq.write_table(before.slice(1), tmp_path / "other.parquet")
    changed = [*options[:3], str(tmp_path / "other.parquet"), *options[4:]]
    assert main(["import", *changed, *panel]) == 2
    assert "not those that candidates were proposed for" in capsys.readouterr().err


def test_likely_figures_of_an_ambiguous_class_are_reviewed_and_the_rest_are_look_alikes(
    job, cohort, ray_session, tmp_path, capsys
):
    folder, _ = cohort
    main, out = job("curate_hard_examples"), tmp_path / "hard"
    options = ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]
    options += ["--output", str(out), "--likely", "0.3"]
    assert main(["propose", *options, "--kind", "strange"]) == 2
    assert "No label is of the kind 'strange'" in capsys.readouterr().err
    options += ["--kind", "ambiguous"]
    assert main(["propose", *options]) == 0
    review = read_review_set(out / "review.parquet")
    assert review.choices == (FIGURE, IMPOSTER, "ambiguous")
    decided = dict.fromkeys(review.ids, FIGURE) | {review.ids[0]: "ambiguous"}
    for name, person in (("for-expert-1", "CB"), ("for-expert-2", "RK")):
        label_in_sliderunner(out / name / "candidates.sqlite", person, decided)
    panel = ["--first", str(out / "for-expert-1"), "--second", str(out / "for-expert-2")]
    assert main(["import", *options, *panel]) == 0
    before, after = pq.read_table(folder / "labels.parquet"), pq.read_table(out / "labels.parquet")
    was, now = before["kind"].to_pylist(), after["kind"].to_pylist()
    of_class = [now[n] for n, kind in enumerate(was) if kind == "ambiguous"]
    assert of_class.count(FIGURE) == len(review) - 1
    assert of_class.count("ambiguous") == 1
    assert of_class.count(IMPOSTER) == 8 - len(review)
    assert [n for n, kind in zip(now, was, strict=True) if kind != "ambiguous"] == [k for k in was if k != "ambiguous"]
    assert json.loads(pq.read_schema(out / "labels.parquet").metadata[b"mitoray.version"])["raters"] == ["CB", "RK"]


def test_an_ambiguous_class_without_likely_figures_becomes_look_alikes_without_a_review(
    job, cohort, ray_session, tmp_path, capsys
):
    folder, _ = cohort
    main, out = job("curate_hard_examples"), tmp_path / "hard"
    options = ["--manifest", str(folder / "manifest.csv"), "--labels", str(folder / "labels.parquet")]
    options += ["--output", str(out), "--likely", "1", "--kind", "ambiguous"]
    assert main(["propose", *options]) == 0
    assert "Import the look-alikes, or lower --likely" in capsys.readouterr().out
    assert not (out / "review.parquet").exists()
    assert main(["import", *options]) == 0
    was, now = (pq.read_table(at / "labels.parquet")["kind"].to_pylist() for at in (folder, out))
    assert {new for old, new in zip(was, now, strict=True) if old == "ambiguous"} == {IMPOSTER}
    assert [new for old, new in zip(was, now, strict=True) if old != "ambiguous"] == [
        k for k in was if k != "ambiguous"
    ]
    assert json.loads(pq.read_schema(out / "labels.parquet").metadata[b"mitoray.version"])["raters"] == []


@pytest.mark.slow
@pytest.mark.nightly
def test_parts_of_the_cases_are_scored_by_what_the_others_train(job, ray_session, tmp_path, capsys):
    draw_cohort(tmp_path, n_slides=3, seed=520, width_px=1800, height_px=1800, domains=["phantom-lymphoma-a"])
    table = pq.read_table(tmp_path / "labels.parquet")
    pq.write_table(table.filter(pc.less(table["x_px"], 1200)), tmp_path / "labels.parquet")
    options = ["--manifest", str(tmp_path / "manifest.csv"), "--labels", str(tmp_path / "labels.parquet")]
    options += ["--architecture", "mitoray-s", "--settings", json.dumps(load_bundle("mitoray-s").settings)]
    options += ["--model-mpp", "0.5", "--initial", "mitoray-s", "--learning-rate", "1e-4", "--patch-px", "64"]
    options += ["--patches", "32", "--validation-patches", "16", "--batch-size", "16", "--epochs", "1"]
    options += ["--threads", "1", "--workers", "1", "--validation-share", "0.5", "--output", str(tmp_path / "out")]
    main = job("curate_missed")
    assert main(["propose", *options]) == 0
    said = capsys.readouterr().out
    assert "by the score of the detector (no classifier was given)" in said
    bundles = [load_bundle(str(tmp_path / f"out/part-{part}/bundle")) for part in range(3)]
    assert len({bundle.digest for bundle in bundles}) == 3
    held = json.loads((tmp_path / "out/settings.json").read_text())["parts"]
    assert sorted(len(part) for part in held.values()) == [1, 1, 1]
    review = read_review_set(tmp_path / "out/review.parquet").table
    figures = table.filter(pc.and_(pc.equal(table["kind"], FIGURE), pc.greater_equal(table["x_px"], 1200))).to_pylist()
    found = [one for one in figures if near(one, review.to_pylist())]
    assert len(found) >= len(figures) / 2 >= 1
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*/bundle/*")}
    assert main(["propose", *options]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
