import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadLabels
from mitoray.labels.agreement import cohen_kappa, expert_agreement, fleiss_kappa, vote_counts
from mitoray.labels.schema import LABELS

M, I = "mitotic_figure", "imposter"  # noqa: E741


def voted(*votes):
    """Labels with the votes of Anna, Ben and Carla; the last vote decides."""
    rows = [
        {
            "slide_id": "a",
            "x_px": float(n),
            "y_px": 0.0,
            "kind": kinds[-1],
            "votes": [{"rater": r, "kind": k} for r, k in zip(("Anna", "Ben", "Carla"), kinds, strict=False)],
            "domain": "x",
        }
        for n, kinds in enumerate(votes)
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def test_cohens_kappa_of_the_textbook_example_is_04():
    # Fifty grant proposals: 20 both yes, 15 both no, 5 and 10 divided. https://en.wikipedia.org/wiki/Cohen%27s_kappa
    labels = voted(*[(M, M)] * 20, *[(M, I)] * 5, *[(I, M)] * 10, *[(I, I)] * 15)
    assert cohen_kappa(labels, "Anna", "Ben") == pytest.approx(0.4)


def test_fleiss_kappa_of_the_textbook_example_is_021():
    # Ten items, fourteen raters, five kinds. https://en.wikipedia.org/wiki/Fleiss%27_kappa
    counts = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=0.0005)


@given(st.lists(st.tuples(st.sampled_from([M, I]), st.sampled_from([M, I])), min_size=2, max_size=40))
def test_fleiss_kappa_of_two_raters_is_scotts_pi(votes):
    same = np.mean([a == b for a, b in votes])
    p = np.mean([kind == M for pair in votes for kind in pair])
    expected = p**2 + (1 - p) ** 2
    found = fleiss_kappa(vote_counts(voted(*votes), 2))
    if expected == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx((same - expected) / (1 - expected))


def test_shares_are_of_labels_and_the_thirds_of_the_disagreed():
    table = expert_agreement(voted((M, M), (I, I), (I, I), (M, I, M), (I, M, I), (I, M, M), (M, I, M), (M, M)))
    first, total = table.to_pylist()
    assert first == total | {"domain": "x"}
    assert total == {
        "domain": "total",
        "labels": 8,
        "both_mitotic": 0.25,
        "both_imposter": 0.25,
        "disagreed": 0.5,
        "third_mitotic": 0.75,
        "third_imposter": 0.25,
        "final_mitotic": 0.625,
        "final_imposter": 0.375,
        "cohen_kappa": 0.0,
    }


def test_full_agreement_leaves_nothing_to_a_third_expert():
    assert expert_agreement(voted((M, M)))["third_mitotic"].to_pylist() == [None, None]


def test_labels_without_two_votes_are_not_rated():
    assert expert_agreement(voted((M, M), (I,)))["labels"].to_pylist() == [1, 1]
    with pytest.raises(BadLabels, match="No label has the votes of two experts"):
        expert_agreement(voted((I,)))


def test_raters_who_never_met_have_no_kappa():
    with pytest.raises(BadLabels, match="both 'Anna' and 'Carla'"):
        cohen_kappa(voted((M, M), (M, I)), "Anna", "Carla")


@pytest.mark.parametrize("counts", [[[2, 1], [1, 1]], [[1, 0], [0, 1]], np.zeros((0, 2), int)])
def test_fleiss_kappa_refuses_unequal_or_single_votes(counts):
    with pytest.raises(BadLabels, match="same number of votes"):
        fleiss_kappa(np.asarray(counts))
