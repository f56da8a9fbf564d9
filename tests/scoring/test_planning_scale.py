"""What planning leaves in a run's folder, what is counted from there without holding it, and what a resume redoes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from mitoray.scoring import planning
from mitoray.scoring.config import Cohort, Method
from mitoray.scoring.manifest import ManifestRow, checked
from mitoray.scoring.plan import plan_slide, regions_of
from mitoray.scoring.planning import Batch, Cut, cut_regions, plan_batch, plan_cohort
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.schema import PLAN, REGIONS, SCORES
from mitoray.scoring.work import CHECKPOINT, PLANS, REGION_TABLES, SCORE_TABLES, PlanRef, Work
from mitoray.storage import Folder

SIZES = {"region_um": 64.0, "halo_um": 8.0}


def write_slide(path: Path, side_px: int) -> None:
    """A slide with tissue left of the middle, 0.25 µm/px."""
    pixels = np.full((side_px, side_px, 3), 243, np.uint8)
    pixels[:, : side_px // 2] = (200, 120, 170)
    description = "Aperio Image Library v1|AppMag = 40|MPP = 0.25"
    options = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, description=description, **options)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Eleven slides of two sizes; one of them is missing and one glass."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(11):
        write_slide(folder / f"{number}.svs", 1024 + 512 * (number % 2))
    glass = np.full((512, 512, 3), 243, np.uint8)
    description = "Aperio Image Library v1|AppMag = 40|MPP = 0.25"
    tifffile.imwrite(folder / "4.svs", glass, tile=(256, 256), description=description, metadata=None)
    (folder / "7.svs").rename(folder / "elsewhere.svs")
    # Not in the order of their names.
    return [
        ManifestRow(f"slide~{number}", str(folder / f"{number}.svs")) for number in (5, 3, 4, 7, 0, 1, 2, 8, 6, 9, 10)
    ]


def run_of(rows, folder):
    return Run.claim(Cohort(checked(rows), "mitoray-s", str(folder / "run"), Method(region_um=64)))


def table(run, subfolder):
    return pa.concat_tables([run.folder.read_table(name) for name in run.folder.names(subfolder, ".parquet")])


def expected_regions(run, rows):
    sizes = {"region_um": 64.0, "halo_um": run.halo_um()}
    plans = [(plan_slide(row, **sizes), row.uri) for row in rows]
    tables = [regions_of(plan, uri, **sizes) for plan, uri in plans if plan["status"] == "planned"]
    return pa.concat_tables(tables)


def test_regions_stand_in_the_order_of_the_manifest_and_a_resume_plans_only_what_failed(ray_session, slides, tmp_path):
    run = run_of(slides, tmp_path)
    run.write_record("running")
    plans = plan_cohort(run, progress=False)
    assert {name for name, plan in plans.items() if plan.status == "failed"} == {"slide~7"}
    regions, whole = table(run, REGION_TABLES), expected_regions(run, slides)
    assert regions.schema == REGIONS
    assert regions.equals(whole)
    assert regions.num_rows > 60
    before = {name: run.folder.read_bytes(name) for name in run.folder.names(PLANS, ".parquet")}
    assert table(run, PLANS).schema == PLAN

    missing = next(row for row in slides if row.slide_id == "slide~7")
    (Path(missing.uri).parent / "elsewhere.svs").rename(missing.uri)
    again = run_of(slides, tmp_path)
    plans = plan_cohort(again, progress=False)
    assert {plan.status for plan in plans.values()} == {"planned"}
    after = {name: run.folder.read_bytes(name) for name in run.folder.names(PLANS, ".parquet")}
    assert {name: after[name] for name in before} == before
    (new,) = set(after) - set(before)
    assert run.folder.read_table(new)["slide_id"].to_pylist() == ["slide~7"]
    assert table(run, REGION_TABLES).slice(0, regions.num_rows).equals(regions)
    assert table(run, REGION_TABLES).slice(regions.num_rows).equals(expected_regions(run, [missing]))

    plan_cohort(run_of(slides, tmp_path), progress=False)
    assert set(run.folder.names(PLANS, ".parquet")) == set(after)
    assert table(run, REGION_TABLES).num_rows == regions.num_rows + expected_regions(run, [missing]).num_rows


def test_a_folder_of_plans_by_an_earlier_version_is_cut_and_counted(ray_session, slides, tmp_path):
    rows = [row for row in slides if row.slide_id != "slide~7"]
    run = run_of(rows, tmp_path)
    run.write_record("running")
    sizes = {"region_um": 64.0, "halo_um": run.halo_um()}
    made = [plan_slide(row, **sizes) for row in reversed(rows)]
    # Killed before it cut regions, after one slide had failed and was planned again.
    failed = {"slide_id": rows[0].slide_id, "status": "failed", "error": "SlideNotFound: gone", "cores": []}
    for number, some in enumerate((made[:4], [failed, *made[4:]])):
        run.folder.write_table(f"{PLANS}/{number:06d}.parquet", pa.Table.from_pylist(some, schema=PLAN))
    plans = plan_cohort(run, progress=False)
    assert len(run.folder.names(PLANS, ".parquet")) == 2
    assert table(run, REGION_TABLES).equals(expected_regions(run, rows))

    # Every region scored, with one candidate in its middle.
    regions = table(run, REGION_TABLES).to_pylist()
    scores = pa.Table.from_pylist([scored(region) for region in regions], schema=SCORES)
    run.folder.write_table(f"{SCORE_TABLES}/a.parquet", scores.slice(0, 20))
    run.folder.write_table(f"{SCORE_TABLES}/b.parquet", scores.slice(20))
    counted = reduce_cohort(run, plans, progress=False)
    assert counted["slide_id"].to_pylist() == [row.slide_id for row in rows]
    assert set(counted["status"].to_pylist()) == {"scored"}
    n_regions = Counter(region["slide_id"] for region in regions)
    assert counted["n_regions"].to_pylist() == [n_regions[row.slide_id] for row in rows]
    glass = counted["slide_id"].to_pylist().index("slide~4")
    assert counted["n_detections"][glass].as_py() == 0
    assert counted["n_detections"].to_pylist()[:glass] == [n_regions[row.slide_id] for row in rows[:glass]]


def scored(region, status="scored", **other):
    middle = {axis: region[axis] + region[side] / 2 for axis, side in (("x_px", "width_px"), ("y_px", "height_px"))}
    kept = {name: value for name, value in region.items() if name in SCORES.names}
    candidates = [{**middle, "x_px": region["x_px"] + 100.0, "detector_score": 0.9, "score": 0.9}]
    return {**kept, "status": status, "candidates": candidates if status == "scored" else [], **other}


def test_a_slow_task_writes_what_it_has_and_every_slide_is_found(slides, tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    monkeypatch.setattr(planning, "KEEP_EVERY_S", 0.0)
    refs = plan_batch(folder, SIZES, None, Batch(slides[:3], f"{PLANS}/000000-a.parquet"))
    assert len({ref.file for ref in refs}) == 3
    assert Work(folder).plans() == {ref.slide_id: ref for ref in refs}
    for ref in refs:
        assert folder.read_table(ref.file)["slide_id"].to_pylist() == [ref.slide_id]


def test_files_of_regions_end_with_a_slide_and_are_few(slides, tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    monkeypatch.setattr(planning, "REGION_ROWS", 30)
    rows = [row for row in slides if row.slide_id not in ("slide~4", "slide~7")]
    refs = plan_batch(folder, SIZES, None, Batch(rows, f"{PLANS}/000000-a.parquet"))
    names = Work(folder).new_names(REGION_TABLES)
    cut_regions(folder, SIZES, [Cut(ref, row.uri, next(names)) for ref, row in zip(refs, rows, strict=True)])
    tables = [folder.read_table(name) for name in folder.names(REGION_TABLES, ".parquet")]
    assert len(tables) > 1
    held = [set(one["slide_id"].to_pylist()) for one in tables]
    assert sum(map(len, held)) == len(rows) == len(set.union(*held))
    largest = max(Work(folder).region_counts().values())
    assert all(30 <= one.num_rows < 30 + largest for one in tables[:-1])


@pytest.fixture
def scored_work(tmp_path):
    """A folder with three score tables, out of which a few regions failed, one of them once, one twice and for good."""
    folder = Folder.at(str(tmp_path))
    regions = [
        {"region_id": f"{slide_id}/{number:06d}", "slide_id": slide_id, "uri": f"/data/{slide_id}", "halo_px": 16}
        | {"x_px": number * 256, "y_px": 0, "width_px": 256, "height_px": 256, "mpp": 0.25}
        for slide_id, n in (("a~b", 5), ("a", 3), ("a b", 4))
        for number in range(n)
    ]
    again = [{**regions[place], "region_id": regions[place]["region_id"] + "~2"} for place in (1, 6)]
    for number, some in enumerate((regions, again)):
        folder.write_table(f"{REGION_TABLES}/{number:06d}.parquet", pa.Table.from_pylist(some, schema=REGIONS))
    outcomes = [scored(region, "failed" if place in (1, 6, 9) else "scored") for place, region in enumerate(regions)]
    outcomes += [scored(again[0], "failed"), scored(again[1])]
    for number, some in enumerate((outcomes[10:], outcomes[:4], outcomes[4:10])):
        rows = pa.Table.from_pylist(some, schema=SCORES)
        folder.write_table(f"{SCORE_TABLES}/{number}.parquet", rows)
        folder.write_table(f"{CHECKPOINT}/{number}.parquet", rows.select(["region_id"]))
    folder.write_table(f"{CHECKPOINT}/9.pending.parquet", pa.table({"region_id": ["a/000002"]}))
    return folder


def test_counts_are_those_of_reading_everything(scored_work):
    work, root = Work(scored_work), Path(scored_work.root)
    assert work.region_counts() == Counter(pq.read_table(root / REGION_TABLES)["slide_id"].to_pylist())
    assert work.region_counts() == {"a~b": 6, "a": 4, "a b": 4}
    assert work.scored_counts() == {"a~b": 6, "a": 4, "a b": 4}
    rows = {name: pq.read_table(root / name)["slide_id"].to_pylist() for name in scored_work.names(SCORE_TABLES, "")}
    expected = {slide: [name for name in sorted(rows) if slide in rows[name]] for slide in ("a~b", "a", "a b")}
    assert work.files_by_slide() == expected


def test_a_region_that_no_attempt_scored_is_queued_once_under_a_new_id(scored_work):
    work = Work(scored_work)
    before = scored_work.names(REGION_TABLES, ".parquet")
    assert work.queue_again(3) == 2
    (new,) = set(scored_work.names(REGION_TABLES, ".parquet")) - set(before)
    queued = scored_work.read_table(new)
    assert queued.schema == REGIONS
    assert queued["region_id"].to_pylist() == ["a~b/000001~3", "a b/000001~3"]
    assert queued["x_px"].to_pylist() == [256, 256]


def test_a_region_held_for_done_whose_scores_are_gone_is_queued_too(scored_work):
    work = Work(scored_work)
    scored_work.write_table(f"{CHECKPOINT}/7.parquet", pa.table({"region_id": ["a/000003", "a/000002~2"]}))
    scored_work.remove(f"{SCORE_TABLES}/2.parquet")
    table = scored_work.read_table(f"{CHECKPOINT}/2.parquet")
    gone = {id_.partition("~")[0] for id_ in table["region_id"].to_pylist()}
    before = scored_work.names(REGION_TABLES, ".parquet")
    queued_again = work.queue_again(3)
    (new,) = set(scored_work.names(REGION_TABLES, ".parquet")) - set(before)
    queued = {id_.removesuffix("~3") for id_ in scored_work.read_table(new)["region_id"].to_pylist()}
    assert len(queued) == queued_again
    scored_now = {
        row["region_id"].partition("~")[0]
        for name in scored_work.names(SCORE_TABLES, ".parquet")
        for row in scored_work.read_table(name).to_pylist()
        if row["status"] == "scored"
    }
    assert gone - scored_now
    assert gone - scored_now <= queued
    assert not queued & scored_now


def test_only_a_pending_checkpoint_that_was_committed_too_is_finished(scored_work):
    work = Work(scored_work)
    rows = pa.table({"region_id": ["a/000002"]})
    scored_work.write_table(f"{CHECKPOINT}/1.pending.parquet", rows)
    before = set(scored_work.names(CHECKPOINT, ".parquet"))
    assert work.finish_commits() == 1
    assert before - set(scored_work.names(CHECKPOINT, ".parquet")) == {f"{CHECKPOINT}/1.pending.parquet"}
    assert work.finish_commits() == 0


def test_nothing_is_queued_where_nothing_failed_or_nothing_is_there(tmp_path):
    work = Work(Folder.at(str(tmp_path)))
    assert work.queue_again(2) == 0
    assert (work.plans(), work.region_counts(), work.scored_counts(), work.files_by_slide()) == ({}, {}, {}, {})


def test_new_names_sort_behind_all_that_are_there_and_are_never_chosen_twice(tmp_path):
    work = Work(Folder.at(str(tmp_path)))
    for name in ("000000.parquet", "000007-12345678.parquet", "000002-12345678-02.parquet"):
        work.folder.write_table(f"{PLANS}/{name}", pa.table({"slide_id": ["a"], "status": ["planned"]}))
    names, others = work.new_names(PLANS), work.new_names(PLANS)
    chosen = [next(names) for _ in range(3)]
    assert min(chosen) > max(work.folder.names(PLANS, ".parquet"))
    assert chosen == sorted(chosen)
    assert not set(chosen) & {next(others) for _ in range(3)}
    assert work.plans() == {"a": PlanRef("a", "planned", f"{PLANS}/000007-12345678.parquet")}
