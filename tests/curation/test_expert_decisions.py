"""Review sets given to experts, blinded, and what comes back of them."""

import csv
import io
import json
import sqlite3
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel import classify_in_qupath, fill_in, label_in_sliderunner
from PIL import Image

from mitoray.curation.crops import expert_crops
from mitoray.curation.decisions import Decisions, read_decisions
from mitoray.curation.review import read_review_set, review_set, write_review_set
from mitoray.curation.review_files import write_review
from mitoray.curation.versions import describe, labels_digest, version_of, with_added, with_changed, write_version
from mitoray.curation.votes import disagreed, for_third, majority, settle
from mitoray.errors import BadDecisions, ExpertsDisagree, OutputBelongsToAnotherRun
from mitoray.labels import read_labels
from mitoray.labels.agreement import expert_agreement
from mitoray.labels.schema import LABELS
from mitoray.phantom import draw_phantom, write_slide
from mitoray.training.slides import open_training_slide

FIGURE, IMPOSTER = "mitotic_figure", "imposter"
HOSTILE = "<script>alert(1)</script>'; DROP TABLE Annotations; --"


def places(slide_ids=("a",), n=8):
    rows = [
        {"slide_id": slide_id, "x_px": 20.0 + 9 * i, "y_px": 30.0 + i, "group": i}
        for slide_id in slide_ids
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows)


def no_crops(table):
    return ((one, b"") for one in table["candidate_id"].to_pylist())


@pytest.fixture
def review():
    return review_set(places(), seed=3, what="test")


@pytest.fixture
def folder(review, tmp_path):
    write_review(review, tmp_path / "expert", no_crops)
    return tmp_path / "expert"


def alternating(review):
    return {one: (FIGURE, IMPOSTER)[i % 2] for i, one in enumerate(review.ids)}


def test_an_expert_sees_neither_class_nor_score_nor_the_order_of_the_scores(review, folder, tmp_path):
    slide = draw_phantom("phantom-breast-a", seed=1, width_px=300, height_px=300, slide_id="a")
    write_slide(slide, tmp_path / "a.svs")
    opened = open_training_slide("a", str(tmp_path / "a.svs"))
    write_review(review, tmp_path / "real", lambda table: expert_crops(table, [opened]), {"a": "a.svs"})
    crops = sorted((tmp_path / "real/crops").iterdir())
    assert [file.stem for file in crops] == sorted(review.ids)
    assert {Image.open(file).size for file in crops} == {(128, 128)}
    row = review.table.to_pylist()[0]
    crop = np.asarray(Image.open(tmp_path / "real/crops" / f"{row['candidate_id']}.png")).astype(int)
    x, y = int(row["x_px"]), int(row["y_px"])
    known = slide.image[max(0, y - 8) : y + 8, max(0, x - 8) : x + 8].astype(int)  # the slide is a JPEG
    assert np.abs(crop[64 - 8 : 64 + 8, 64 - 8 : 64 + 8].mean((0, 1)) - known.mean((0, 1))).max() < 8

    groups = review.table["group"].to_pylist()
    assert groups != sorted(groups)
    assert groups != sorted(groups, reverse=True)
    with closing(sqlite3.connect(f"file:{tmp_path}/real/candidates.sqlite?mode=ro", uri=True)) as database:
        assert database.execute("SELECT filename FROM Slides").fetchall() == [("a.svs",)]
        assert database.execute("SELECT count(*) FROM Annotations_label").fetchone() == (0,)
        agreed = "SELECT DISTINCT c.name FROM Annotations a JOIN Classes c ON c.uid = a.agreedClass"
        assert database.execute(agreed).fetchall() == [("candidate",)]
        assert [guid for (guid,) in database.execute("SELECT guid FROM Annotations ORDER BY uid")] == review.ids
    (file,) = (folder / "qupath").iterdir()
    for feature in json.loads(file.read_text())["features"]:
        assert set(feature["properties"]) == {"objectType", "name", "metadata"}
        assert set(feature["properties"]["metadata"]) == {"candidate_id", "review_set"}
    header, *cells = csv.reader(io.StringIO((folder / "decisions.csv").read_text()))
    assert header == ["candidate_id", "decision", "review_set"]
    assert {cell[1] for cell in cells} == {""}
    assert review.reordered(5).ids != review.ids
    assert review.reordered(5).digest == review.digest


