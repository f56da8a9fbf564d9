from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadLabels, BadOption
from mitoray.labels import read_labels
from mitoray.labels.cases import CASES, read_cases
from mitoray.labels.schema import LABELS
from mitoray.labels.splits import published_split, split_halves, stratified_folds
from mitoray.labels.statistics import COUNTS, counts_per_case

MIDOG = Path(__file__).parents[2] / "../shared/data/midogpp"
needs_midog = pytest.mark.skipif(not MIDOG.is_dir(), reason="needs the MIDOG++ files of shared/data")


def count_table(domains, figures):
    rows = [
        {"case_id": str(n), "domain": domain, "mitotic_figure": number, "imposter": 0}
        for n, (domain, number) in enumerate(zip(domains, figures, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=COUNTS)


@needs_midog
def test_the_published_split_of_midog_has_392_and_111_slides():
    split = published_split(read_cases(MIDOG / "datasets_xvalidation.csv"))
    assert {part: len(slides) for part, slides in split.items()} == {"train": 392, "test": 111}


@needs_midog
def test_folds_of_midog_have_alike_cases_and_mitotic_figures_in_every_domain():
    counts = counts_per_case(read_labels(MIDOG / "MIDOG++.json"), read_cases(MIDOG / "datasets_xvalidation.csv"))
    folds = stratified_folds(counts, 5, seed=1)
    domains = np.array(counts["domain"].to_pylist())
    for domain in set(domains):
        sizes = [int(((domains == domain) & (folds == fold)).sum()) for fold in range(5)]
        assert max(sizes) - min(sizes) <= 4, domain
    figures = counts["mitotic_figure"].to_numpy()
    medians = [np.median(figures[folds == fold]) for fold in range(5)]
    assert max(medians) - min(medians) <= 2.5


@given(
    st.lists(st.tuples(st.integers(2, 30), st.integers(0, 500)), min_size=1, max_size=4),
    st.integers(2, 5),
    st.integers(0, 2**32 - 1),
)
def test_each_level_of_each_domain_is_spread_over_all_folds(domains, folds, seed):
    names = [f"d{n}" for n, (size, _) in enumerate(domains) for _ in range(max(size, folds))]
    figures = np.random.default_rng(seed).integers(0, 1 + max(most for _, most in domains), len(names))
    found = stratified_folds(count_table(names, figures), folds, seed)
    assert (found == stratified_folds(count_table(names, figures), folds, seed)).all()
    for domain in set(names):
        assert set(Counter(found[np.array(names) == domain])) == set(range(folds))
    sizes = np.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_too_few_cases_or_folds_are_refused():
    with pytest.raises(BadLabels, match="domain 'x' has 3 cases"):
        stratified_folds(count_table(["x"] * 3, [1, 2, 3]), 5)
    with pytest.raises(BadOption, match="Ask for 2 or more"):
        stratified_folds(count_table(["x"] * 3, [1, 2, 3]), 1)


def test_a_case_in_two_parts_or_in_none_is_refused():
    rows = [{"slide_id": "a1", "case_id": "a", "split": "train"}, {"slide_id": "a2", "case_id": "a", "split": "test"}]
    with pytest.raises(BadLabels, match="Keep cases whole"):
        published_split(pa.Table.from_pylist(rows, schema=CASES))
    with pytest.raises(BadLabels, match="Slide 'a1' belongs to no part"):
        published_split(pa.Table.from_pylist([rows[0] | {"split": None}], schema=CASES))


def test_every_label_is_in_the_upper_or_the_lower_half_of_its_own_slide():
    places = [("a", 0.0), ("a", 49.9), ("a", 50.0), ("b", 50.0), ("b", 150.0)]
    rows = [{"slide_id": slide, "x_px": 1.0, "y_px": y, "kind": "imposter"} for slide, y in places]
    upper, lower = split_halves(pa.Table.from_pylist(rows, schema=LABELS), {"a": 100, "b": 200})
    assert list(zip(upper["slide_id"].to_pylist(), upper["y_px"].to_pylist(), strict=True)) == [*places[:2], places[3]]
    assert list(zip(lower["slide_id"].to_pylist(), lower["y_px"].to_pylist(), strict=True)) == [places[2], places[4]]


def test_a_slide_without_height_is_named():
    rows = [{"slide_id": "a", "x_px": 1.0, "y_px": 2.0, "kind": "imposter"}]
    with pytest.raises(BadLabels, match="no height, as 'a'"):
        split_halves(pa.Table.from_pylist(rows, schema=LABELS), {})
