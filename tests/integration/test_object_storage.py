"""The same slides from disk and from S3 over HTTP give the same results, wherever these are written."""

from pathlib import Path

import pytest

from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort, Resources
from mitoray.scoring.manifest import ManifestRow, manifest_from_globs
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.run import Run
from mitoray.storage import Folder

REAL = Path(__file__).parents[2] / "../shared/data/slides"
"""Two real slides, of which one does not know its µm/px; without them the test runs on phantoms alone."""


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    draw_cohort(folder, n_slides=1, seed=930_000, width_px=2000, height_px=1500)
    real = [path.resolve() for path in sorted(REAL.glob("*.svs"))]
    paths = [*folder.glob("*.svs"), *real]
    return [ManifestRow(path.stem, str(path), mpp=0.25 if path.stem.startswith("TCGA") else None) for path in paths]


@pytest.fixture(scope="module")
def remote(local, s3):
    bucket = Folder.at("s3://slides/cohort", s3)
    for row in local:
        bucket.write_bytes(f"{row.slide_id}.svs", Path(row.uri).read_bytes())
    return [ManifestRow(row.slide_id, f"s3://slides/cohort/{row.slide_id}.svs", mpp=row.mpp) for row in local]


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["inline", "staged"])
def test_slides_in_s3_give_the_detections_of_slides_on_disk(ray_session, local, remote, s3, tmp_path, reader):
    here = Run.claim(Cohort(local, "mitoray-s", str(tmp_path / "out")))
    there = Run.claim(Cohort(remote, "mitoray-s", f"s3://slides/out-{reader}", storage_options=s3))
    resources = Resources(num_actors=1, reader=reader)
    on_disk = score_cohort(here, resources, progress=False)
    in_s3 = score_cohort(there, resources, progress=False)
    assert in_s3.drop(["uri"]) == on_disk.drop(["uri"])
    assert set(on_disk["status"].to_pylist()) == {"scored"}
    assert sum(on_disk["n_detections"].to_pylist()) > 0
    for name in on_disk["detections_file"].to_pylist():
        assert here.folder.read_table(name) == there.folder.read_table(name)
    for name in on_disk["geojson_file"].to_pylist():
        assert here.folder.read_bytes(name) == there.folder.read_bytes(name)


def test_a_bucket_is_listed_by_glob(remote, s3):
    rows = manifest_from_globs(["s3://slides/cohort/*.svs"], s3)
    assert sorted(row.uri for row in rows) == sorted(row.uri for row in remote)


def test_no_secret_reaches_a_file_of_the_run(ray_session, s3, tmp_path):
    options = s3 | {"secret": "hunter2"}
    output = tmp_path / "out"
    rows = [ManifestRow("gone", "https://me:hunter2@127.0.0.1:9/gone.svs?sig=hunter2")]
    slides = score_cohort(Run.claim(Cohort(rows, "mitoray-s", str(output), storage_options=options)), progress=False)
    assert slides["status"].to_pylist() == ["failed"]
    written = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    assert written
    assert not any(b"hunter2" in content for content in written)