def test_all_three_files_give_the_same_decisions(review, tmp_path):
    wanted = alternating(review)
    for name in ("sql", "qupath", "table"):
        write_review(review, tmp_path / name, no_crops)
    label_in_sliderunner(tmp_path / "sql/candidates.sqlite", "CB", wanted)
    classify_in_qupath(tmp_path / "qupath/qupath", wanted)
    spelled = {one: {FIGURE: "Mitotic figure", IMPOSTER: "non-mitotic cell"}[kind] for one, kind in wanted.items()}
    fill_in(tmp_path / "table/decisions.csv", spelled)
    found = [read_decisions(tmp_path / name, review, "CB") for name in ("sql", "qupath", "table")]
    assert [dict(decisions.kinds) for decisions in found] == [wanted] * 3
    assert read_decisions(tmp_path / "sql/candidates.sqlite", review).rater == "CB"
    with pytest.raises(BadDecisions, match="does not say whose"):
        read_decisions(tmp_path / "table", review)
    fill_in(tmp_path / "sql/decisions.csv", wanted)
    with pytest.raises(BadDecisions, match=r"candidates\.sqlite and in decisions\.csv"):
        read_decisions(tmp_path / "sql", review)


def test_two_experts_and_a_third_make_a_new_version_and_leave_the_old_one(review, tmp_path):
    write_review(review, tmp_path / "both", no_crops)
    database = tmp_path / "both/candidates.sqlite"
    first = alternating(review)
    second = dict(first)
    flipped = review.ids[2:4]
    second |= {one: FIGURE if first[one] == IMPOSTER else IMPOSTER for one in flipped}
    label_in_sliderunner(database, "CB", first)
    label_in_sliderunner(database, "RK", second)
    with pytest.raises(BadDecisions, match="Several persons"):
        read_decisions(database, review)
    two = [read_decisions(database, review, name) for name in ("CB", "RK")]
    assert disagreed(review, *two) == flipped
    with pytest.raises(ExpertsDisagree, match="2 candidates"):
        settle(review, two)

    third_set = for_third(review, *two, seed=9)
    assert sorted(third_set.ids) == sorted(flipped)
    write_review(third_set, tmp_path / "third", no_crops)
    label_in_sliderunner(tmp_path / "third/candidates.sqlite", "TD", {one: second[one] for one in flipped})
    third = read_decisions(tmp_path / "third", third_set)
    settled = settle(review, [*two, third], ("model mitoray-s", "candidate"))
    assert settled.kinds == second

    parent_rows = [{"slide_id": "a", "x_px": 1.0, "y_px": 1.0, "kind": FIGURE, "subtype": "normal"}]
    parent = with_added(LABELS.empty_table(), parent_rows)
    pq.write_table(parent, tmp_path / "mel.parquet")
    before = (tmp_path / "mel.parquet").read_bytes()
    names = ("slide_id", "x_px", "y_px", "kind", "votes")
    child = with_added(parent, [{name: row[name] for name in names} for row in settled.table.to_pylist()])
    version = describe(parent, child, step="missed", raters=["CB", "RK", "TD"], review_set=review.digest)
    assert write_version(child, version, tmp_path / "odael.parquet")
    assert not write_version(child, version, tmp_path / "odael.parquet")
    with pytest.raises(OutputBelongsToAnotherRun):
        write_version(parent, version, tmp_path / "odael.parquet")
    assert (tmp_path / "mel.parquet").read_bytes() == before

    told = version_of(tmp_path / "odael.parquet")
    assert told == version
    assert told.parent == labels_digest(parent)
    assert told.added == {kind: list(second.values()).count(kind) for kind in (FIGURE, IMPOSTER)}
    labels = read_labels(tmp_path / "odael.parquet")
    by_place = {(row["x_px"], row["y_px"]): row for row in labels.to_pylist()}
    for row in review.table.to_pylist():
        one, label = row["candidate_id"], by_place[row["x_px"], row["y_px"]]
        asked = {"TD": second[one]} if one in flipped else {}
        votes = {"CB": first[one], "RK": second[one], **asked, "model mitoray-s": "candidate"}
        assert [(vote["rater"], vote["kind"]) for vote in label["votes"]] == list(votes.items())
    total = expert_agreement(labels).to_pylist()[-1]
    assert (total["labels"], total["disagreed"]) == (8, 2 / 8)

    changed = with_changed(labels, {0: {"kind": IMPOSTER}})
    assert changed["subtype"][0].as_py() is None
    older = tmp_path / "odael.parquet"
    newer = describe(labels, changed, step="flip", raters=["CB", "RK"], review_set="x", parent_file=older)
    assert newer.changed == {f"{FIGURE} to {IMPOSTER}": 1}
    assert [step["step"] for step in newer.history] == ["missed"]


