import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.filters import threshold_otsu

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom import DOMAINS, PhantomDomain, draw_phantom


def on_glass(phantom):
    """True where the image is as bright as the scanner's white."""
    white = np.array(phantom.domain.scanner.white, dtype=np.int16)
    return (np.abs(ndimage.uniform_filter(phantom.image.astype(np.int16), (5, 5, 0)) - white) < 9).all(axis=2)


def points(labels, kind=None):
    rows = [row for row in labels.to_pylist() if kind in (None, row["kind"])]
    return np.array([(row["x_px"], row["y_px"]) for row in rows]).reshape(-1, 2)


def changed(domain: PhantomDomain, **tumour) -> PhantomDomain:
    return replace(domain, tumour=replace(domain.tumour, **tumour))


@pytest.fixture(scope="module")
def phantoms():
    """One small slide per domain, 320 µm wide, with many figures."""
    return [
        draw_phantom(
            changed(domain, figures_per_mm2=150, imposters_per_mm2=150),
            seed=11,
            width_px=round(320 / domain.mpp),
            height_px=round(320 / domain.mpp),
        )
        for domain in DOMAINS.values()
    ]


def test_same_seed_gives_the_same_pixels_in_another_process():
    program = (
        "import hashlib; from mitoray.phantom import draw_phantom;"
        "p = draw_phantom('phantom-breast-a', seed=5, width_px=700, height_px=600);"
        "print(hashlib.sha256(p.image.tobytes()).hexdigest(), p.labels.to_pylist())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    here = draw_phantom("phantom-breast-a", seed=5, width_px=700, height_px=600)
    assert there == f"{hashlib.sha256(here.image.tobytes()).hexdigest()} {here.labels.to_pylist()}"


def test_another_seed_gives_another_slide():
    one, two = (draw_phantom("phantom-breast-a", seed=seed, width_px=400, height_px=400).image for seed in (1, 2))
    assert np.mean(one != two) > 0.5


def test_there_are_seven_domains_or_more_at_three_resolutions_with_two_codecs():
    assert len(DOMAINS) >= 7
    assert {domain.mpp for domain in DOMAINS.values()} == {0.23, 0.25, 0.5}
    assert {domain.scanner.codec for domain in DOMAINS.values()} == {"jpeg", "jpeg2000"}
    assert all(name == domain.name and name.startswith("phantom-") for name, domain in DOMAINS.items())


def test_image_and_labels_have_the_promised_form(phantoms):
    for phantom in phantoms:
        side = round(320 / phantom.mpp)
        assert phantom.image.shape == (side, side, 3)
        assert phantom.image.dtype == np.uint8
        assert phantom.labels.schema == LABELS
        assert set(phantom.labels["kind"].to_pylist()) == {"mitotic_figure", "imposter"}
        assert all((row["subtype"] is None) == (row["kind"] == "imposter") for row in phantom.labels.to_pylist())
        assert set(phantom.labels["domain"].to_pylist()) == {phantom.domain.name}


def test_label_lies_at_the_centre_of_dark_chromatin(phantoms):
    for phantom in phantoms:
        red = phantom.image[:, :, 0].astype(float)
        reach = round(6.5 / phantom.mpp)
        axis = np.arange(-reach, reach + 1)
        disc = np.hypot(axis[:, None], axis) <= reach
        interphase = np.median(red[red < threshold_otsu(red)])
        offsets = []
        for x, y in points(phantom.labels, "mitotic_figure"):
            row, column = int(y), int(x)
            view = red[row - reach : row + reach + 1, column - reach : column + reach + 1]
            darkest = np.quantile(view[disc], 0.04)
            assert darkest < 0.8 * interphase, "a mitotic figure is darker than the nuclei around it"
            centre = ndimage.center_of_mass((view <= (darkest + interphase) / 2) & disc)
            offsets.append(
                np.hypot(row - reach + centre[0] + 0.5 - y, column - reach + centre[1] + 0.5 - x) * phantom.mpp
            )
        assert np.median(offsets) < 0.6, phantom.domain.name
        assert max(offsets) < 4, phantom.domain.name


def test_labels_keep_their_distance_from_edges_from_each_other_and_from_glass(phantoms):
    for phantom in phantoms:
        xy = points(phantom.labels)
        side = phantom.image.shape[0]
        assert (np.minimum(xy, side - xy).min() * phantom.mpp) > 8
        assert pdist(xy).min() * phantom.mpp > 10
        glass = on_glass(phantom)
        ring = np.exp(1j * np.linspace(0, 2 * np.pi, 12, endpoint=False)) * 6 / phantom.mpp
        for x, y in points(phantom.labels, "mitotic_figure"):
            assert not glass[(y + ring.imag).astype(int), (x + ring.real).astype(int)].any()


def test_figures_are_as_dense_as_the_domain_says():
    domain = changed(DOMAINS["phantom-lymphoma-a"], figures_per_mm2=60, imposters_per_mm2=90)
    tissue_mm2, counts = 0.0, {"mitotic_figure": 0, "imposter": 0}
    for seed in range(3):
        phantom = draw_phantom(domain, seed=seed, width_px=1400, height_px=1400)
        tissue_mm2 += float(np.mean(~on_glass(phantom))) * 1400**2 * phantom.mpp**2 / 1e6
        for kind in counts:
            counts[kind] += len(points(phantom.labels, kind))
    for kind, per_mm2 in (("mitotic_figure", 60), ("imposter", 90)):
        assert abs(counts[kind] - per_mm2 * tissue_mm2) < 4 * np.sqrt(per_mm2 * tissue_mm2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_atypical_share_is_kept(share):
    domain = changed(DOMAINS["phantom-neuroendocrine-a"], figures_per_mm2=300, atypical_share=share, nest_share=1)
    labels = draw_phantom(domain, seed=3, width_px=1200, height_px=1200).labels
    subtypes = [subtype for subtype in labels["subtype"].to_pylist() if subtype is not None]
    assert len(subtypes) > 40
    spread = np.sqrt(share * (1 - share) / len(subtypes))
    assert abs(subtypes.count("atypical") / len(subtypes) - share) <= 4 * spread


def test_figures_gather_in_hotspots():
    """Counts in squares are Poisson, with a variance like their mean, if figures are scattered; more if they gather."""
    domain = changed(DOMAINS["phantom-neuroendocrine-a"], figures_per_mm2=150, imposters_per_mm2=150, nest_share=1.0)
    labels = draw_phantom(domain, seed=1, width_px=2000, height_px=2000).labels

    def dispersion(kind):
        inner = np.histogram2d(*points(labels, kind).T, bins=7, range=[(0, 2000)] * 2)[0][1:-1, 1:-1]
        return inner.var(ddof=1) / inner.mean()

    assert dispersion("mitotic_figure") > 1.8
    assert dispersion("mitotic_figure") > 1.3 * dispersion("imposter")


def test_tissue_lies_on_glass_and_has_holes(phantoms):
    for phantom in phantoms:
        glass = on_glass(phantom)
        assert all(
            glass[rows, columns].all()
            for rows in (slice(6), slice(-6, None))
            for columns in (slice(6), slice(-6, None))
        )
        assert 0.4 < np.mean(~glass) < 0.95
    areas, _ = ndimage.label(on_glass(draw_phantom("phantom-lung-a", seed=4, width_px=1600, height_px=1600)))
    around, largest_hole = np.sort(np.bincount(areas.ravel())[1:] * 0.25**2)[[-1, -2]]
    assert around > largest_hole > 300


def test_domains_differ_in_colour(phantoms):
    colours = [phantom.image[~on_glass(phantom)].mean(axis=0) for phantom in phantoms]
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) > 3


def test_domains_differ_in_nuclear_size(phantoms):
    def nucleus_um2(name):
        phantom = next(phantom for phantom in phantoms if phantom.domain.name == name)
        red = ndimage.gaussian_filter(phantom.image[:, :, 0].astype(float), 0.5 / phantom.mpp)
        spots, _ = ndimage.label(red < threshold_otsu(red[~on_glass(phantom)]))
        sizes = np.bincount(spots.ravel())[1:] * phantom.mpp**2
        return np.median(sizes[sizes > 15])

    assert nucleus_um2("phantom-sarcoma-a") > 1.3 * nucleus_um2("phantom-neuroendocrine-a")


@given(
    name=st.sampled_from(sorted(DOMAINS)),
    seed=st.integers(0, 2**32),
    width_um=st.floats(61, 130),
    height_um=st.floats(61, 130),
)
@settings(max_examples=8, deadline=None)
def test_small_slides_of_any_shape_can_be_drawn(name, seed, width_um, height_um):
    width, height = int(width_um / DOMAINS[name].mpp), int(height_um / DOMAINS[name].mpp)
    phantom = draw_phantom(name, seed=seed, width_px=width, height_px=height)
    assert phantom.image.shape == (height, width, 3)
    xy = points(phantom.labels)
    assert ((xy > 8 / phantom.mpp) & (xy < np.array([width, height]) - 8 / phantom.mpp)).all()


def test_tissue_without_tumour_has_no_labels():
    stroma = changed(DOMAINS["phantom-breast-a"], nest_share=0.0, figures_per_mm2=0, imposters_per_mm2=0)
    phantom = draw_phantom(stroma, seed=1, width_px=500, height_px=500)
    assert phantom.labels.num_rows == 0
    assert phantom.labels.schema == LABELS
    assert np.mean(~on_glass(phantom)) > 0.3


def test_unknown_domain_names_the_known_ones():
    with pytest.raises(BadOption, match="phantom-breast-a"):
        draw_phantom("phantom-unicorn", seed=1)


def test_slide_too_small_says_how_large_it_must_be():
    with pytest.raises(BadOption, match="at least 240 px"):
        draw_phantom("phantom-breast-a", seed=1, width_px=1000, height_px=100)


def test_negative_seed_is_refused():
    with pytest.raises(BadOption, match="seed is -1"):
        draw_phantom("phantom-breast-a", seed=-1)


@pytest.mark.parametrize(
    ("option", "value"),
    [("nest_share", 1.5), ("atypical_share", -0.1), ("figures_per_mm2", float("nan")), ("nuclei_per_mm2", 0)],
)
def test_impossible_tumour_is_refused(option, value):
    with pytest.raises(BadOption, match=option):
        changed(DOMAINS["phantom-breast-a"], **{option: value})


def test_implausible_resolution_is_refused():
    domain = DOMAINS["phantom-breast-a"]
    with pytest.raises(BadOption, match="µm/px"):
        replace(domain, scanner=replace(domain.scanner, mpp=2.0))
