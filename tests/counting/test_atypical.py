"""The atypical : normal ratio, on figures whose subtype is clear."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.counting.atypical import Subtypes, subtypes
from mitoray.errors import BadOption


def test_only_figures_that_pass_the_confidence_for_either_subtype_enter():
    found = subtypes([0.95, 0.91, 0.9, 0.5, 0.11, 0.05, 0.02, 0.0, 0.09])
    assert found == Subtypes(n_atypical=2, n_normal=4, n_unclear=3)
    assert found.ratio == 0.5


def test_a_probability_of_exactly_the_confidence_does_not_pass_in_either_precision():
    assert subtypes(np.array([0.9, 0.1], np.float32)) == subtypes(np.array([0.9, 0.1])) == Subtypes(0, 0, 2)


def test_without_normal_figures_there_is_no_ratio():
    assert subtypes([0.99, 0.5]).ratio is None
    assert subtypes([]) == Subtypes(0, 0, 0)
    assert subtypes([]).ratio is None
    assert subtypes([0.01]).ratio == 0.0


def test_figures_that_nothing_judged_are_left_out_and_all_of_them_make_no_answer():
    assert subtypes([np.nan, 0.99, 0.01]) == Subtypes(1, 1, 0)
    assert subtypes([np.nan, np.nan]) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1)), st.lists(st.floats(0, 1)))
def test_two_sets_together_count_as_their_sum(first, second):
    assert subtypes(first) + subtypes(second) == subtypes(first + second)


def test_what_cannot_be_is_refused():
    with pytest.raises(BadOption, match="confidence"):
        subtypes([0.5], confidence=0.3)
    with pytest.raises(BadOption, match="between 0 and 1"):
        subtypes([1.5])