def test_decisions_that_cannot_be_are_refused_by_name(review, folder, tmp_path):
    table, database = folder / "decisions.csv", folder / "candidates.sqlite"
    good = alternating(review)
    fill_in(table, {**good, review.ids[0]: "perhaps"})
    with pytest.raises(BadDecisions, match="'perhaps', which is no choice"):
        read_decisions(table, review, "CB")
    fill_in(table, {one: good[one] for one in review.ids[:-2]})
    with pytest.raises(BadDecisions, match=f"2 are left, {review.ids[-2]}, {review.ids[-1]}"):
        read_decisions(table, review, "CB")
    partly = read_decisions(table, review, "CB", partly=True)
    assert partly.missing == tuple(review.ids[-2:])
    whole = Decisions("RK", good)
    assert settle(review, [partly, whole]).undecided == partly.missing

    fill_in(table, good)
    text = table.read_text()
    table.write_text(f"{text}{review.ids[0]},{IMPOSTER if good[review.ids[0]] == FIGURE else FIGURE},{review.digest}\n")
    with pytest.raises(BadDecisions, match="twice, as"):
        read_decisions(table, review, "CB")
    table.write_text(f'{text}"{HOSTILE}",{FIGURE},{review.digest}\n')
    with pytest.raises(BadDecisions, match="no candidate of this review set") as raised:
        read_decisions(table, review, "CB")
    assert len(str(raised.value)) < 300
    table.write_text(text)
    other = review_set(places(n=9), seed=3)
    with pytest.raises(BadDecisions, match="belongs to the review set"):
        read_decisions(table, other, "CB")
    with pytest.raises(BadDecisions, match="belongs to the review set"):
        read_decisions(folder / "qupath", other, "CB")
    with pytest.raises(BadDecisions, match="belongs to the review set"):
        read_decisions(database, other, "CB")
    with pytest.raises(BadDecisions, match="no person has labelled"):
        read_decisions(database, review)
    table.write_text("candidate_id\nx\n")
    with pytest.raises(BadDecisions, match="lacks the column decision"):
        read_decisions(table, review, "CB")
    (tmp_path / "cut.sqlite").write_bytes(database.read_bytes()[:5000])
    with pytest.raises(BadDecisions, match="cut short"):
        read_decisions(tmp_path / "cut.sqlite", review)

    label_in_sliderunner(database, "CB", good)
    with closing(sqlite3.connect(database)) as sql, sql:
        sql.execute("INSERT INTO Annotations (slide, guid, type, agreedClass) VALUES (1, ?, 1, 1)", (HOSTILE,))
    with pytest.raises(BadDecisions, match="no candidate of this review set"):
        read_decisions(database, review)
    with closing(sqlite3.connect(database)) as sql, sql:
        sql.execute("DELETE FROM Annotations WHERE guid = ?", (HOSTILE,))
        sql.execute(
            "INSERT INTO Annotations_label (person, class, annoId) SELECT 1, 3 - class, annoId FROM "
            "Annotations_label WHERE annoId = 1"
        )
    with pytest.raises(BadDecisions, match="twice, as"):
        read_decisions(database, review)


