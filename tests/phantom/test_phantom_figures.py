import numpy as np
import pytest
from scipy import ndimage

from mitoray.phantom import DOMAINS
from mitoray.phantom.imposters import IMPOSTERS, imposter
from mitoray.phantom.mitoses import ATYPICAL, NORMAL, mitotic_figure

DOMAIN = DOMAINS["phantom-breast-a"]


def chromatin(sprite):
    """The sprite's dark part: more haematoxylin than any interphase nucleus has on average."""
    return sprite.layers[1] > 0.7


def clumps_um2(sprite):
    spots, n = ndimage.label(chromatin(sprite))
    sizes = ndimage.sum_labels(np.ones_like(spots), spots, np.arange(1, n + 1)) * DOMAIN.mpp**2
    return np.sort(sizes)[::-1]


@pytest.mark.parametrize("phase", [*NORMAL, *ATYPICAL])
def test_figure_is_five_to_sixteen_micrometres_long(phase):
    rng = np.random.default_rng(1)
    for _ in range(8):
        at = np.argwhere(chromatin(mitotic_figure(rng, DOMAIN, phase))) * DOMAIN.mpp
        length = max(np.ptp(at @ (np.cos(angle), np.sin(angle))) for angle in np.linspace(0, np.pi, 16, endpoint=False))
        assert 5 < length < 16


@pytest.mark.parametrize(
    "draw", [lambda rng, form: mitotic_figure(rng, DOMAIN, form), lambda rng, form: imposter(rng, DOMAIN, form)]
)
def test_centre_is_that_of_the_drawn_chromatin(draw):
    forms = [*NORMAL, *ATYPICAL] if "mitotic" in draw.__code__.co_names[0] else list(IMPOSTERS)
    rng = np.random.default_rng(2)
    for form in forms:
        sprite = draw(rng, form)
        row, column = ndimage.center_of_mass(np.clip(sprite.layers[1] - 0.3, 0, None))
        assert np.hypot(column + 0.5 - sprite.centre_px[0], row + 0.5 - sprite.centre_px[1]) * DOMAIN.mpp < 0.5


def test_anaphase_and_telophase_have_two_like_bands():
    rng = np.random.default_rng(3)
    for phase in ("anaphase", "telophase"):
        shares = []
        for _ in range(12):
            first, second = clumps_um2(mitotic_figure(rng, DOMAIN, phase))[:2]
            shares.append(second / first)
        assert np.median(shares) > 0.7


def test_asymmetric_anaphase_has_two_unlike_bands():
    rng = np.random.default_rng(4)
    sizes = [clumps_um2(mitotic_figure(rng, DOMAIN, "asymmetric")) for _ in range(12)]
    assert np.median([size[1] / size[0] for size in sizes if len(size) > 1]) < 0.5


def test_metaphase_seen_end_on_is_a_ring():
    rng = np.random.default_rng(5)
    for _ in range(8):
        sprite = mitotic_figure(rng, DOMAIN, "metaphase, end-on")
        rows, columns = np.indices(sprite.layers[1].shape) + 0.5
        away_um = np.hypot(columns - sprite.centre_px[0], rows - sprite.centre_px[1]) * DOMAIN.mpp
        middle = sprite.layers[1][away_um < 0.8].mean()
        assert middle < 0.7 * sprite.layers[1][(away_um > 2.2) & (away_um < 3.2)].mean()


def test_figures_are_rougher_than_dying_cells():
    """Perimeter squared over area, 4π for a disc: what a pathologist calls fuzzy against smooth."""

    def roughness(sprite):
        dark = chromatin(sprite)
        return (dark & ~ndimage.binary_erosion(dark)).sum() ** 2 / dark.sum()

    rng = np.random.default_rng(6)
    fuzzy = np.median([roughness(mitotic_figure(rng, DOMAIN, "prometaphase")) for _ in range(16)])
    smooth = np.median([roughness(imposter(rng, DOMAIN, "pyknotic")) for _ in range(16)])
    assert fuzzy > 1.5 * smooth


def test_darkness_alone_does_not_tell_figures_from_imposters():
    rng = np.random.default_rng(7)
    figures = [mitotic_figure(rng, DOMAIN, "metaphase").layers[1].max() for _ in range(24)]
    dying = [imposter(rng, DOMAIN, "pyknotic").layers[1].max() for _ in range(24)]
    assert min(figures) < max(dying)
    assert min(dying) < max(figures)
