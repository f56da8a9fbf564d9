"""Files that others made: what is refused, and how the rest is read."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from spot_onnx import file_of, model_of, spot_network

from mitoray.errors import BadModel, BadOption
from mitoray.models.onnx import OnnxYolo, OnnxYoloDetector
from mitoray.models.onnx_session import OnnxSession
from mitoray.models.yolo import layout_of

CPU = torch.device("cpu")
SHAPE = [1, 3, 256, 256]


def opened(model):
    return OnnxSession(model if isinstance(model, bytes) else model.SerializeToString(), CPU, 1)


def detector_of(model, **settings):
    network = OnnxYolo.of(model.SerializeToString(), **{"window_px": 256, "overlap_px": 64, **settings})
    return OnnxYoloDetector(network, mpp=0.25, mean=(0.0,) * 3, std=(255.0,) * 3, device=CPU)


def constant_network(output, shape=SHAPE, kind=TensorProto.FLOAT):
    """A network that gives `output` whatever it sees."""
    value = numpy_helper.from_array(np.asarray(output), "value")
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["pixels"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["value", "nothing"], ["output0"]),
    ]
    return model_of(nodes, [value, numpy_helper.from_array(np.float32(0), "zero")], shape, kind)


@pytest.fixture(scope="module")
def spots():
    return spot_network("yolov8", side=256)


@pytest.fixture
def file(spots, tmp_path):
    path = tmp_path / "spots.onnx"
    path.write_bytes(file_of(spots))
    return path


# ---- what is refused


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"no network", bytes(1000), b"ORTM" * 10])
def test_what_is_no_onnx_is_refused(data):
    with pytest.raises(BadModel, match=r"no ONNX|holds no network"):
        opened(data)


def test_a_truncated_file_is_refused(file):
    data = file.read_bytes()
    for kept in (len(data) // 2, len(data) - 1):
        with pytest.raises(BadModel, match=r"truncated or no ONNX|runtime does not take it"):
            opened(data[:kept])


def test_weights_in_other_files_are_refused_unread(spots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.ModelProto()
    model.CopyFrom(spots)
    onnx.save(model, "spots.onnx", save_as_external_data=True, location="secret", size_threshold=0)
    assert (tmp_path / "secret").exists()
    with pytest.raises(BadModel, match=r"in another file; .*external_data=False"):
        opened((tmp_path / "spots.onnx").read_bytes())


def hidden_in_a_branch(node, weights=()):
    """A network with `node` in a branch of an If that is never taken."""
    shape = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Identity", ["images"], ["y"])], "then", [], [shape]),
        "else_branch": helper.make_graph([node], "else", [], [shape], weights),
    }
    nodes = [helper.make_node("If", ["yes"], ["output0"], **branches)]
    return model_of(nodes, [numpy_helper.from_array(np.array(True), "yes")], SHAPE)


def test_weights_in_other_files_are_refused_in_branches_too():
    weights = numpy_helper.from_array(np.zeros(SHAPE, np.float32), "weights")
    model = hidden_in_a_branch(helper.make_node("Add", ["images", "weights"], ["y"]), [weights])
    assert opened(model).batch == 1
    (inner,) = next(a.g.initializer for a in model.graph.node[0].attribute if a.name == "else_branch")
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(BadModel, match="weights 'weights' are in another file"):
        opened(model)


@pytest.mark.parametrize("domain", ["com.microsoft", "my.lab", "org.pytorch.aten"])
def test_custom_operators_are_refused_in_branches_too(domain):
    node = helper.make_node("EPContext", ["images"], ["y"], domain=domain)
    for model in (model_of([node], [], SHAPE), hidden_in_a_branch(node)):
        model.opset_import.append(helper.make_opsetid(domain, 1))
        with pytest.raises(BadModel, match=f"custom operator {domain}.EPContext"):
            opened(model)


def own_function(inner_domain=""):
    """A network of one function that the file defines itself, as some exporters write them."""
    body = [helper.make_node("Identity", ["x"], ["y"], domain=inner_domain)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.lab", 1)]
    function = helper.make_function("my.lab", "Same", ["x"], ["y"], body, opsets)
    node = helper.make_node("Same", ["images"], ["output0"], domain="my.lab")
    return model_of([node], [], SHAPE, opset_imports=opsets, functions=[function])


def test_functions_of_the_files_own_are_taken_and_looked_through():
    assert opened(own_function()).batch == 1
    with pytest.raises(BadModel, match=r"custom operator evil\.Identity"):
        opened(own_function("evil"))


def test_a_file_is_never_read_in_the_runtimes_own_format(spots):
    model = onnx.ModelProto()
    model.CopyFrom(spots)
    model.producer_name = "ORTM"
    data = model.SerializeToString()
    assert data[4:8] == b"ORTM"  # by which the runtime would tell its own format
    assert opened(data).side_px == 256


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 256, 256, 3], "channels first"),
        ([1, 1, 256, 256], "channels first"),
        ([3, 256, 256], "channels first"),
        ([1, 3, 256, 320], "channels first"),
        ([1, 3, 256, "w"], "fix both sides or neither"),
    ],
)
def test_other_shapes_of_images_are_refused(shape, message):
    with pytest.raises(BadModel, match=message):
        opened(constant_network(np.zeros((1, 6, 84), np.float32), shape))


def test_other_types_of_images_are_refused():
    model = constant_network(np.zeros((1, 6, 84), np.float32), kind=TensorProto.UINT8)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(BadModel, match=r"type tensor\(uint8\)"):
        opened(model)


def test_a_second_input_is_refused(spots):
    model = onnx.ModelProto()
    model.CopyFrom(spots)
    model.graph.input.append(helper.make_tensor_value_info("orig_sizes", TensorProto.INT64, [1, 2]))
    with pytest.raises(BadModel, match="2 inputs \\('images', 'orig_sizes'\\)"):
        opened(model)


@pytest.mark.parametrize("output", [np.zeros((1, 6)), np.zeros((2, 6, 84)), np.zeros((1, 3, 6, 84))])
def test_outputs_that_are_no_boxes_of_each_image_are_refused(output):
    with pytest.raises(BadModel, match=r"gives float32 .* for 1 images"):
        detector_of(constant_network(output.astype(np.float32)))


@pytest.mark.parametrize("score", [3.5, -2.0, float("nan"), float("inf")])
def test_scores_that_are_no_probabilities_are_refused(score):
    with pytest.raises(BadModel, match=r"no numbers in \[0, 1\], read as layout yolov8; export it with its sigmoid"):
        detector_of(constant_network(np.full((1, 5, 84), score, np.float32)))


def test_a_window_other_than_the_file_fixes_is_refused(spots):
    with pytest.raises(BadModel, match="takes windows of 256 px only"):
        detector_of(spots, window_px=320)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_px": 10}, "window_px 10"),
        ({"overlap_px": 200}, "overlap_px 200"),
        ({"overlap_px": 0}, "overlap_px 0"),
        ({"layout": "yolo"}, "layout 'yolo' is unknown"),
        ({"box_format": "yxyx"}, "box_format 'yxyx'"),
        ({"figure_class": -1}, "figure_class -1"),
        ({"figure_class": 2}, "figure_class 2 is not there: the model has 2 classes"),
    ],
)
def test_settings_outside_their_range_are_a_bad_option(spots, settings, message):
    with pytest.raises(BadOption, match=message):
        detector_of(spots, **settings)


def test_a_stated_layout_must_fit_the_output(spots):
    with pytest.raises(BadModel, match=r"\(1, 6, 1024\) does not have the layout end2end"):
        detector_of(spots, layout="end2end")


# ---- layouts of networks that are in use


@pytest.mark.parametrize(
    ("shape", "window_px", "layout"),
    [
        ((1, 25200, 6), 640, "yolov5"),  # YOLOv5 s to x, one class
        ((1, 25200, 85), 640, "yolov5"),
        ((1, 102000, 6), 1280, "yolov5"),  # YOLOR-D6: four levels
        ((1, 8400, 7), 640, "yolov5"),  # no anchors, objectness: YOLOX
        ((1, 5, 8400), 640, "yolov8"),  # v8 to v12, one class
        ((1, 84, 8400), 640, "yolov8"),
        ((16, 6, 5376), 512, "yolov8"),
        ((1, 300, 6), 640, "end2end"),  # v10
        ((1, 100, 6), 512, "end2end"),
    ],
)
def test_layouts_in_use_are_told_apart(shape, window_px, layout):
    assert layout_of(shape, window_px) == layout


@pytest.mark.parametrize(("shape", "message"), [((1, 5000, 6), "state the layout"), ((1, 100, 4), "no YOLO layout")])
def test_an_output_that_does_not_tell_its_layout_is_refused(shape, message):
    with pytest.raises(BadModel, match=message):
        layout_of(shape, 640)


def test_corners_are_read_where_they_are_stated():
    boxes = np.zeros((1, 5, 84), np.float32)
    boxes[0, :, 0] = 10, 20, 30, 60, 0.9
    for box_format, centre in (("auto", [9.5, 19.5]), ("xyxy", [19.5, 39.5])):
        (points,) = detector_of(constant_network(boxes), box_format=box_format).detect(
            torch.zeros(1, 3, 256, 256, dtype=torch.uint8), 0.5
        )
        assert points.xy_px.tolist() == [centre]


def test_rows_that_fill_up_an_end2end_output_are_no_points():
    boxes = np.zeros((1, 100, 6), np.float32)
    boxes[0, 0] = 10, 20, 30, 60, 0.9, 0
    (points,) = detector_of(constant_network(boxes)).detect(torch.zeros(1, 3, 256, 256, dtype=torch.uint8), 0.0)
    assert points.xy_px.tolist() == [[19.5, 39.5]]


# ---- what the machine lacks


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_a_missing_package_is_named_with_what_to_install(spots, monkeypatch, package):
    data = spots.SerializeToString()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadModel, match=rf"{package} is not installed; pip install 'mitoray\[onnx\]'"):
        opened(data)


def test_a_gpu_that_the_runtime_cannot_use_is_a_bad_option(spots):
    with pytest.raises(BadOption, match="onnxruntime-gpu"):
        OnnxSession(spots.SerializeToString(), torch.device("cuda"), 1)