@pytest.mark.parametrize("strange", ["", "../../x", "a/b", HOSTILE, "=1+1", "x" * 101, "a\n", None, ".hidden"])
def test_an_id_that_a_file_a_page_or_a_query_would_mistake_is_refused(strange):
    table = places(n=1).append_column("candidate_id", pa.array([strange], pa.string()))
    with pytest.raises(BadDecisions, match="Ids hold letters"):
        review_set(table, seed=0)


def test_two_ids_that_differ_by_case_alone_are_refused():
    table = places(n=2).append_column("candidate_id", pa.array(["one", "ONE"]))
    with pytest.raises(BadDecisions, match="Two candidates have the id"):
        review_set(table, seed=0)
    with pytest.raises(BadDecisions, match="Two candidates have the id"):
        review_set(pa.concat_tables([places(n=1), places(n=1)]), seed=0)


def test_no_slide_id_leaves_the_expert_folder_and_decisions_still_come_back(tmp_path):
    review = review_set(places(["../../../up", "..", HOSTILE, "/abs"], n=2), seed=1)
    write_review(review, tmp_path / "in/expert", no_crops)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["expert"]
    assert len(list((tmp_path / "in/expert/qupath").iterdir())) == 4
    label_in_sliderunner(tmp_path / "in/expert/candidates.sqlite", HOSTILE, alternating(review))
    found = read_decisions(tmp_path / "in/expert", review)
    assert (found.rater, dict(found.kinds)) == (HOSTILE, alternating(review))


def test_an_expert_folder_appears_whole_and_is_never_written_over(review, tmp_path):
    def broken(table):
        yield review.ids[0], b""
        raise OSError("the slide went away")

    with pytest.raises(OSError, match="went away"):
        write_review(review, tmp_path / "expert", broken)
    assert not list(tmp_path.iterdir())
    assert write_review(review, tmp_path / "expert", no_crops)
    fill_in(tmp_path / "expert/decisions.csv", alternating(review))
    assert not write_review(review.reordered(4), tmp_path / "expert", no_crops)
    assert read_decisions(tmp_path / "expert", review, "CB").missing == ()
    with pytest.raises(OutputBelongsToAnotherRun):
        write_review(review_set(places(n=2), seed=0), tmp_path / "expert", no_crops)


def test_a_review_set_is_read_as_it_was_written_or_refused(review, tmp_path):
    write_review_set(review, tmp_path / "r.parquet")
    again = read_review_set(tmp_path / "r.parquet")
    assert (again.table, again.choices, again.digest) == (review.table, review.choices, review.digest)
    table = pq.read_table(tmp_path / "r.parquet")
    pq.write_table(table.slice(1), tmp_path / "r.parquet")
    with pytest.raises(BadDecisions, match="was changed"):
        read_review_set(tmp_path / "r.parquet")
    pq.write_table(places(), tmp_path / "r.parquet")
    with pytest.raises(BadDecisions, match="is no review set"):
        read_review_set(tmp_path / "r.parquet")


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_the_majority_has_more_votes_than_any_other(kinds):
    won = majority(kinds)
    tops = [kind for kind in set(kinds) if all(kinds.count(kind) >= kinds.count(other) for other in kinds)]
    assert won == (tops[0] if len(tops) == 1 else None)
