import numpy as np
import pytest
import torch
from spot_onnx import OBJECTNESS, SPOT_PX, drawn, file_of, kernels, spot_network

from mitoray.errors import BadOption
from mitoray.models.detector import suppress
from mitoray.models.onnx import OnnxYolo, OnnxYoloDetector, spans

CPU = torch.device("cpu")
LAYOUTS = ["yolov5", "yolov8", "end2end"]
WINDOW = {"window_px": 256, "overlap_px": 64}
BORDERS = [192, 224, 256]
"""Where the second window begins, the middle of the first overlap, where the first window ends."""


def detector_of(model, **settings):
    network = OnnxYolo.of(file_of(model), **{**WINDOW, **settings})
    return OnnxYoloDetector(network, mpp=0.36, mean=(0.0,) * 3, std=(255.0,) * 3, device=CPU)


@pytest.fixture(scope="module", params=LAYOUTS)
def detector(request):
    return detector_of(spot_network(request.param))


@pytest.fixture(scope="module")
def yolov8():
    return detector_of(spot_network("yolov8"))


def factor(detector):
    return OBJECTNESS if detector.layout == "yolov5" else 1.0


def scattered(seed, height_px, width_px, n=60, apart_px=32):
    """Places of spots whose answers do not touch, and their scores."""
    rng = np.random.default_rng(seed)
    places = np.empty((0, 2), int)
    while len(places) < n:
        place = rng.integers(SPOT_PX // 2, [width_px - SPOT_PX // 2, height_px - SPOT_PX // 2])
        if not len(places) or np.abs(places - place).max(axis=1).min() >= apart_px:
            places = np.vstack([places, place])
    return places, rng.uniform(0.5, 1, n)


def assert_found(points, places, scores, tolerance_px=0.02, tolerance=0.005):
    assert len(points) == len(places)
    distances = np.linalg.norm(points.xy_px[:, None] - places[None], axis=2)
    nearest = distances.argmin(axis=1)
    assert sorted(nearest) == list(range(len(places)))
    assert distances.min(axis=1).max() <= tolerance_px
    np.testing.assert_allclose(points.scores, scores[nearest], atol=tolerance)


def whole_image(image, threshold):
    """The same network in torch, on all of the image at once."""
    light = (2 * image[None].float() / 255 - 1).relu()
    red, _, total, x, y = torch.nn.functional.conv2d(light, torch.tensor(kernels()), stride=8, padding=8)[0]
    rows, columns = torch.meshgrid(*(torch.arange(size) * 8.0 + 3.5 for size in red.shape), indexing="ij")
    seen = red >= threshold
    xy = torch.stack([columns + x / total, rows + y / total], dim=-1)[seen]
    return suppress(xy.numpy(), red[seen].numpy(), 25)


def test_the_layout_is_found_from_the_output():
    for layout in LAYOUTS:
        assert detector_of(spot_network(layout)).layout == layout


def test_every_spot_is_found_once_with_its_place_and_score(detector):
    places, scores = scattered(1, 610, 790)
    image = drawn(places, scores, 610, 790)
    (points,) = detector.detect(image[None], 0.2)
    assert_found(points, places, scores * factor(detector))


@pytest.mark.parametrize("offset", [-33, -20, -16, -9, -5, -4, -1, 0, 1, 4, 5, 9, 16, 20, 33])
def test_spots_on_the_borders_of_windows_are_found_once(detector, offset):
    places = np.array([(x + offset, y + offset) for x in BORDERS for y in BORDERS])
    image = drawn(places, np.ones(len(places)), 448, 448)
    (points,) = detector.detect(image[None], 0.1)
    assert_found(points, places, np.full(len(places), factor(detector)))


def test_a_figure_that_each_window_places_on_the_others_side_is_found_once():
    detector = detector_of(spot_network("yolov8", side=256, zoom=1.05))
    (points,) = detector.detect(drawn([(224, 224)], [1.0], 448, 448)[None], 0.3)
    assert len(points) == 1
    assert np.abs(points.xy_px - 224).max() == pytest.approx(0.05 * 96, abs=0.1)


def test_what_a_window_sees_at_its_inner_border_is_left_to_its_neighbour():
    detector = detector_of(spot_network("yolov8", batch=1, ghost_px=(3.0, 15.0)))
    (points,) = detector.detect(torch.zeros(1, 3, 448, 448, dtype=torch.uint8), 0.3)
    assert points.xy_px.tolist() == [[2.5, 14.5]]


def test_windows_answer_as_the_whole_image_does(yolov8):
    places, scores = scattered(2, 832, 640, n=90)
    image = drawn(places, scores, 832, 640)
    (points,) = yolov8.detect(image[None], 0.3)
    reference = whole_image(image, 0.3)
    assert len(reference) == 90
    order, expected = np.lexsort(points.xy_px.round().T), np.lexsort(reference.xy_px.round().T)
    np.testing.assert_allclose(points.xy_px[order], reference.xy_px[expected], atol=0.01)
    np.testing.assert_allclose(points.scores[order], reference.scores[expected], atol=1e-4)


@pytest.mark.parametrize("size", [(256, 256), (9, 9), (40, 300), (257, 256), (300, 40), (448, 449)])
def test_images_of_any_size_are_taken(detector, size):
    places = np.array([[4, 4], [size[1] - 5, size[0] - 5]][: 1 if size == (9, 9) else 2])
    (points,) = detector.detect(drawn(places, np.ones(len(places)), *size)[None], 0.2)
    assert_found(points, places, np.full(len(places), factor(detector)))


def test_the_grey_around_a_small_image_holds_no_points():
    # With this mean the grey is light to the network.
    network = OnnxYolo.of(file_of(spot_network("yolov8")), **WINDOW)
    detector = OnnxYoloDetector(network, mpp=0.36, mean=(-60.0,) * 3, std=(255.0,) * 3, device=CPU)
    for size in ((1, 1), (30, 20)):
        (points,) = detector.detect(torch.zeros(1, 3, *size, dtype=torch.uint8), 0.0)
        assert (points.xy_px <= np.array(size[::-1]) - 0.5).all()


@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_fixed_and_free_batches_answer_the_same(yolov8, batch):
    places, scores = scattered(3, 448, 448, n=20)
    image = drawn(places, scores, 448, 448)
    fixed = detector_of(spot_network("yolov8", batch=batch, side=256))
    (expected,), (points,) = yolov8.detect(image[None], 0.2), fixed.detect(image[None], 0.2)
    np.testing.assert_allclose(points.xy_px, expected.xy_px, atol=1e-4)
    np.testing.assert_allclose(points.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_networks_are_taken(layout):
    half = detector_of(spot_network(layout, dtype=np.float16))
    places, scores = scattered(4, 448, 300, n=15)
    (points,) = half.detect(drawn(places, scores, 448, 300)[None], 0.2)
    assert points.xy_px.dtype == points.scores.dtype == np.float32
    assert_found(points, places, scores * factor(half), tolerance_px=0.3, tolerance=0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_mitotic_class_is_reported(layout):
    red, blue = np.array([[50, 60], [200, 220]]), np.array([[120, 60], [222, 90]])
    image = drawn(red, np.ones(2), 300, 300, channel=0) | drawn(blue, np.ones(2), 300, 300, channel=2)
    for figure_class, places in enumerate((red, blue)):
        detector = detector_of(spot_network(layout), figure_class=figure_class)
        (points,) = detector.detect(image[None], 0.1)
        assert_found(points, places, np.full(2, factor(detector)))


def test_mean_and_deviation_are_applied_before_the_network():
    network = OnnxYolo.of(file_of(spot_network("yolov8")), **WINDOW)
    shifted = OnnxYoloDetector(network, mpp=0.36, mean=(51.0,) * 3, std=(204.0,) * 3, device=CPU)
    (points,) = shifted.detect(drawn([(40, 50)], [0.6], 100, 100)[None], 0.1)
    assert points.scores == pytest.approx([2 * (204 - 51) / 204 - 1], abs=1e-5)


def test_an_image_scores_the_same_alone_and_in_a_batch(detector):
    images = torch.stack([drawn(*scattered(seed, 300, 280, n=12), 300, 280) for seed in (5, 6)])
    for image, points in zip(images, detector.detect(images, 0.2), strict=True):
        (alone,) = detector.detect(image[None], 0.2)
        np.testing.assert_array_equal(alone.xy_px, points.xy_px)
        assert len(points) == 12


def test_a_higher_threshold_keeps_exactly_the_points_above_it(detector):
    image = drawn(*scattered(7, 300, 280, n=12), 300, 280)[None]
    (all_points,) = detector.detect(image, 0.2)
    for threshold in (0.3, 0.4):
        (points,) = detector.detect(image, threshold)
        kept = all_points.scores >= threshold
        np.testing.assert_array_equal(points.xy_px, all_points.xy_px[kept])
        assert kept.sum() > 0


def test_points_are_ranked_and_apart_even_at_threshold_zero(detector):
    (points,) = detector.detect(drawn(*scattered(8, 448, 448, n=20), 448, 448)[None], 0.0)
    assert (np.diff(points.scores) <= 0).all()
    distances = np.linalg.norm(points.xy_px[:, None] - points.xy_px[None], axis=2)
    assert distances[~np.eye(len(points), dtype=bool)].min() > 25


def test_the_halo_is_half_an_overlap_and_context_enough(detector):
    assert detector.halo_um == 32 * detector.mpp
    halo_px = round(detector.halo_um / detector.mpp)
    places = np.array([(x, 300) for x in range(257, 513, 37)])
    image = drawn(places, np.ones(len(places)), 600, 768)
    (points,) = detector.detect(image[None, :, :, 256 - halo_px : 512 + halo_px], 0.1)
    inside = (points.xy_px[:, 0] >= halo_px - 0.5) & (points.xy_px[:, 0] < halo_px + 256 - 0.5)
    assert sorted(points.xy_px[inside, 0].round() + 256 - halo_px) == places[:, 0].tolist()


def test_no_images_and_dark_images_give_no_points(detector):
    assert detector.detect(torch.empty(0, 3, 64, 64, dtype=torch.uint8), 0.5) == []
    (points,) = detector.detect(torch.zeros(1, 3, 300, 64, dtype=torch.uint8), 0.1)
    assert points.xy_px.shape == (0, 2)


def test_other_arrays_and_thresholds_are_a_bad_option(detector):
    with pytest.raises(BadOption, match="a detector takes uint8"):
        detector.detect(torch.zeros(1, 3, 8, 8), 0.5)
    with pytest.raises(BadOption, match="outside"):
        detector.detect(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 1.5)


@pytest.mark.parametrize("length", [1, 640, 641, 1152, 1153, 2176, 5000])
def test_every_pixel_is_answered_for_by_a_window_that_sees_around_it(length):
    windows = spans(length, 640, 128)
    for x in np.arange(0, length, 0.5):
        context = [
            min(x - start if start else 64, start + 640 - x if start + 640 < length else 64)
            for start, low, high in windows
            if low <= x < high
        ]
        assert max(context) >= 63.5
    assert [start for start, *_ in windows][-1] == max(0, length - 640)


def test_a_region_of_512_um_is_tiled_without_rest():
    assert [start for start, *_ in spans(2048 + 128, 640, 128)] == [0, 512, 1024, 1536]
