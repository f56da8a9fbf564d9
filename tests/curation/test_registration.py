"""Maps from slides to their rescans: the algebra, the pieces, and drawn rescans whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitoray.curation.registration import Extent, Node, Registration, affine_of, after
from mitoray.curation.registration_coarse import coarse_affine, density
from mitoray.curation.registration_refine import SEARCH_PX, block_moves, local_map
from mitoray.curation.registration_slides import Registering, register_files
from mitoray.errors import BadOption, BadRegistration, BlankSlide, MirroredRescan, RegistrationRefused
from mitoray.phantom import DOMAINS, Phantom, draw_phantom, write_slide
from mitoray.phantom.rescan import Rescanning, draw_rescan

A, B = DOMAINS["phantom-breast-a"], DOMAINS["phantom-breast-b"]
RADIUS_UM = 6.25


def turned(degrees, x=0.0, y=0.0, scale=1.0):
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return affine_of(np.array([[cos, -sin, x], [sin, cos, y]]))


@st.composite
def registrations(draw):
    """A quad-tree whose squares differ from the whole's map by as much as tissue is warped."""
    near = st.floats(-10, 10)
    whole = turned(draw(st.floats(-180, 180)), draw(st.floats(-500, 500)), draw(st.floats(-500, 500)))
    nodes = [Node(0.0, 0.0, 800.0, whole, draw(st.none() | st.floats(0, 1)))]
    for left, top in draw(st.sets(st.sampled_from([(0.0, 0.0), (400.0, 0.0), (0.0, 400.0), (400.0, 400.0)]))):
        bent = after(whole, (1 + draw(near) / 1000, 0.0, draw(near), draw(near) / 1000, 1.0, draw(near)))
        nodes.append(Node(left, top, 400.0, bent, draw(st.none() | st.floats(0, 1))))
    return Registration(whole, 20, tuple(nodes), Extent(3200, 3000, 0.25), Extent(3500, 3300, 0.23))


