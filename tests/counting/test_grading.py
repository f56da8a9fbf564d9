"""Grading helpers, held to what is published of the systems."""

import numpy as np
import pytest

from mitoray.counting.grading import CANINE, NOTTINGHAM, nottingham_score
from mitoray.errors import BadOption


@pytest.mark.parametrize(
    ("diameter_mm", "most_of_1", "fewest_of_3"), [(0.50, 7, 15), (0.55, 8, 18), (0.59, 9, 20), (0.40, 4, 10)]
)
def test_published_rows_of_the_table_score_as_published(diameter_mm, most_of_1, fewest_of_3):
    counts = [0, most_of_1, most_of_1 + 1, fewest_of_3 - 1, fewest_of_3, 1000]
    assert [nottingham_score(n, field_diameter_mm=diameter_mm) for n in counts] == [1, 1, 2, 2, 3, 3]


def test_two_square_millimetres_have_their_highest_cut_off_at_15():
    # "the current guidelines from the College of American Pathologist have its highest cutoff value at 15"
    # (Aubreville et al. 2023)
    assert [nottingham_score(n, counted_mm2=2.0) for n in (7, 8, 14, 15)] == [1, 2, 2, 3]


def test_the_table_has_every_hundredth_and_one_density_throughout():
    assert list(NOTTINGHAM) == list(range(40, 70))
    area_mm2 = np.pi / 4 * (np.array(list(NOTTINGHAM)) / 100) ** 2 * 10
    first, last = np.array(list(NOTTINGHAM.values())).T
    # Whole numbers around one density each: a slip of one figure or a swapped row would leave the band.
    assert (np.abs(first - 3.45 * area_mm2) < 0.85).all()
    assert (np.abs(last - 7.45 * area_mm2) < 0.85).all()
    assert (np.diff(first) >= 0).all()
    assert (np.diff(last) >= 0).all()


def test_areas_that_the_table_has_not_are_refused():
    for wrong in ({"field_diameter_mm": 0.39}, {"field_diameter_mm": 0.7}, {"counted_mm2": 0.237}, {}):
        with pytest.raises(BadOption):
            nottingham_score(3, **wrong)
    with pytest.raises(BadOption, match="negative"):
        nottingham_score(-1, counted_mm2=2.0)


@pytest.mark.parametrize(
    ("tumour", "levels"),
    [
        ("canine cutaneous mast cell tumour", {6: "not high by its count", 7: "high"}),
        ("canine lymphoma", {60: "1", 61: "2", 100: "2", 101: "3"}),
        ("canine soft tissue sarcoma", {9: "1", 10: "2", 19: "2", 20: "3"}),
        ("canine mammary carcinoma", {9: "1", 10: "2", 19: "2", 20: "3"}),
        ("canine lung carcinoma", {30: "not the highest", 31: "highest"}),
    ],
)
def test_canine_systems_change_their_level_at_the_published_counts(tumour, levels):
    assert {count: CANINE[tumour].level(count) for count in levels} == levels


def test_a_count_in_another_area_is_scaled_before_it_is_graded():
    assert CANINE["canine cutaneous mast cell tumour"].level(6, counted_mm2=2.0) == "high"  # 7.1 per 10 HPF
    assert CANINE["canine cutaneous mast cell tumour"].level(7, counted_mm2=2.37 * 1.2) == "not high by its count"


def test_every_system_names_its_source_and_as_many_levels_as_its_cut_offs_part():
    for scheme in CANINE.values():
        assert "20" in scheme.source
        assert len(scheme.levels) == len(scheme.cut_offs) + 1
