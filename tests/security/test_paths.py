"""Whatever slides, cases and domains are called: files stay in the output folder, and each is written once."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mitoray.errors import InvalidSlideId
from mitoray.labels.geojson import write_folder
from mitoray.phantom import draw_phantom, write_slide
from mitoray.scoring.config import Method
from mitoray.scoring.manifest import ManifestRow, checked, manifest_from_globs
from mitoray.scoring.plan import plan_slide
from mitoray.scoring.reduce import reduce_slide
from mitoray.scoring.results import write_cohort
from mitoray.scoring.results import write_slide as write_results
from mitoray.scoring.schema import SCORES, SLIDES
from mitoray.storage import Folder, file_stem
from mitoray.training.protocols import Trial

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "..\\..\\x",
    "nul\0byte",
    "line\nbreak",
    "%2e%2e%2fx",
    "%2E",
    "a.parts",
    "a.geojson",
    "a.parquet.part",
    "_hidden",
    "%5Fhidden",
    "CON",
    "con",
    "~root",
    "$HOME",
    "`id`",
    "*?[a]",
    "s3://bucket/x",
    "é",
    "e\u0301",
    "\u202egnp.svs",
    "\u2028",
    "\ud800",
    "x" * 5000,
    "é" * 199,
    " ",
    " a",
    "a ",
    "a.",
    "-rf",
]
names = st.one_of(st.sampled_from(HOSTILE), st.text("./%\\_~a\0é \udc80", max_size=8), st.text(max_size=40))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    write_slide(draw_phantom("phantom-breast-a", seed=5, width_px=300, height_px=300), path)
    return plan_slide(ManifestRow("a", str(path)), region_um=512, halo_um=32)


def write_all(folder, slide_ids, plan, case_id, domain):
    """What a run writes of slides with such names; the rows that were let in."""
    rows = checked([ManifestRow(slide_id, "/a.svs", case_id, domain) for slide_id in slide_ids])
    kept = [row for row in rows if not row.error]
    slides = []
    for row in kept:
        scores = pa.Table.from_pylist([], schema=SCORES)
        result = reduce_slide(row, plan | {"slide_id": row.slide_id}, scores, Method(), 0.5)
        slides.append(write_results(folder, plan, result))
    write_cohort(folder, pa.Table.from_pylist(slides, schema=SLIDES))
    return kept


def expected_files(slides):
    """Numbers of files by folder: two of each slide, and six of the cohort."""
    return {"detections": slides, "geojson": slides, "slides": 1, "cases": 1, "": 2}


def counted(paths):
    parents = [path.rpartition("/")[0] for path in paths]
    return {parent: parents.count(parent) for parent in set(parents)}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(HOSTILE, "../../case", "../../domain")
@given(st.lists(names, min_size=1, max_size=5, unique=True), names, names)
def test_no_name_leads_out_of_the_folder_or_onto_the_file_of_another(plan, slide_ids, case_id, domain):
    case_id, domain = (name.encode("utf-8", "replace").decode() for name in (case_id, domain))
    with tempfile.TemporaryDirectory() as parent:
        output = Path(parent) / "a" / "out"
        kept = write_all(Folder.at(str(output)), slide_ids, plan, case_id, domain)
        files = [path for path in Path(parent).rglob("*") if path.is_file()]
        assert all(path.is_relative_to(output) for path in files)
        own = counted([path.relative_to(output).as_posix() for path in files])
        assert {**expected_files(0), **own} == expected_files(len(kept))


def test_nor_does_any_in_object_storage(plan, s3):
    bucket = Folder.at("s3://slides", s3)
    before = set(bucket.filesystem.find("slides"))
    kept = write_all(Folder.at("s3://slides/paths/out", s3), HOSTILE, plan, "../case", "../domain")
    assert len(kept) >= 15
    written = set(bucket.filesystem.find("slides")) - before
    assert all(key.startswith("slides/paths/out/") for key in written)
    assert counted([key.removeprefix("slides/paths/out/") for key in written]) == expected_files(len(kept))


@settings(max_examples=300)
@given(st.lists(names.filter(lambda name: name.isprintable()), min_size=2, max_size=6, unique=True))
def test_file_names_are_one_part_of_a_path_and_no_two_ids_share_one(slide_ids):
    stems = [file_stem(slide_id) for slide_id in slide_ids]
    assert len(set(stems)) == len(stems)
    assert not any("/" in stem or "\\" in stem or "\0" in stem or stem.startswith("_") for stem in stems)


@settings(max_examples=100)
@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_trials_named_after_domains_are_one_part_of_a_path_each(domains):
    trials = [Trial("single", domain, 0, frozenset(), frozenset()).name for domain in domains]
    assert len(set(trials)) == len(trials)
    for name in trials:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert len(name) < 100


@settings(max_examples=50, deadline=None)
@given(st.lists(names.filter(lambda name: name.isprintable() and len(name) < 40), min_size=1, max_size=4, unique=True))
def test_label_files_stay_in_their_folder(slide_ids):
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "a" / "labels"
        write_folder({slide_id: [] for slide_id in slide_ids}, folder)
        files = [path for path in Path(parent).rglob("*") if path.is_file()]
        assert len(files) == len(slide_ids)
        assert {path.parent for path in files} == {folder}


@pytest.mark.parametrize("slide_id", ["../../x", "/etc/passwd", "..", "nul\0byte", "\ud800", "x" * 5000, "a\\b", " "])
def test_ids_that_could_name_other_files_are_refused_by_name(slide_id):
    (row,) = checked([ManifestRow(slide_id, "/a.svs")])
    assert isinstance(row.error, InvalidSlideId)


def test_a_file_whose_name_is_no_text_fails_alone_and_can_be_written_down(tmp_path):
    for name in (b"\xff.svs", b"good.svs"):
        (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(b"")
    bad, good = sorted(manifest_from_globs([f"{tmp_path}/*.svs"]), key=lambda row: row.error is None)
    assert isinstance(bad.error, InvalidSlideId)
    assert good.error is None
    assert pa.array([bad.slide_id, bad.uri]).to_pylist() == ["\\udcff", f"{tmp_path}/\\udcff.svs"]
