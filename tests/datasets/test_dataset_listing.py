import hashlib

import pytest
from dataset_services import serving

from mitoray.datasets import dataset_named, listing, remote_files
from mitoray.errors import DatasetForbidden, DatasetUnreachable, UnsafeFileName


@pytest.fixture
def services():
    with serving() as services:
        yield services


def listed(name, services):
    return sorted(remote_files(dataset_named(name), services.url), key=lambda file: file.path)


def paths(files):
    return [file.path for file in files]


def test_a_figshare_collection_is_read_over_all_its_pages(services, monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 2)
    for name in ("001.tiff", "002.tiff", "003.tiff", "MIDOG++.json", "readme.txt"):
        services.add(name, name.encode())
    files = listed("midog++", services)
    assert paths(files) == ["labels/MIDOG++.json", "slides/001.tiff", "slides/002.tiff", "slides/003.tiff"]
    assert files[1].size_bytes == 8
    assert files[1].checksum == "md5:" + hashlib.md5(b"001.tiff").hexdigest()


def test_a_collection_that_hides_articles_is_not_taken_for_complete(services):
    services.add("001.tiff", b"x")
    services.articles_count = 2
    with pytest.raises(DatasetUnreachable, match="1 of the 2 articles"):
        listed("midog++", services)


def test_diagnostic_slides_of_tcga_are_read_over_all_pages_with_their_cases(services):
    services.page = 2
    for n in range(5):
        services.add(f"TCGA-A1-A0S{n}-01Z-00-DX1.svs", b"x" * n, case_id=f"TCGA-A1-A0S{n}")
    files = listed("tcga-brca", services)
    assert [file.case_id for file in files] == [f"TCGA-A1-A0S{n}" for n in range(5)]
    conditions = {c["content"]["field"]: c["content"]["value"] for c in services.bodies[0]["filters"]["content"]}
    assert conditions["cases.project.project_id"] == "TCGA-BRCA"
    assert conditions["experimental_strategy"] == "Diagnostic Slide"


def test_cmc_comes_from_figshare_and_its_labels_from_github_with_gits_checksums(services):
    slide = services.add("2d56d1902ca533a5b509.svs", b"slide")
    labels = services.add("MITOS_WSI_CMC_CODAEL_TR_ROI.sqlite", b"labels")
    files = listed("cmc", services)
    assert {file.path: (file.api, file.checksum) for file in files} == {
        "slides/2d56d1902ca533a5b509.svs": ("figshare", f"md5:{slide.md5}"),
        "labels/MITOS_WSI_CMC_CODAEL_TR_ROI.sqlite": ("github", f"git:{labels.git_sha}"),
    }


def test_a_zenodo_record_lists_slides_and_labels(services):
    services.add("001.tiff", b"slide")
    services.add("MIDOG.json", b"{}")
    assert paths(listed("midog2021", services)) == ["labels/MIDOG.json", "slides/001.tiff"]


@pytest.mark.parametrize(
    "name", ["../../evil.tiff", "/etc/evil.tiff", "a\\b.tiff", ".hidden.tiff", "x\n.tiff", "C:x.tiff"]
)
def test_a_file_name_that_would_leave_its_folder_is_refused(services, name):
    services.add(name, b"x")
    with pytest.raises(UnsafeFileName, match="does not write"):
        listed("midog++", services)


def test_one_name_for_two_different_files_is_refused(services):
    services.add("001.tiff", b"one")
    services.add("001.tiff", b"two")
    with pytest.raises(DatasetUnreachable, match="twice"):
        listed("midog++", services)


def test_the_same_file_in_two_articles_counts_once(services):
    services.add("001.tiff", b"one")
    services.add("001.tiff", b"one")
    assert paths(listed("midog++", services)) == ["slides/001.tiff"]


def test_a_listing_is_asked_for_again_after_the_time_that_the_service_names(services, monkeypatch):
    slept = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    services.add("001.tiff", b"x")
    services.answers["/figshare/articles/0/files"] = [(429, {"Retry-After": "7"}), (503, {}), (403, {})]
    assert paths(listed("midog++", services)) == ["slides/001.tiff"]
    assert slept[0] == 7
    assert len(slept) >= 2


def test_an_answer_of_unknown_form_is_named_with_its_service(services):
    services.add("001.tiff", b"x")
    services.articles_count = "many"
    with pytest.raises(DatasetUnreachable, match="figshare describes 6615571 in a form"):
        listed("midog++", services)


def test_controlled_access_is_named_with_the_variable_for_the_token(services, monkeypatch):
    services.answers["/zenodo/records/4643381"] = [(403, {})]
    monkeypatch.delenv("ZENODO_TOKEN", raising=False)
    with pytest.raises(DatasetForbidden, match="ZENODO_TOKEN"):
        listed("midog2021", services)


def test_a_missing_record_is_named(services):
    services.answers["/zenodo/records/4643381"] = [(404, {})]
    with pytest.raises(DatasetUnreachable, match=r"zenodo at 127\.0\.0\.1 did not answer records/4643381"):
        listed("midog2021", services)
