from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from mitoray.errors import BadLabels, SlideError
from mitoray.labels.schema import LABELS
from mitoray.phantom import domain_named, draw_phantom, write_slide
from mitoray.scoring.manifest import ManifestRow
from mitoray.slide import open_slide
from mitoray.training.corpus import Corpus, normalisation_of, open_corpus, parted
from mitoray.training.feed import Sampling
from mitoray.training.normalisation import tissue_statistics
from mitoray.training.slides import TrainingSlide

DOMAINS = ["phantom-breast-a", "phantom-lymphoma-a"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The manifest's rows and the labels of four small slides in two domains."""
    folder = tmp_path_factory.mktemp("cohort")
    rows, labels = [], []
    for seed in range(4):
        domain = domain_named(DOMAINS[seed % 2])
        tumour = replace(domain.tumour, figures_per_mm2=300.0)
        phantom = draw_phantom(replace(domain, tumour=tumour), seed=seed, width_px=900, height_px=700)
        write_slide(phantom, folder / f"{seed}.svs")
        rows.append(
            ManifestRow(phantom.slide_id, str(folder / f"{seed}.svs"), case_id=f"case-{seed}", domain=domain.name)
        )
        labels.append(phantom.labels)
    return rows, pa.concat_tables(labels)


@pytest.fixture(scope="module")
def corpus(drawn):
    return open_corpus(*drawn)


def imagined(figures, *, domains="ab", slides_per_case=1, height_px=1000):
    """A corpus without files: for each number, a slide with so many figures, half of them in the upper half."""
    slides, rows = [], []
    for i, n in enumerate(figures):
        name, case = f"s{i:02}", f"c{i // slides_per_case:02}"
        domain = domains[i // slides_per_case % len(domains)]
        slides.append(TrainingSlide(name, f"{name}.svs", case, domain, 0.25, 1000, height_px))
        rows += [
            {"slide_id": name, "x_px": 10.0 * j, "y_px": (100.0, 900.0)[j % 2], "kind": "mitotic_figure"}
            for j in range(n)
        ]
        rows.append({"slide_id": name, "x_px": 5.0, "y_px": 5.0, "kind": "imposter"})
    return Corpus(tuple(slides), pa.Table.from_pylist(rows, schema=LABELS), {})


def names(slides):
    return [slide.slide_id for slide in slides]


def test_slides_are_opened_in_the_order_of_the_manifest_with_what_it_says(drawn, corpus):
    rows, labels = drawn
    assert names(corpus.slides) == [row.slide_id for row in rows]
    assert [slide.domain for slide in corpus.slides] == DOMAINS * 2
    assert [slide.case_id for slide in corpus.slides] == [row.case_id for row in rows]
    assert {(slide.width_px, slide.height_px) for slide in corpus.slides} == {(900, 700)}
    assert not corpus.failed
    assert len(corpus.labels) == len(labels)
    of_kind = labels.filter(pc.equal(labels["kind"], "mitotic_figure"))["slide_id"].to_pylist()
    assert corpus.figures() == {row.slide_id: of_kind.count(row.slide_id) for row in rows}


def test_a_slide_that_cannot_be_opened_is_left_out_named_and_warned_of(drawn, caplog, tmp_path):
    rows, labels = drawn
    (tmp_path / "empty.svs").touch()
    bad = [
        ManifestRow("gone", str(tmp_path / "gone.svs")),
        ManifestRow("empty", str(tmp_path / "empty.svs")),
        ManifestRow("unfit", rows[0].uri, error=SlideError("its row is wrong")),
    ]
    seen = []
    corpus = open_corpus([bad[0], *rows, *bad[1:]], labels, opened=lambda: seen.append(1))
    assert names(corpus.slides) == [row.slide_id for row in rows]
    assert set(corpus.failed) == {"gone", "empty", "unfit"}
    assert corpus.failed["gone"].startswith("SlideNotFound: ")
    assert corpus.failed["empty"].startswith("EmptySlide: ")
    assert corpus.failed["unfit"] == "SlideError: its row is wrong"
    assert "Slide gone is left out: SlideNotFound" in caplog.text
    assert len(seen) == 7


def test_labels_of_a_slide_that_is_left_out_are_left_out(drawn, tmp_path):
    rows, labels = drawn
    corpus = open_corpus([replace(rows[0], uri=str(tmp_path / "gone.svs")), *rows[1:]], labels)
    assert rows[0].slide_id in labels["slide_id"].to_pylist()
    assert set(corpus.labels["slide_id"].to_pylist()) <= {row.slide_id for row in rows[1:]}


def test_a_manifest_of_which_nothing_opens_is_refused_with_the_first_cause(drawn, tmp_path):
    _, labels = drawn
    rows = [ManifestRow(f"gone{i}", str(tmp_path / f"{i}.svs")) for i in range(2)]
    with pytest.raises(BadLabels, match=r"None of 2 slides could be opened.*the first, gone0: SlideNotFound"):
        open_corpus(rows, labels)
    with pytest.raises(BadLabels, match="None of 0 slides"):
        open_corpus([], labels)


def test_labels_of_other_slides_altogether_are_refused(drawn):
    rows, labels = drawn
    other = labels.set_column(1, LABELS.field("slide_id"), pa.array(["elsewhere"] * len(labels)))
    with pytest.raises(BadLabels, match="belongs to any of 4 slides"):
        open_corpus(rows, other)


def test_slides_in_s3_are_opened_with_the_storage_options(drawn, s3):
    import boto3

    rows, labels = drawn
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=s3["endpoint_url"], region_name="us-east-1", **keys)
    client.upload_file(rows[0].uri, "slides", "corpus/one.svs")
    there = replace(rows[0], uri="s3://slides/corpus/one.svs")
    corpus = open_corpus([there, *rows[1:]], labels, s3)
    assert names(corpus.slides) == [row.slide_id for row in rows]
    assert not corpus.failed


def test_the_slides_of_given_ids_come_in_the_corpus_own_order(corpus):
    wanted = [corpus.slides[2].slide_id, "unknown", corpus.slides[0].slide_id]
    assert names(corpus.of(wanted)) == [corpus.slides[0].slide_id, corpus.slides[2].slide_id]


def test_an_experiment_is_planned_with_domain_case_split_and_figures(corpus):
    first = corpus.slides[0]
    planned = corpus.labelled({first.slide_id: "test"})
    assert (planned[0].slide_id, planned[0].case_id, planned[0].domain) == (first.slide_id, first.case_id, DOMAINS[0])
    assert [slide.split for slide in planned] == ["test", None, None, None]
    assert [slide.n_figures for slide in planned] == list(corpus.figures().values())
    nameless = replace(corpus, slides=(replace(first, domain=None), *corpus.slides[1:]))
    with pytest.raises(BadLabels, match=f"'{first.slide_id}' has no domain"):
        nameless.labelled({})


def test_halves_train_on_the_upper_and_validate_on_the_lower_part_of_each_slide():
    corpus = imagined([4, 6, 2], height_px=1001)
    train, validate = parted(corpus, "halves", {"s02": "test"}, 0.2, 0)
    assert names(train) == names(validate) == ["s00", "s01"]
    assert [(s.sampled.y_px, s.sampled.height_px) for s in (train[0], validate[0])] == [(0, 500), (500, 501)]


def test_cases_validate_where_the_manifest_says_so():
    corpus = imagined([4] * 6)
    train, validate = parted(corpus, "cases", {"s01": "validation", "s04": "test", "s05": "train"}, 0.5, 0)
    assert names(validate) == ["s01"]
    assert names(train) == ["s00", "s02", "s03", "s05"]


def test_drawn_cases_stay_whole_and_represent_each_domain():
    corpus = imagined([3] * 40, slides_per_case=2)
    for seed in range(5):
        train, validate = parted(corpus, "cases", {}, 0.2, seed)
        assert set(names(train)) | set(names(validate)) == set(names(corpus.slides))
        assert not {s.case_id for s in train} & {s.case_id for s in validate}
        assert {domain: sum(s.domain == domain for s in validate) for domain in "ab"} == {"a": 4, "b": 4}
    again, other = (names(parted(corpus, "cases", {}, 0.2, seed)[1]) for seed in (0, 1))
    assert again == names(parted(corpus, "cases", {}, 0.2, 0)[1])
    assert again != other


def test_drawn_cases_are_spread_over_mitotic_activity():
    corpus = imagined([1] * 10 + [20] * 10, domains="a")
    for seed in range(8):
        _, validate = parted(corpus, "cases", {}, 0.2, seed)
        assert sorted(corpus.figures()[s.slide_id] for s in validate) == [1, 1, 20, 20]


def test_a_domain_with_one_case_trains_only():
    corpus = imagined([3, 3, 3, 3, 3], domains="aaaab")
    train, validate = parted(corpus, "cases", {}, 0.25, 0)
    assert {s.domain for s in validate} == {"a"}
    assert "s04" in names(train)
    assert len(validate) == 1


@pytest.mark.parametrize(
    ("figures", "how", "splits", "purpose"),
    [
        ([0, 0, 0, 0], "cases", {}, "train"),
        ([3, 3, 0, 0], "cases", {"s02": "validation"}, "validate"),
        ([0, 0, 3, 0], "cases", {"s02": "validation"}, "train"),
        ([3, 3], "cases", {"s00": "test", "s01": "test"}, "train"),
        ([3], "cases", {}, "validate"),
        ([1, 1], "halves", {}, "validate"),
    ],
)
def test_a_part_without_any_figure_is_refused(figures, how, splits, purpose):
    with pytest.raises(BadLabels, match=rf"The \d+ slides to {purpose} hold no mitotic figure"):
        parted(imagined(figures), how, splits, 0.25, 0)


def test_a_part_without_any_label_is_refused_for_that():
    corpus = imagined([3, 3, 3])
    labels = corpus.labels.filter(pc.not_equal(corpus.labels["slide_id"], "s02"))
    with pytest.raises(BadLabels, match="The 1 slides to validate hold no mitotic figure"):
        parted(replace(corpus, labels=labels), "cases", {"s02": "validation"}, 0.25, 0)


@pytest.mark.parametrize("how", ["cases", "halves"])
def test_a_case_in_two_parts_is_refused(how):
    corpus = imagined([3] * 6, slides_per_case=2)
    with pytest.raises(BadLabels, match=r"Case 'c01' has slides in validation and in test\. Keep cases whole"):
        parted(corpus, how, {"s02": "validation", "s03": "test"}, 0.25, 0)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_the_normalisation_is_that_of_the_slides_tissue(corpus, mpp):
    def whole():
        for slide in corpus.slides:
            with open_slide(slide.uri) as pixels:
                yield torch.tensor(pixels.read_region(slide.sampled, mpp)).permute(2, 0, 1)[None]

    expected = tissue_statistics(whole())
    found = normalisation_of(corpus.slides, corpus.labels, Sampling(patch_px=128), mpp)
    np.testing.assert_allclose(found.mean, expected.mean, atol=6)
    np.testing.assert_allclose(found.std, expected.std, atol=6)
    assert found == normalisation_of(corpus.slides, corpus.labels, Sampling(patch_px=128), mpp)


def test_the_normalisation_is_of_the_part_that_trains(corpus):
    (one,) = corpus.of([corpus.slides[0].slide_id])
    (other,) = corpus.of([corpus.slides[1].slide_id])
    both, first = (normalisation_of(s, corpus.labels, Sampling(patch_px=64), 0.25) for s in ((one, other), (one,)))
    assert np.abs(np.subtract(both.mean, first.mean)).max() > 2
