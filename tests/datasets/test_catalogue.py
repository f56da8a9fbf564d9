import re
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.datasets import Domain, catalogue, dataset_named
from mitoray.errors import BadOption
from mitoray.labels import read_labels
from mitoray.labels.cases import read_cases

DATA = Path(__file__).parents[2] / "../shared/data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the public label files are not in ../shared/data")


def test_all_the_public_datasets_are_there():
    assert {"midog++", "midog2021", "midog2022", "ccmct", "cmc", "tupac16", "ami-br", "tcga-brca"} == set(catalogue())


def test_midogpp_has_seven_tumor_types_from_ten_domains_and_503_cases():
    dataset = dataset_named("MIDOG++")
    assert len({domain.tumor for domain in dataset.domains}) == 7
    assert len({domain.name for domain in dataset.domains}) == 10
    assert (
        sum(last - first + 1 for first, last in (domain.numbers for domain in dataset.domains)) == 503 == dataset.slides
    )
    assert len({domain.scanner for domain in dataset.domains}) == 4


@needs_data
def test_midogpp_agrees_with_its_case_table_in_domain_and_split_of_every_slide():
    dataset = dataset_named("midog++")
    cases = read_cases(DATA / "midogpp/datasets_xvalidation.csv").to_pylist()
    assert len(cases) == 503
    for case in cases:
        domain = dataset.domain_of(case["slide_id"])
        assert (domain.name, dataset.split_of(case["slide_id"])) == (case["domain"], case["split"])
    assert Counter(dataset.split_of(case["slide_id"]) for case in cases) == {"train": 392, "test": 111}


@needs_data
@pytest.mark.parametrize(
    ("name", "label_set", "file"),
    [
        ("midog++", "consensus", "midogpp/MIDOG++.json"),
        ("tupac16", "alternative", "tupac/alternative_labels.sqlite"),
        ("tupac16", "original", "tupac/original_labels.sqlite"),
    ],
)
def test_label_counts_are_those_of_the_published_files(name, label_set, file):
    kinds = Counter(read_labels(DATA / file)["kind"].to_pylist())
    expected = dataset_named(name).label_set(label_set)
    assert (kinds["mitotic_figure"], kinds["imposter"]) == (expected.mitotic_figures, expected.imposters)


@needs_data
def test_ccmct_tests_on_eleven_of_its_32_slides():
    dataset = dataset_named("ccmct")
    with sqlite3.connect(f"file:{DATA}/ccmct/tumor_zones.sqlite?immutable=1", uri=True) as database:
        slides = {name.removesuffix(".svs") for (name,) in database.execute("SELECT filename FROM Slides")}
    assert len(slides) == dataset.slides
    assert Counter(dataset.split_of(slide) for slide in slides) == {"test": 11, "train": 21}


def test_cmc_tests_on_the_seven_slides_on_which_its_scores_were_measured():
    dataset = dataset_named("cmc")
    assert (dataset.slides, len(dataset.test)) == (21, 7)
    assert dataset.split_of("fa4959e484beec77543b") == "test"
    assert dataset.split_of("4eee7b944ad5e46c60ce") == "train"


def test_every_midog_challenge_case_keeps_the_tumor_type_it_has_in_midogpp():
    counts = {
        name: Counter(dataset_named(name).domain_of(f"{n:03d}").tumor for n in range(1, cases + 1))
        for name, cases in (("midog2021", 200), ("midog2022", 405))
    }
    assert counts["midog2021"] == {"human breast cancer": 200}
    assert counts["midog2022"] == {
        "human breast cancer": 150,
        "canine lung cancer": 44,
        "canine lymphosarcoma": 55,
        "canine cutaneous mast cell tumor": 50,
        "human neuroendocrine tumor": 55,
        "human melanoma": 51,
    }


def test_stitched_tupac_images_belong_to_the_scanner_of_amida13():
    dataset = dataset_named("tupac16")
    assert dataset.domain_of("23_stitched1").scanner == "Aperio ScanScope XT"
    assert dataset.domain_of("24").scanner == "Leica SCN400"
    assert dataset.domain_of("74") is None


@given(st.sampled_from(sorted(catalogue())), st.integers(0, 700))
def test_no_slide_belongs_to_two_domains(name, number):
    assert sum(domain.holds(f"{number:03d}") for domain in dataset_named(name).domains) <= 1


def test_every_dataset_says_how_to_cite_it_and_where_its_files_are():
    for dataset in catalogue().values():
        assert re.fullmatch(r"10\.\d{4,}/\S+", dataset.doi), dataset.name
        assert dataset.citation
        assert dataset.sources
        assert dataset.licence or "icence" in dataset.note or not dataset.slides


def test_an_unknown_dataset_or_label_set_is_refused_with_the_names_that_exist():
    with pytest.raises(BadOption, match=r"ccmct, cmc"):
        dataset_named("camelyon")
    with pytest.raises(BadOption, match=r"CODAEL, ODAEL, MEL"):
        dataset_named("cmc").label_set("HEAEL")


def test_a_domain_in_nanometres_is_refused():
    with pytest.raises(ValueError, match="implausible"):
        Domain("tumor", None, None, "Human", 250)
