import openslide
import pyarrow.csv
import pyarrow.parquet
import pytest

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom import DOMAINS, draw_cohort, draw_slide, plan_cohort
from mitoray.phantom.cohort import MANIFEST
from mitoray.scoring.manifest import read_manifest

NAMES = ["phantom-breast-a", "phantom-neuroendocrine-a"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return folder, *draw_cohort(folder, n_slides=3, seed=7, width_px=800, height_px=600, domains=NAMES)


def test_manifest_names_every_slide_with_its_domain_in_turn(cohort):
    folder, manifest, _ = cohort
    assert manifest.schema == MANIFEST
    assert manifest["domain"].to_pylist() == [NAMES[0], NAMES[1], NAMES[0]]
    assert manifest["mpp"].to_pylist() == [0.25, 0.5, 0.25]
    assert len(set(manifest["slide_id"].to_pylist())) == 3
    assert pyarrow.csv.read_csv(folder / "manifest.csv").to_pylist() == manifest.to_pylist()


def test_every_slide_of_the_manifest_can_be_opened(cohort):
    _, manifest, _ = cohort
    for row in manifest.to_pylist():
        with openslide.OpenSlide(row["uri"]) as slide:
            assert slide.dimensions == (800, 600)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(row["mpp"])


def test_labels_belong_to_slides_of_the_manifest(cohort):
    folder, manifest, labels = cohort
    assert labels.schema == LABELS
    assert labels.num_rows > 3
    assert set(labels["slide_id"].to_pylist()) <= set(manifest["slide_id"].to_pylist())
    assert pyarrow.parquet.read_table(folder / "labels.parquet").equals(labels)


def test_slide_drawn_alone_is_that_of_the_cohort(cohort, tmp_path):
    folder, _, labels = cohort
    row = plan_cohort(tmp_path, n_slides=3, seed=7, domains=NAMES).to_pylist()[1]
    drawn = draw_slide(row, seed=8, width_px=800, height_px=600)
    expected = [label for label in labels.to_pylist() if label["slide_id"] == row["slide_id"]]
    assert expected
    assert drawn.to_pylist() == expected
    name = f"{row['slide_id']}.svs"
    with openslide.OpenSlide(tmp_path / name) as alone, openslide.OpenSlide(folder / name) as of_cohort:
        views = [slide.read_region((0, 0), 0, (800, 600)).tobytes() for slide in (alone, of_cohort)]
    assert views[0] == views[1]


def test_cohort_takes_all_domains_unless_told(tmp_path):
    manifest = plan_cohort(tmp_path, n_slides=len(DOMAINS) + 1, seed=0)
    assert manifest["domain"].to_pylist() == [*DOMAINS, next(iter(DOMAINS))]


def test_cohort_without_slides_or_domains_is_refused(tmp_path):
    with pytest.raises(BadOption, match="at least one slide"):
        plan_cohort(tmp_path, n_slides=0, seed=0)
    with pytest.raises(BadOption, match="no domains"):
        plan_cohort(tmp_path, n_slides=1, seed=0, domains=[])
    with pytest.raises(BadOption, match="phantom-unicorn"):
        plan_cohort(tmp_path, n_slides=1, seed=0, domains=["phantom-unicorn"])


def test_slides_are_found_from_the_manifest_of_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_cohort("cohort", n_slides=1, seed=7, width_px=400, height_px=400)
    (row,) = read_manifest("cohort/manifest.csv")
    with openslide.OpenSlide(row.uri) as slide:
        assert slide.dimensions == (400, 400)
