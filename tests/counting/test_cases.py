"""Cases of several slides, held to sums and maxima done by hand."""

import pyarrow as pa
import pytest

from mitoray.counting.cases import CASES, count_cases
from mitoray.errors import BadDetections
from mitoray.scoring.schema import SLIDES


def slide(slide_id, case_id=None, status="scored", **known):
    row = dict.fromkeys(SLIDES.names) | {"slide_id": slide_id, "case_id": case_id, "status": status}
    if status != "failed":
        row |= {"tissue_mm2": 10.0, "unscored_mm2": 0.0, "n_detections": 0, "mitotic_count": 0, "hotspot_area_mm2": 2.0}
    return row | known


def cases_of(*rows):
    table = count_cases(pa.Table.from_pylist(list(rows), schema=SLIDES))
    assert table.schema == CASES
    return {row["case_id"]: row for row in table.to_pylist()}


def test_the_highest_count_names_its_slide_and_brings_what_belongs_to_it():
    case = cases_of(
        slide("a", "dog", mpp=0.25, mitotic_count=7, count_low=4, count_high=9, hotspot_n_atypical=1, sampling_low=3.3),
        slide(
            "b", "dog", mpp=0.5, mitotic_count=12, count_low=9, count_high=14, hotspot_n_atypical=0, sampling_low=6.9
        ),
        slide("c", "dog", mpp=0.25, mitotic_count=3, mitotic_count_10hpf=99),
    )["dog"]
    assert (case["mitotic_count"], case["mitotic_count_slide"]) == (12, "b")
    assert (case["count_low"], case["count_high"], case["hotspot_n_atypical"], case["sampling_low"]) == (9, 14, 0, 6.9)
    assert (case["mitotic_count_10hpf"], case["mitotic_count_10hpf_slide"]) == (99, "c")
    assert case["status"] == "scored"


def test_pooled_counts_are_figures_per_scored_tissue_in_square_millimetres_whatever_the_resolution():
    case = cases_of(
        slide(
            "a", "dog", mpp=0.25, n_detections=30, tissue_mm2=12.0, unscored_mm2=2.0, status="partial", mitotic_count=5
        ),
        slide("b", "dog", mpp=0.5, n_detections=10, tissue_mm2=30.0, mitotic_count=4),
    )["dog"]
    assert (case["n_detections"], case["counted_mm2"]) == (40, 40.0)
    assert case["figures_per_mm2"] == 1.0
    assert (case["pooled_hotspot_count"], case["pooled_hotspot_mm2"]) == (9, 4.0)
    assert (case["status"], case["partial_slides"]) == ("partial", ["a"])


def test_slides_that_failed_are_named_and_a_case_without_any_other_counts_nothing():
    found = cases_of(
        slide("a", "dog", mitotic_count=5),
        slide("b", "dog", "failed"),
        slide("c", "cat", "failed"),
        slide("d", "cat", "failed"),
    )
    assert (found["dog"]["status"], found["dog"]["failed_slides"], found["dog"]["n_scored"]) == ("partial", ["b"], 1)
    assert (found["cat"]["status"], found["cat"]["failed_slides"]) == ("failed", ["c", "d"])
    assert {found["cat"][name] for name in ("mitotic_count", "n_detections", "figures_per_mm2")} == {None}


def test_a_slide_without_a_case_is_a_case_of_its_own_and_cases_keep_their_order():
    found = cases_of(slide("z"), slide("b", "dog"), slide("y"), slide("a", "dog"))
    assert list(found) == ["z", "dog", "y"]
    assert found["z"]["mitotic_count_slide"] == "z"


def test_atypical_figures_are_summed_over_slides_before_their_ratio_is_taken():
    found = cases_of(
        slide("a", "dog", n_atypical=1, n_normal=1, atypical_ratio=1.0),
        slide("b", "dog", n_atypical=1, n_normal=19, atypical_ratio=1 / 19),
        slide("c", "dog"),
        slide("d", "cat"),
        slide("e", "rat", n_atypical=2, n_normal=0),
    )
    assert (found["dog"]["n_atypical"], found["dog"]["n_normal"], found["dog"]["atypical_ratio"]) == (2, 20, 0.1)
    assert (found["cat"]["n_atypical"], found["cat"]["atypical_ratio"]) == (None, None)
    assert (found["rat"]["n_atypical"], found["rat"]["atypical_ratio"]) == (2, None)


def test_glass_has_no_density_and_slides_of_two_domains_have_none_in_common():
    found = cases_of(
        slide("a", "glass", tissue_mm2=0.0, domain="x"),
        slide("b", "dog", domain="x"),
        slide("c", "dog", domain="y"),
        slide("d", "cat", mitotic_count=None, note="No circle holds enough tissue."),
    )
    assert (found["glass"]["figures_per_mm2"], found["glass"]["mitotic_count"]) == (None, 0)
    assert (found["glass"]["domain"], found["dog"]["domain"]) == ("x", None)
    assert (found["cat"]["mitotic_count"], found["cat"]["pooled_hotspot_count"], found["cat"]["status"]) == (
        None,
        None,
        "scored",
    )


def test_a_table_of_an_earlier_version_is_counted_as_far_as_it_goes():
    columns = ["slide_id", "case_id", "status", "tissue_mm2", "unscored_mm2", "n_detections", "mitotic_count"]
    table = pa.Table.from_pylist([slide("a", "dog", mitotic_count=5)], schema=SLIDES).select(columns)
    (case,) = count_cases(table).to_pylist()
    assert (case["mitotic_count"], case["count_low"], case["n_atypical"]) == (5, None, None)
    with pytest.raises(BadDetections, match="mitotic_count"):
        count_cases(table.drop(["mitotic_count"]))
    assert count_cases(table.slice(0, 0)).num_rows == 0
