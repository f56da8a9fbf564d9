"""What the report says of a cohort in numbers and words, before any page is made of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.report.cohort_summary import Summary, failures
from mitoray.report.domain_counts import NO_DOMAIN, distribution
from mitoray.report.record_facts import record_groups, shown_cards
from mitoray.report.slide_columns import columns_of, facts_of
from mitoray.scoring.schema import SLIDES


def slide(slide_id="s", **known):
    return dict.fromkeys(SLIDES.names) | {"slide_id": slide_id, "status": "scored"} | known


COHORT = [
    slide("a", case_id="1", domain="x", n_detections=10, mitotic_count=4, tissue_mm2=2.0, unscored_mm2=0.0),
    slide("b", case_id="1", domain="x", n_detections=30, mitotic_count=9, tissue_mm2=3.5, unscored_mm2=0.5)
    | {"status": "partial", "error": "1 of 9 regions, 0.50 mm² of tissue, not scored. CorruptTile: b: tile 3"},
    slide("c", case_id="2", domain="y") | {"status": "failed", "error": "SlideNotFound: c.svs: no such file."},
    slide("d", domain=None, n_detections=0, mitotic_count=0, tissue_mm2=0.0),
]


def test_the_summary_adds_up():
    summary = Summary.of(COHORT)
    assert (summary.n_slides, summary.n_scored, summary.n_partial, summary.n_failed) == (4, 2, 1, 1)
    assert (summary.n_cases, summary.n_domains, summary.n_detections) == (2, 2, 40)
    assert (summary.tissue_mm2, summary.unscored_mm2, summary.median_count) == (5.5, 0.5, 4.0)
    assert not summary.all_phantoms
    assert Summary.of([slide(domain="phantom-breast-a")]).all_phantoms
    assert Summary.of([]).median_count is None


def test_failed_slides_come_before_those_scored_in_part_each_with_its_error_and_its_row():
    found = failures(COHORT)
    assert [(one.slide_id, one.place, one.status) for one in found] == [("c", 2, "failed"), ("b", 1, "partial")]
    assert (found[0].kind, found[0].told) == ("SlideNotFound", "c.svs: no such file.")
    # A loss of regions begins with numbers, not with an error's name, and is told whole.
    assert (found[1].kind, found[1].told) == ("", COHORT[1]["error"])
    assert failures([slide() | {"status": "failed"}])[0].told == "no error was noted"


def test_columns_without_anything_to_say_are_left_out():
    titles = [column.title for column in columns_of(COHORT, circle_mm2=2, rectangle_mm2=2.37)]
    assert titles == ["Status", "Case", "Domain", "Mitotic count", "Figures", "Tissue", "Not scored"]
    calibrated = [slide(mitotic_count=12, count_low=9, count_high=15, hotspot_atypical_ratio=0.25)]
    columns = {column.title: column for column in columns_of(calibrated, circle_mm2=2, rectangle_mm2=2.37)}
    assert columns["Count interval"].cell(calibrated[0]).text == "9–15"
    assert columns["Atypical ratio"].cell(calibrated[0]).text == "0.25"
    assert "Not scored" not in columns
    assert "Case" not in columns


def test_a_run_of_an_earlier_version_lacks_columns_and_is_shown_all_the_same():
    early = {name: COHORT[0][name] for name in SLIDES.names if not name.startswith(("count_", "sampling_", "n_at"))}
    columns = columns_of([early], circle_mm2=2, rectangle_mm2=2.37)
    assert ("Mitotic count in 2 mm²", "4") in facts_of(early, columns)


def test_all_that_is_known_of_a_slide_is_told_once_also_what_has_no_column():
    row = slide(domain="x", mitotic_count=1234, note="no field holds enough tissue", a_new_column=0.5)
    facts = facts_of(row, columns_of([row], circle_mm2=2, rectangle_mm2=2.37))
    names = [name for name, _ in facts]
    assert len(names) == len(set(names))
    assert {("Mitotic count in 2 mm²", "1,234"), ("Note", row["note"]), ("a_new_column", "0.5")} <= set(facts)


def test_the_distribution_gives_quartiles_of_slides_that_have_a_count_by_domain():
    found = distribution([*COHORT, slide("e", domain="x", mitotic_count=20)])
    by_name = {one.domain: one for one in found.domains}
    assert set(by_name) == {"x", NO_DOMAIN}
    x = by_name["x"]
    assert (x.n_slides, x.least, x.median, x.most) == (3, 4, 9, 20)
    assert (x.first_quartile, x.third_quartile) == tuple(np.percentile([4, 9, 20], [25, 75]))
    assert x.told == "x: 3 slides, median 9, quartiles 6.5 to 14.5, range 4 to 20"
    assert found.domains[0] is x


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=60))
def test_places_keep_the_order_of_counts_and_stay_within_the_picture(counts):
    found = distribution([slide(mitotic_count=count) for count in counts])
    (domain,) = found.domains
    places = [dot.x for dot in domain.dots]
    assert len(places) == len(counts)
    assert places == sorted(places)
    assert all(0 <= x <= 100 for x in places + [x for _, x in found.ticks])
    assert all(abs(dot.y) <= 15 for dot in domain.dots)
    ticks = [x for _, x in found.ticks]
    assert ticks == sorted(ticks)
    assert 1 <= len(ticks) <= 17


@pytest.mark.parametrize("rows", [[], [slide(status="failed")]])
def test_without_any_count_there_is_no_distribution(rows):
    assert distribution(rows).domains == ()


def test_the_record_and_the_cards_are_told_in_words():
    identity = {"model": "mitoray-s", "model_digest": "ab" * 32, "method": {"region_um": 512.0, "subtypes": False}}
    record = {"status": "complete", "identity": identity, "duration_s": {"score": 12.5}}
    groups = {group.title: dict(group.facts) for group in record_groups(record)}
    assert groups["Run"]["Digest"] == "abababababab…"
    assert groups["Settings"] == {"Region, µm": "512", "Subtypes required": "no"}
    assert groups["Time taken"] == {"To score, s": "12.5"}
    assert "Versions" not in groups
    metric = {"name": "F1", "value": 0.9, "data": "phantom"}
    training = {"data": ["crops"], "licence": "MIT", "notes": ["a note"]}
    model, lost = shown_cards(
        {"model": {"name": "m", "training": training, "metrics": [metric]}, "classifier": {"error": "BadModel: gone"}}
    )
    assert (model.part, model.notes, model.data, model.metrics) == ("Model", ("a note",), ("crops",), (metric,))
    assert (lost.name, lost.error, lost.metrics) == ("unknown", "BadModel: gone", ())
