from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoray.errors import BadLabels, BadOption
from mitoray.labels import read_labels
from mitoray.labels.cases import CASES, read_cases
from mitoray.labels.schema import LABELS
from mitoray.training.protocols import LabelledSlide, Trial, hold_out_test, labelled_slides, plan_trials

MIDOG = Path(__file__).parents[2] / "../shared/data/midogpp"
needs_midog = pytest.mark.skipif(not MIDOG.is_dir(), reason="needs the MIDOG++ files of shared/data")


def cohort(cases_per_domain=12, domains=("a", "b", "c"), slides_per_case=2, n_test=2, figures=3):
    return [
        LabelledSlide(f"{d}{c}-{s}", f"{d}{c}", d, "test" if c < n_test else "train", figures + c)
        for d in domains
        for c in range(cases_per_domain)
        for s in range(slides_per_case)
    ]


@pytest.fixture(scope="module")
def midog():
    labels, cases = read_labels(MIDOG / "MIDOG++.json"), read_cases(MIDOG / "datasets_xvalidation.csv")
    return labelled_slides(labels, cases, domain="tumor")


@settings(deadline=None)
@given(st.data(), st.sampled_from(["single", "leave-one-out", "all"]), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_every_training_case_of_a_row_validates_exactly_once_and_stays_whole(data, protocol, folds, seed):
    slides = []
    for domain in ("a", "b", "c"):
        for case in range(data.draw(st.integers(folds + 1, 12))):
            split = "test" if case == 0 else "train"
            for slide in range(data.draw(st.integers(1, 3))):
                figures = data.draw(st.integers(1, 300))
                slides.append(LabelledSlide(f"{domain}{case}-{slide}", f"{domain}{case}", domain, split, figures))
    trials = plan_trials(slides, protocol, folds, seed)
    case_of = {slide.slide_id: slide.case_id for slide in slides}
    domain_of = {slide.slide_id: slide.domain for slide in slides}
    expected = {"single": {"a": "a", "b": "b", "c": "c"}, "leave-one-out": {"a": "bc", "b": "ac", "c": "ab"}}
    rows = expected.get(protocol, {"all": "abc"})
    assert [(t.domain, t.fold) for t in trials] == [(row, fold) for row in sorted(rows) for fold in range(folds)]
    for row, trained in rows.items():
        pool = {s.slide_id for s in slides if s.split == "train" and s.domain in trained}
        own = [trial for trial in trials if trial.domain == row]
        assert Counter(slide for trial in own for slide in trial.validation) == Counter(pool)
        for trial in own:
            assert trial.train | trial.validation == pool
            assert not {case_of[s] for s in trial.train} & {case_of[s] for s in trial.validation}
            assert {domain_of[s] for s in trial.validation} == set(trained)


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_slides_does_not_change_the_plan(random):
    slides = cohort()
    shuffled = random.sample(slides, len(slides))
    assert plan_trials(shuffled, "leave-one-out", 3, seed=5) == plan_trials(slides, "leave-one-out", 3, seed=5)


def test_another_seed_gives_other_folds():
    assert plan_trials(cohort(), "single", 3, seed=1) != plan_trials(cohort(), "single", 3, seed=2)


@needs_midog
def test_the_experiments_of_midog_are_seventy_five_models_on_392_cases(midog):
    plans = {protocol: plan_trials(midog, protocol, 5) for protocol in ("single", "leave-one-out", "all")}
    assert {protocol: len(trials) for protocol, trials in plans.items()} == {
        "single": 35,
        "leave-one-out": 35,
        "all": 5,
    }
    assert len({trial.name for trials in plans.values() for trial in trials}) == 75
    for trial in plans["all"]:
        assert len(trial.train | trial.validation) == 392
        assert len(trial.validation) in (78, 79)
    test = {slide.slide_id for slide in midog if slide.split == "test"}
    assert len(test) == 111
    assert not any((t.train | t.validation) & test for trials in plans.values() for t in trials)
    breast = [t for t in plans["single"] if t.domain == "human breast cancer"]
    assert len(breast[0].train | breast[0].validation) == 117
    sizes = [len(trial.validation) for trial in plans["single"] if trial.domain == "canine lymphosarcoma"]
    assert max(sizes) - min(sizes) <= 1


@needs_midog
def test_slides_of_midog_hold_its_11937_mitotic_figures(midog):
    assert sum(slide.n_figures for slide in midog) == 11937
    assert len({slide.domain for slide in midog}) == 7


@needs_midog
def test_held_out_cases_of_midog_are_as_active_as_the_others(midog):
    held = hold_out_test([replace(slide, split=None) for slide in midog], share=0.2, seed=3)
    for domain in {slide.domain for slide in held}:
        own = [slide for slide in held if slide.domain == domain]
        test, train = ([s.n_figures for s in own if s.split == part] for part in ("test", "train"))
        assert len(test) == round(0.2 * len(own))
        spread = np.std([s.n_figures for s in own])
        assert abs(np.median(test) - np.median(train)) < 0.35 * spread, domain


def test_held_out_cases_stay_whole_and_do_not_depend_on_other_domains():
    slides = [replace(slide, split=None) for slide in cohort(10)]
    held = hold_out_test(slides, 0.25, seed=4)
    parts = {}
    for slide in held:
        parts.setdefault(slide.case_id, set()).add(slide.split)
    assert all(len(part) == 1 for part in parts.values())
    assert Counter(case[0] for case, part in parts.items() if part == {"test"}) == {"a": 2, "b": 2, "c": 2}
    alone = hold_out_test([slide for slide in slides if slide.domain == "b"], 0.25, seed=4)
    assert alone == [slide for slide in held if slide.domain == "b"]
    assert plan_trials(held, "single", 4)


def test_a_held_out_case_comes_from_each_run_of_alike_activity():
    slides = [LabelledSlide(f"{n}", f"{n}", "a", None, n) for n in range(20)]
    for seed in range(5):
        test = sorted(slide.n_figures for slide in hold_out_test(slides, 0.2, seed) if slide.split == "test")
        assert [n // 5 for n in test] == [0, 1, 2, 3]


def test_holding_out_refuses_what_cannot_be_held_out():
    slides = [replace(slide, split=None) for slide in cohort(2)]
    with pytest.raises(BadOption, match="between 0 and 1"):
        hold_out_test(slides, 1.0)
    with pytest.raises(BadOption, match="1 slides have a split already, as 'x'"):
        hold_out_test([*slides, LabelledSlide("x", "x", "a", "train", 1)])
    with pytest.raises(BadLabels, match="'lone' has 1 cases; 1 for the test leave none to train"):
        hold_out_test([*slides, LabelledSlide("x", "x", "lone", None, 1)])
    with pytest.raises(BadLabels, match="Case 'a0' has slides of two domains"):
        hold_out_test([*slides, LabelledSlide("x", "a0", "b", None, 1)])


def test_a_domain_without_mitotic_figures_is_named():
    slides = [replace(s, n_figures=0) if s.domain == "b" and s.split == "train" else s for s in cohort()]
    with pytest.raises(BadLabels, match="The domain 'b' has 20 slides to train, none with a mitotic figure"):
        plan_trials(slides, "single", 3)


def test_a_domain_without_test_slides_is_named():
    with pytest.raises(BadLabels, match="The domain 'c' has no slide to test"):
        plan_trials([s for s in cohort() if (s.domain, s.split) != ("c", "test")], "all", 3)


def test_a_fold_that_cannot_set_a_threshold_is_named():
    slides = [replace(s, n_figures=4 if s.case_id in ("a0", "a5") else 0) if s.domain == "a" else s for s in cohort()]
    with pytest.raises(BadLabels, match=r"Fold \d of 3 of single 'a' has (6|8) slides to validate, none with"):
        plan_trials(slides, "single", 3)
    assert len(plan_trials(slides, "all", 3)) == 3


def test_too_few_or_unknown_domains_are_refused():
    lone = cohort(domains=("a",))
    for protocol in ("single", "leave-one-out"):
        with pytest.raises(BadOption, match=f"{protocol} needs two domains or more; there is a"):
            plan_trials(lone, protocol)
    assert len(plan_trials(lone, "all", 5)) == 5
    with pytest.raises(BadOption, match=r"The domain 'd' is unknown\. There are a, b, c"):
        plan_trials(cohort(), "single", only=["a", "d"])
    with pytest.raises(BadOption, match="Name no domain"):
        plan_trials(cohort(), "all", only=["a"])
    with pytest.raises(BadOption, match="protocol 'some' is unknown"):
        plan_trials(cohort(), "some")


def test_one_row_can_be_planned_alone():
    whole = plan_trials(cohort(), "leave-one-out", 3)
    assert plan_trials(cohort(), "leave-one-out", 3, only=["b"]) == [t for t in whole if t.domain == "b"]


def test_slides_without_a_clear_part_are_refused():
    slides = cohort()
    with pytest.raises(BadLabels, match=r"2 slides have no split, as 'x'.*hold cases out"):
        plan_trials([*slides, *(LabelledSlide(n, n, "a", None, 1) for n in "xy")], "all")
    with pytest.raises(BadLabels, match="Keep cases whole"):
        plan_trials([*slides, LabelledSlide("x", "a0", "a", "train", 1)], "all")
    with pytest.raises(BadLabels, match="a part 'val'"):
        plan_trials([*slides, LabelledSlide("x", "x", "a", "val", 1)], "all")
    with pytest.raises(BadLabels, match="occurs more than once"):
        plan_trials([*slides, slides[0]], "all")
    with pytest.raises(BadLabels, match="called 'all'"):
        plan_trials([*slides, LabelledSlide("x", "x", "all", "train", 1)], "all")
    with pytest.raises(BadLabels, match="no slides"):
        plan_trials([], "all")


def trial(domain, fold=0):
    return Trial("single", domain, fold, frozenset(), frozenset())


def test_a_trial_is_named_by_what_it_trains():
    assert trial("phantom-breast-a").name == "single-phantom-breast-a-fold-0"
    assert trial("human melanoma", 4).name.startswith("single-human-melanoma-")


@given(st.lists(st.text(), min_size=2, max_size=6, unique=True))
def test_names_of_trials_are_safe_and_differ_whatever_domains_are_called(domains):
    names = [trial(domain).name for domain in domains]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) < 100
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("domain", ["../../etc", "a/b", "CON", "C:\\x", "\x00", "", "癌", "a" * 500, "\ud800"])
def test_a_domain_cannot_leave_the_folder(domain, tmp_path):
    path = tmp_path / trial(domain).name
    path.mkdir()
    assert path.resolve().parent == tmp_path.resolve()


def test_slides_are_counted_from_labels_and_a_missing_domain_is_named():
    kinds = [("s1", "mitotic_figure"), ("s1", "imposter"), ("s1", "mitotic_figure"), ("s2", "imposter")]
    labels = [{"slide_id": slide, "x_px": 1.0, "y_px": 2.0, "kind": kind} for slide, kind in kinds]
    rows = [{"slide_id": s, "case_id": "c", "domain": "d, scanner", "tumor": "d", "split": None} for s in ("s1", "s2")]
    tables = pa.Table.from_pylist(labels, schema=LABELS), pa.Table.from_pylist(rows, schema=CASES)
    assert labelled_slides(*tables) == [
        LabelledSlide("s1", "c", "d, scanner", None, 2),
        LabelledSlide("s2", "c", "d, scanner", None, 0),
    ]
    assert {slide.domain for slide in labelled_slides(*tables, domain="tumor")} == {"d"}
    with pytest.raises(BadLabels, match="Slide 's1' has no tumor"):
        labelled_slides(tables[0], pa.Table.from_pylist([r | {"tumor": None} for r in rows], schema=CASES), "tumor")
    with pytest.raises(BadLabels, match="1 labelled slides are not in the case table, as 's2'"):
        labelled_slides(tables[0], tables[1].slice(0, 1))
