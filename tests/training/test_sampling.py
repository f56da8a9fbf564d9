import dataclasses
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mitoray.errors import BadLabels, BadOption
from mitoray.labels.schema import LABELS
from mitoray.slide import Rect
from mitoray.training.sampling import (
    FIGURE_REACH_UM,
    PATCHES,
    PLACES,
    sample_ccmct,
    sample_fick,
    sample_midog,
    with_figures,
)
from mitoray.training.slides import HPF_MM2, TrainingSlide, labels_within, limited, lower_half, upper_half

SAMPLERS = [sample_midog, sample_ccmct, sample_fick]
PATCH_UM = 64.0


def slide(name, side_px=4000, domain="breast", mpp=0.25, area=None):
    return TrainingSlide(name, f"{name}.svs", name, domain, mpp, side_px, side_px, area)


def label_table(rows):
    """Labels from (slide_id, x, y, kind[, subtype])."""
    names = ("slide_id", "x_px", "y_px", "kind", "subtype")
    return pa.Table.from_pylist([dict(zip(names, row, strict=False)) for row in rows], schema=LABELS)


def scattered(slides, per_slide, seed=0):
    """`per_slide` mitotic figures, as many imposters and a few others, anywhere on each slide."""
    rng = np.random.default_rng(seed)
    return label_table(
        (one.slide_id, *rng.uniform(-0.5, (one.width_px - 0.5, one.height_px - 0.5)), kind)
        for one in slides
        for kind in ["mitotic_figure", "imposter"] * per_slide + ["granulocyte"]
    )


def columns(places, *names):
    return [places[name].to_pylist() for name in names]


def holding(places, labels, kind):
    """Whether each patch holds a label of the kind."""
    by_slide = {}
    for name, x, y, other in zip(*columns(labels, "slide_id", "x_px", "y_px", "kind"), strict=True):
        if other == kind:
            by_slide.setdefault(name, []).append((x, y))
    rows = zip(*columns(places, "slide_id", "x_px", "y_px", "side_px"), strict=True)
    return [Rect(x, y, s, s).contains(np.reshape(by_slide.get(name, []), (-1, 2))).any() for name, x, y, s in rows]


