"""A run never counts a slide whole whose scores are not all there, and brings them back."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow, checked
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.run import Run


@pytest.fixture(scope="module")
def scored(ray_session, tmp_path_factory):
    """A cohort of one slide in several regions, the folder of its run, and its SLIDES table."""
    folder = tmp_path_factory.mktemp("cohort")
    manifest, _ = draw_cohort(folder, n_slides=1, seed=910_000, width_px=2400, height_px=1800)
    rows = checked([ManifestRow(**row) for row in manifest.to_pylist()])
    cohort = Cohort(rows, "mitoray-s", str(folder / "out"), Method(region_um=128))
    return cohort, folder / "out", score_cohort(Run.claim(cohort), Resources(num_actors=1), progress=False)


def interrupted(cohort, folder):
    """The run as if its driver had been killed before the end."""
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))
    return Run.claim(cohort)


def n_scores(folder):
    return pq.read_table(folder / "work/scores").num_rows


def test_a_checkpoint_cut_off_between_its_copy_and_the_deletion_costs_no_scores(scored):
    cohort, folder, slides = scored
    before = n_scores(folder)
    committed, *_, other = sorted((folder / "work/checkpoint").glob("*.parquet"))
    pending = committed.with_suffix(".pending.parquet")
    shutil.copy(committed, pending)  # what a move within object storage leaves when it is interrupted
    for path in (other, *(folder / "work/scores").glob(f"{other.stem}*")):  # so that something is left to do
        path.unlink()
    assert n_scores(folder) < before
    assert score_cohort(interrupted(cohort, folder), Resources(num_actors=1), progress=False) == slides
    assert committed.exists()
    assert not pending.exists()
    assert n_scores(folder) == before


def test_scores_that_are_gone_are_told_of_and_come_back(scored):
    cohort, folder, slides = scored
    table = max((folder / "work/scores").glob("*.parquet"), key=lambda path: pq.read_table(path).num_rows)
    lost = pq.read_table(table).num_rows
    table.unlink()
    run = interrupted(cohort, folder)
    (row,) = reduce_cohort(run, run.work.plans(), progress=False).to_pylist()
    assert (row["status"], row["n_failed_regions"]) == ("partial", lost)
    assert "RegionLost" in row["error"]
    assert row["unscored_mm2"] > 0
    assert score_cohort(run, Resources(num_actors=1), progress=False) == slides
    assert json.loads((folder / f"work/attempts/{run.attempt:04d}.json").read_text())["n_regions"] == lost