@given(registrations(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_way_back_undoes_the_way_there(registration, seed):
    places = np.random.default_rng(seed).uniform(-100, 3300, (40, 2))
    back = registration.to_original(registration.to_rescan(places))
    # Where a square has no neighbour the map steps from its own to the whole's: nothing lies in the step.
    found = registration.to_rescan(back)
    assert (np.abs(found - registration.to_rescan(places)).max(axis=1) < 1e-3).mean() > 0.8


@given(registrations())
@settings(max_examples=40, deadline=None)
def test_a_registration_survives_json(registration):
    again = Registration.from_json(json.loads(json.dumps(registration.to_json())))
    assert again == registration
    places = np.array([[10.0, 20.0], [1500.0, 1700.0]])
    assert np.array_equal(again.to_rescan(places), registration.to_rescan(places))


def test_a_square_s_own_map_counts_at_its_centre_and_the_whole_s_beyond_all_squares():
    moved = Node(0.0, 0.0, 400.0, (1.0, 0.0, 8.0, 0.0, 1.0, 0.0), 0.7)
    extent = Extent(4000, 4000, 0.25)
    found = Registration((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 20, (moved,), extent, extent)
    places = np.array([[800.0, 800.0], [3000.0, 3000.0]]) - 0.5
    assert found.to_rescan(places) - places == pytest.approx(np.array([[32.0, 0.0], [0.0, 0.0]]))
    assert found.quality_at(places)[0] == 0.7
    assert np.isnan(found.quality_at(places)[1])
    edge = np.array([[3999.0, 3000.0], [3990.0, 3000.0], [4001.0, 3000.0]])
    assert found.on_rescan(edge).tolist() == [True, True, False]
    assert found.on_rescan(edge, margin_um=1.0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"affine": [1, 0, 0, 0, 1]},
        {"affine": [1, 0, 0, 2, 0, 0]},
        {"original": {"width_px": 0, "height_px": 5, "mpp": 0.25}},
        {"nodes": [{"left_um": 3, "top_um": 0, "side_um": 400, "affine": [1, 0, 0, 0, 1, 0], "quality": 0.5}]},
        {"nodes": [{"left_um": 0, "top_um": 0, "side_um": 400, "affine": [1, 0, 0, 0, 1, 0], "quality": 7}]},
        {"nodes": 3},
    ],
)
def test_a_file_that_is_no_registration_is_refused(change):
    whole = Registration((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 20, (), Extent(40, 40, 0.25), Extent(40, 40, 0.25))
    with pytest.raises(BadRegistration, match="Register again"):
        Registration.from_json({**whole.to_json(), **change})


@pytest.fixture(scope="module")
def texture():
    """Density of a drawn slide, 2 µm/px."""
    phantom = draw_phantom(A, seed=31, width_px=4800, height_px=4800)
    return density(phantom.image[::8, ::8])


def test_coarse_alignment_finds_turns_and_shifts(texture):
    for degrees, shift in ((0.0, (13.0, -7.0)), (28.0, (0.0, 30.0)), (180.0, (-20.0, 5.0)), (-91.0, (0.0, 0.0))):
        way = np.reshape(turned(degrees), (2, 3))[:, :2]
        middle = np.array([300.0, 300.0])
        back = np.linalg.inv(way)
        seen = ndimage.affine_transform(
            texture, back[::-1, ::-1], (middle - back @ (middle + shift))[::-1], order=1, cval=0.0
        )
        affine, inliers = coarse_affine(texture, seen, 2.0)
        assert affine is not None
        assert inliers >= 12
        places = np.random.default_rng(0).uniform(150, 450, (20, 2))
        there = (places - middle) @ way.T + middle + shift
        found = ((places + 0.5) * 2) @ np.reshape(affine, (2, 3))[:, :2].T + np.reshape(affine, (2, 3))[:, 2]
        assert np.linalg.norm(found / 2 - 0.5 - there, axis=1).max() < 4


def test_coarse_alignment_of_nothing_and_of_another_tissue_finds_too_little(texture):
    assert coarse_affine(np.zeros((300, 300), np.float32), texture, 2.0) == (None, 0)
    other = density(draw_phantom(A, seed=32, width_px=4800, height_px=4800).image[::8, ::8])
    assert coarse_affine(texture, other, 2.0)[1] < 12


def test_refinement_finds_a_known_affine_to_a_quarter_of_a_px(texture):
    want = np.array([[1.01, 0.006, 7.3], [-0.004, 0.995, -9.6]])
    back = np.linalg.inv(want[:, :2])
    size = 448
    start = np.array([60.0, 60.0]) - SEARCH_PX
    # The window's px is at `start` of the texture; what is at x of the original is at want(x) there.
    offset = back @ (start - 60 - want[:, 2]) + 60
    rows = size + 2 * SEARCH_PX
    seen = ndimage.affine_transform(texture, back[::-1, ::-1], offset[::-1], output_shape=(rows, rows), order=1)
    affine, quality = local_map(*block_moves(texture[60 : 60 + size, 60 : 60 + size], seen))
    places = np.random.default_rng(0).uniform(0, size, (30, 2))
    found = places @ np.reshape(affine, (2, 3))[:, :2].T + np.reshape(affine, (2, 3))[:, 2]
    assert np.linalg.norm(found - places @ want[:, :2].T - want[:, 2], axis=1).max() < 1
    assert quality is not None
    assert quality > 0.8


def test_refinement_says_nothing_of_glass_and_little_of_another_place(texture):
    glass = np.zeros((400, 400), np.float32)
    assert local_map(*block_moves(glass, np.zeros((448, 448), np.float32))) == ((1, 0, 0, 0, 1, 0), None)
    _, quality = local_map(*block_moves(texture[:300, :300], texture[250:598, 250:598]))
    assert quality is not None
    assert quality < 0.2


@pytest.fixture(scope="module")
def glass(tmp_path_factory):
    """A drawn slide with many figures, and its file."""
    folder = tmp_path_factory.mktemp("glass")
    crowded = replace(A, tumour=replace(A.tumour, figures_per_mm2=150, imposters_per_mm2=60))
    phantom = draw_phantom(crowded, seed=8, width_px=3200, height_px=2800, slide_id="glass")
    write_slide(phantom, folder / "glass.svs")
    return phantom, folder


def registered(glass, how, name, registering=None):
    phantom, folder = glass
    rescan = draw_rescan(phantom, B, how, seed=3)
    write_slide(rescan.phantom, folder / f"{name}.svs")
    places = np.column_stack([phantom.labels["x_px"], phantom.labels["y_px"]])
    return rescan, places, register_files(str(folder / "glass.svs"), str(folder / f"{name}.svs"), registering, places)


@pytest.mark.parametrize("degrees", [-35.0, *(pytest.param(d, marks=pytest.mark.slow) for d in (2.0, 180.0))])
def test_figures_of_a_drawn_slide_are_carried_to_their_place_on_a_warped_turned_restained_rescan(glass, degrees):
    how = Rescanning(degrees, (70.0, -40.0), 8.0, blurred=3, strip_um=60.0, seam_um=4.0)
    rescan, places, found = registered(glass, how, f"rescan{degrees:.0f}")
    off_um = np.linalg.norm(found.to_rescan(places) - rescan.places_px, axis=1) * B.mpp
    clear = np.array(rescan.states) == "clear"
    assert clear.sum() > 30
    assert (off_um[clear] <= RADIUS_UM).mean() >= 0.99
    assert np.median(off_um[clear]) < 1.5
    assert found.quality > 0.4
    assert abs((found.angle_degrees - degrees + 180) % 360 - 180) < 2
    outside = np.array([state == "outside" for state in rescan.states])
    assert (found.on_rescan(places) == ~outside).mean() > 0.97


def test_a_mirrored_scan_is_refused_and_called_mirrored(glass):
    with pytest.raises(MirroredRescan, match="agree once the rescan is mirrored"):
        registered(glass, Rescanning(10.0, mirrored=True), "mirrored")


def test_another_tissue_and_blank_glass_are_refused_with_their_measure(glass):
    phantom, folder = glass
    other = draw_phantom(B, seed=99, width_px=2400, height_px=2400)
    write_slide(other, folder / "other.svs")
    with pytest.raises(RegistrationRefused, match="features agree on one map, 12 must"):
        register_files(str(folder / "glass.svs"), str(folder / "other.svs"))
    empty = Phantom(np.full((3000, 3000, 3), 243, np.uint8), phantom.labels, A, A.mpp, 0, "empty")
    write_slide(empty, folder / "empty.svs")
    with pytest.raises(BlankSlide, match="the rescan shows no tissue: quality 0"):
        register_files(str(folder / "glass.svs"), str(folder / "empty.svs"))


def test_a_registration_of_low_quality_is_refused_with_its_quality(glass):
    with pytest.raises(RegistrationRefused, match=r"quality 0\.\d\d is under 1\.00"):
        registered(glass, Rescanning(1.0), "strict", Registering(min_quality=0.999))


def test_options_out_of_range_are_refused():
    for wrong in ({"thumbnail_px": 10}, {"min_inliers": 2}, {"leaf_um": 3}, {"min_quality": 1.0}):
        with pytest.raises(BadOption):
            Registering(**wrong)