@st.composite
def cohorts(draw):
    """Slides of all sizes and resolutions, some limited to a part, and labels, some of them outside."""
    slides = []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(st.integers(20, 3000)), draw(st.integers(20, 3000))
        x, y = draw(st.integers(0, width // 2)), draw(st.integers(0, height // 2))
        area = Rect(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
        mpp, domain = draw(st.sampled_from([0.12, 0.23, 0.25, 0.5])), draw(st.sampled_from(["a", "b", None]))
        limit = draw(st.sampled_from([None, area]))
        slides.append(TrainingSlide(f"s{number}", "u", "c", domain, mpp, width, height, limit))
    part = slides[0].sampled
    rows = [("s0", part.x_px + part.width_px - 1.0, float(part.y_px), "mitotic_figure")]
    coordinate = st.floats(-50, 3100)
    kind = st.sampled_from(["mitotic_figure", "imposter", "uncertain"])
    names = st.sampled_from(["s0", "s1", "s2", "s3", "elsewhere"])
    rows += draw(st.lists(st.tuples(names, coordinate, coordinate, kind), max_size=25))
    return slides, label_table(rows)


@pytest.mark.parametrize("sample", SAMPLERS)
@settings(deadline=None)
@given(cohort=cohorts(), n=st.integers(1, 60), patch_um=st.floats(10, 300), seed=st.integers(0, 2**32 - 1))
def test_patches_lie_where_they_may_and_hold_what_they_were_placed_for(sample, cohort, n, patch_um, seed):
    slides, labels = cohort
    places = sample(slides, labels, n, patch_um, np.random.default_rng(seed))
    assert places.schema == PLACES
    assert len(places) == n
    assert places == sample(slides, labels, n, patch_um, np.random.default_rng(seed))
    by_id = {one.slide_id: one for one in slides}
    for name, x, y, side in zip(*columns(places, "slide_id", "x_px", "y_px", "side_px"), strict=True):
        part = by_id[name].sampled
        assert side == round(patch_um / by_id[name].mpp)
        for start, first, whole in ((x, part.x_px, part.width_px), (y, part.y_px, part.height_px)):
            assert first <= start <= max(first, first + whole - side)
    allowed = labels_of(slides, labels)
    for kind in ("mitotic_figure", "imposter"):
        placed_for = np.array(places["reason"].to_pylist()) == kind
        assert np.all(np.array(holding(places, allowed, kind))[placed_for])


def labels_of(slides, labels):
    """Labels in sampled parts, one by one."""
    parts = {one.slide_id: one.sampled for one in slides}
    rows = labels.to_pylist()
    inside = [r["slide_id"] in parts and parts[r["slide_id"]].contains([r["x_px"], r["y_px"]])[0] for r in rows]
    return labels.filter(pa.array(inside))


def test_midog_takes_slides_in_equal_numbers_and_guides_half_of_the_patches():
    slides = [slide(f"s{i}") for i in range(30)]
    labels = scattered(slides[:20], 4)
    places = sample_midog(slides, labels, 4007, PATCH_UM, np.random.default_rng(1))
    numbers = Counter(places["slide_id"].to_pylist())
    assert set(numbers.values()) == {133, 134}
    with_figure = pa.compute.is_in(places["slide_id"], value_set=pa.array([f"s{i}" for i in range(20)]))
    reasons = Counter(places.filter(with_figure)["reason"].to_pylist())
    assert set(reasons) == {"random", "mitotic_figure"}
    assert stats.binomtest(reasons["random"], reasons.total(), 0.5).pvalue > 1e-4
    assert set(places.filter(pa.compute.invert(with_figure))["reason"].to_pylist()) == {"random"}


def test_published_midog_patches_lie_within_512_px_of_their_figure():
    labels = label_table([("s", 2000, 2000, "mitotic_figure")])
    places = sample_midog([slide("s")], labels, 500, 128.0, np.random.default_rng(1))
    guided = places.filter(pa.compute.equal(places["reason"], "mitotic_figure"))
    x = guided["x_px"].to_numpy()
    assert x.min() >= 2000 - 512
    assert x.max() + 512 <= 2000 + 512


@pytest.mark.parametrize("sample", SAMPLERS)
def test_the_figure_stands_anywhere_in_its_patch(sample):
    labels = label_table([("s", 2000, 2000, "mitotic_figure")])
    places = sample([slide("s")], labels, 4000, PATCH_UM, np.random.default_rng(2))
    guided = places.filter(pa.compute.equal(places["reason"], "mitotic_figure"))
    for axis in ("x_px", "y_px"):
        offsets = (2000 - guided[axis].to_numpy() + 0.5) / 256
        assert stats.kstest(offsets, "uniform").pvalue > 1e-4


def test_hard_patches_hold_mined_imposters_at_the_stated_share():
    slides = [slide(f"s{i}") for i in range(10)]
    labels = scattered(slides, 3)
    places = sample_midog(slides, labels, 3000, PATCH_UM, np.random.default_rng(3), hard_share=0.3)
    reasons = Counter(places["reason"].to_pylist())
    for reason, share in (("imposter", 0.3), ("mitotic_figure", 0.35), ("random", 0.35)):
        assert stats.binomtest(reasons[reason], 3000, share).pvalue > 1e-4


def test_ccmct_mixes_figures_imposters_and_random_tissue_5_to_4_to_1():
    slides = [slide(f"s{i}", side_px=20_000) for i in range(8)]
    labels = pa.concat_tables([scattered(slides[:2], 50), scattered(slides[2:4], 1)])
    places = sample_ccmct(slides, labels, 5000, PATCH_UM, np.random.default_rng(4))
    assert Counter(places["reason"].to_pylist()) == {"mitotic_figure": 2500, "imposter": 2000, "random": 500}
    figures = places.filter(pa.compute.equal(places["reason"], "mitotic_figure"))
    assert Counter(figures["slide_id"].to_pylist()) == {f"s{i}": 625 for i in range(4)}
    anywhere = places.filter(pa.compute.equal(places["reason"], "random"))
    assert set(Counter(anywhere["slide_id"].to_pylist()).values()) == {62, 63}


def test_ccmct_without_imposters_takes_random_tissue_instead():
    labels = label_table([("s", 500, 500, "mitotic_figure")])
    places = sample_ccmct([slide("s")], labels, 100, PATCH_UM, np.random.default_rng(5))
    assert Counter(places["reason"].to_pylist()) == {"mitotic_figure": 50, "random": 50}


def test_fick_takes_domains_by_weight_and_half_of_each_around_figures():
    names = ["cmc", "scanner-a", "scanner-b", "skin", "lung", "bladder"]
    slides = [slide(f"{name}-{i}", domain=name) for name in names for i in range(3)]
    labels = scattered(slides, 5)
    groups = {"rescans": ["scanner-a", "scanner-b"], "organs": ["skin", "lung"]}
    weights = {"cmc": 50, "rescans": 25, "organs": 25}
    places = sample_fick(
        slides, labels, 4000, PATCH_UM, np.random.default_rng(6), weights=weights, groups=groups, random_share=0.5
    )
    domains = [name.rsplit("-", 1)[0] for name in places["slide_id"].to_pylist()]
    assert Counter(domains) == {"cmc": 2000, "scanner-a": 500, "scanner-b": 500, "skin": 500, "lung": 500}
    both = Counter(zip(domains, places["reason"].to_pylist(), strict=True))
    assert both["cmc", "mitotic_figure"] == 1000
    assert both["cmc", "imposter"] == both["cmc", "random"] == 500
    assert both["lung", "mitotic_figure"] == 250


def test_fick_takes_every_figure_of_a_domain_alike_so_atypical_ones_at_their_share():
    slides = [slide(f"s{i}") for i in range(5)]
    rng = np.random.default_rng(7)
    sizes = [200, 100, 30, 10, 60]
    rows = [
        (f"s{i}", *rng.uniform(0, 4000, 2), "mitotic_figure", "atypical" if k % 10 == 0 else "normal")
        for i, size in enumerate(sizes)
        for k in range(size)
    ]
    places = sample_fick(slides, label_table(rows), 8000, 0.25, np.random.default_rng(8))  # patches of one pixel
    figures = places.filter(pa.compute.equal(places["reason"], "mitotic_figure"))
    subtype = {(name, round(x), round(y)): kind for name, x, y, _, kind in rows}
    drawn = [subtype[place] for place in zip(*columns(figures, "slide_id", "x_px", "y_px"), strict=True)]
    assert stats.binomtest(drawn.count("atypical"), len(drawn), 0.1).pvalue > 1e-4
    numbers = Counter(figures["slide_id"].to_pylist())
    expected = np.array(sizes) / 400 * len(figures)
    assert stats.chisquare([numbers[f"s{i}"] for i in range(5)], expected).pvalue > 1e-4


def test_a_domain_without_figures_gives_negatives():
    slides = [slide("a", domain="a"), slide("b", domain="b"), slide("c", domain="c")]
    labels = label_table([("a", 900, 900, "mitotic_figure"), ("b", 900, 900, "imposter")])
    places = sample_fick(slides, labels, 300, PATCH_UM, np.random.default_rng(9), random_share=0)
    both = Counter(zip(*columns(places, "slide_id", "reason"), strict=True))
    assert both == {("a", "mitotic_figure"): 50, ("a", "random"): 50, ("b", "imposter"): 100, ("c", "random"): 100}


@pytest.mark.parametrize("sample", SAMPLERS)
def test_what_cannot_be_sampled_is_refused(sample):
    rng = np.random.default_rng(0)
    slides, labels = [slide("a", domain="breast"), slide("b", domain="lung")], scattered([slide("a")], 2)
    for arguments, said in [
        ((slides, labels, 0, 64.0), "at least one patch"),
        (([], labels, 5, 64.0), "no slide to sample"),
        ((slides, labels, 5, 0.01), "at least one pixel"),
        ((slides, labels, 5, float("nan")), "at least one pixel"),
        (([slides[0]] * 2, labels, 5, 64.0), "each slide its own"),
    ]:
        with pytest.raises(BadOption, match=said):
            sample(*arguments, rng)
    with pytest.raises(BadLabels, match=r"domains: breast, lung\) has a mitotic figure"):
        sample(slides, label_table([("a", 9, 9, "imposter"), ("x", 9, 9, "mitotic_figure")]), 5, 64.0, rng)
    share = "hard_share" if sample is sample_midog else "figure_share"
    with pytest.raises(BadOption, match=f"{share} is 1.5"):
        sample(slides, labels, 5, 64.0, rng, **{share: 1.5})


def test_weights_of_unknown_domains_are_refused_with_the_known_ones():
    slides, rng = [slide("a", domain="breast"), slide("b", domain="lung")], np.random.default_rng(0)
    labels = scattered(slides[:1], 2)
    with pytest.raises(BadOption, match="domain 'skin'; there are 'breast', 'lung'"):
        sample_fick(slides, labels, 5, 64.0, rng, weights={"g": 1}, groups={"g": ["lung", "skin"]})
    with pytest.raises(BadOption, match="no domain has a weight above 0"):
        sample_fick(slides, labels, 5, 64.0, rng, weights={"lung": 0})
    with pytest.raises(BadLabels, match=r"None of 1 slides \(domains: lung\)"):
        sample_fick(slides, labels, 5, 64.0, rng, weights={"lung": 1})


@settings(deadline=None)
@given(cohort=cohorts(), n=st.integers(1, 20), mpp=st.sampled_from([0.25, 0.5]), seed=st.integers(0, 99))
def test_patches_list_every_figure_in_them_or_near_and_no_other(cohort, n, mpp, seed):
    slides, labels = cohort
    places = sample_midog(slides, labels, n, PATCH_UM, np.random.default_rng(seed))
    patches = with_figures(places, slides, labels, mpp)
    assert patches.schema == PATCHES
    assert patches.select(PLACES.names) == places
    by_id = {one.slide_id: one for one in slides}
    for patch in patches.to_pylist():
        one = by_id[patch["slide_id"]]
        rect = Rect(patch["x_px"], patch["y_px"], patch["side_px"], patch["side_px"])
        for kind, name, reach_um in (
            ("mitotic_figure", "figures_px", FIGURE_REACH_UM),
            ("uncertain", "masks_px", 16.0),
        ):
            side = patch["side_px"] * one.mpp / mpp
            found = rect.to_level0(np.reshape(patch[name], (-1, 2)), (side, side))
            there = [
                (r["x_px"], r["y_px"]) for r in labels.to_pylist() if (r["slide_id"], r["kind"]) == (one.slide_id, kind)
            ]
            middle, reach = (
                np.array([rect.x_px, rect.y_px]) + (rect.width_px - 1) / 2,
                rect.width_px / 2 + reach_um / one.mpp,
            )
            there = [place for place in there if np.abs(place - middle).max() <= reach]
            assert len(found) == len(there)
            if there:  # by distance: sorted by x, points that differ by a hair in x would change places
                apart = np.abs(found[:, None] - np.array(there)).max(axis=2)
                assert apart.min(axis=0).max() < 0.01
                assert apart.min(axis=1).max() < 0.01


def test_places_on_slides_that_are_not_given_are_refused():
    slides = [slide("a"), slide("b")]
    places = sample_midog(slides, scattered(slides, 1), 4, 64.0, np.random.default_rng(0))
    with pytest.raises(BadOption, match="no slide is called 'b'"):
        with_figures(places, slides[:1], scattered(slides, 1), 0.25)


def test_a_slide_is_halved_without_gap_or_overlap():
    whole = TrainingSlide("s", "u", "c", None, 0.25, 100, 201)
    upper, lower = upper_half(whole).sampled, lower_half(whole).sampled
    assert (upper.y_px, upper.height_px) == (0, 100)
    assert (lower.y_px, lower.y_px + lower.height_px) == (100, 201)
    assert upper_half(lower_half(whole)).sampled == Rect(0, 100, 100, 50)
    assert lower_half(whole).area_mm2 == pytest.approx(100 * 101 * 0.0625e-6)


@pytest.mark.parametrize(("hpf", "width_px", "height_px"), [(5, 4962, 3721), (10, 7017, 5263), (50, 15692, 11769)])
def test_limited_areas_have_the_published_sizes(hpf, width_px, height_px):
    # Table 5 of Bertram et al. 2019; its sizes are those of slides at 0.2533 µm/px.
    one = slide("s", side_px=90_000, mpp=0.2533)
    (part,) = limited([one], scattered([one], 30), np.random.default_rng(0), area_mm2=hpf * HPF_MM2)
    assert part.sampled.width_px == pytest.approx(width_px, abs=2)
    assert part.sampled.height_px == pytest.approx(height_px, abs=2)


def test_limited_areas_share_their_centre_where_most_figures_are():
    rng = np.random.default_rng(0)
    cluster = [("s", *rng.normal((30_000, 20_000), 500), "mitotic_figure") for _ in range(40)]
    astray = [("s", *rng.uniform(0, 60_000, 2), "mitotic_figure") for _ in range(10)]
    bait = [("s", 50_000, 50_000, "imposter")] * 99
    one = slide("s", side_px=60_000)
    centres = []
    for hpf in (5, 10, 50):
        (part,) = limited([one], label_table(cluster + astray + bait), rng, area_mm2=hpf * HPF_MM2)
        rect = part.sampled
        centres.append((rect.x_px + rect.width_px / 2, rect.y_px + rect.height_px / 2))
        assert part.area_mm2 == pytest.approx(hpf * HPF_MM2, rel=1e-3)
    assert all(np.abs(np.subtract(a, b)).max() <= 1 for a, b in pairwise(centres))
    assert np.abs(np.subtract(centres[0], (30_000, 20_000))).max() < 2500


def test_limited_areas_stay_in_the_part_that_may_be_sampled():
    part = Rect(1000, 2000, 3000, 1500)
    one = slide("s", side_px=8000, area=part)
    labels = label_table([("s", 1010, 2010, "mitotic_figure"), ("s", 7000, 7000, "mitotic_figure")])
    (small,) = limited([one], labels, np.random.default_rng(0), area_mm2=0.05)
    assert small.sampled == Rect(1000, 2000, small.sampled.width_px, small.sampled.height_px)
    assert small.area_mm2 == pytest.approx(0.05, rel=0.01)
    (large,) = limited([one], labels, np.random.default_rng(0), area_mm2=50)
    assert large.sampled == part
    (none,) = limited([one], labels.slice(1), np.random.default_rng(0), area_mm2=0.05)
    assert none.area_mm2 == pytest.approx(0.05, rel=0.01)


def test_fewer_slides_are_drawn_in_the_order_given():
    slides = [slide(f"s{i}") for i in range(20)]
    labels = scattered(slides, 1)
    drawn = limited(slides, labels, np.random.default_rng(1), n_slides=6)
    assert len(drawn) == 6
    assert drawn == [one for one in slides if one in drawn]
    assert drawn != limited(slides, labels, np.random.default_rng(2), n_slides=6)
    with pytest.raises(BadOption, match="give 1 to 20"):
        limited(slides, labels, np.random.default_rng(1), n_slides=21)
    with pytest.raises(BadOption, match="positive number of mm²"):
        limited(slides, labels, np.random.default_rng(1), area_mm2=0)


def test_labels_outside_the_image_are_dropped_with_their_number(caplog):
    rows = [("s", 10, 10, "imposter"), ("s", 10, 90, "imposter"), ("s", 101, 10, "imposter"), ("x", 10, 10, "imposter")]
    upper = upper_half(TrainingSlide("s", "u", "c", None, 0.25, 100, 100))
    assert labels_within([upper], label_table(rows)).to_pylist() == label_table(rows[:1]).to_pylist()
    assert "1 of 3 labels lie outside" in caplog.text


def test_a_label_belongs_to_the_pixel_whose_centre_it_is_nearest():
    one = TrainingSlide("s", "u", "c", None, 0.25, 100, 100)
    rows = [("s", x, x, "imposter") for x in (-0.6, -0.4, 50, 99.4, 99.6)]
    assert labels_within([one], label_table(rows))["x_px"].to_pylist() == [-0.4, 50, 99.4]


def test_labels_of_another_resolution_or_of_other_slides_are_refused():
    one = TrainingSlide("s", "u", "c", None, 0.25, 100, 100)
    with pytest.raises(BadLabels, match="2 of 3 labels lie outside their slide, most on 's'"):
        labels_within([one], label_table([("s", 10, 10, "m"), ("s", 200, 10, "m"), ("s", 10, 300, "m")]))
    with pytest.raises(BadLabels, match="slides like 's\\.tiff'"):
        labels_within([one], label_table([("s.tiff", 10, 10, "m")]))
    assert len(labels_within([one], label_table([]))) == 0


@pytest.mark.parametrize("area", [Rect(0, 0, 101, 10), Rect(-1, 0, 10, 10), Rect(0, 0, 10, 0)])
def test_an_area_beyond_its_slide_is_refused(area):
    one = TrainingSlide("s", "u", "c", None, 0.25, 100, 100)
    with pytest.raises(BadOption, match="empty or reaches past"):
        dataclasses.replace(one, area=area)
