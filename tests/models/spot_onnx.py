"""ONNX networks that find bright spots as YOLO finds cells: many boxes for each, in any of its layouts.

A spot is SPOT_PX square, on a dark ground. Each cell of 8 px looks at 24 px around it: it scores what share of a spot
it sees, and places the box at the centre of the light. So a whole spot is placed exactly, and one that is cut by the
window's border scores less and is placed wrong. Class 0 is what is red, class 1 what is blue.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

SPOT_PX = 9
OBJECTNESS = 0.5

_DTYPES = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


class Graph:
    """Nodes and constants as they come."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def __call__(self, operator, *inputs, **attributes):
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        output = f"{operator}{len(self.nodes)}"
        outputs = [output, f"{output}_index"] if operator == "TopK" else [output]
        self.nodes.append(helper.make_node(operator, names, outputs, **attributes))
        return output

    def constant(self, value):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def kernels():
    """Share of red, share of blue, all light, light times x and times y; (5, 3, 24, 24)."""
    offset = np.arange(24) - 11.5
    kernel = np.zeros((5, 3, 24, 24))
    kernel[0, 0] = kernel[1, 2] = 1 / SPOT_PX**2
    kernel[2] = 1
    kernel[3], kernel[4] = offset[None, :], offset[:, None]
    return kernel.astype(np.float32)


def spot_network(layout, *, batch="n", side="side", dtype=np.float32, zoom=1.0, ghost_px=None):
    """A model of the layout; batch and side are numbers where they are fixed. float16: of what goes in and out.

    zoom: of all centres about that of a window of 256 px. ghost_px: (x, y) at which it always sees a figure; yolov8
    with batches of 1 only.
    """
    graph = Graph()
    image = graph("Cast", "images", to=TensorProto.FLOAT)
    light = graph("Relu", graph("Sub", graph("Mul", image, np.float32(2)), np.float32(1)))
    maps = graph("Conv", light, kernels(), strides=[8, 8], pads=[8, 8, 8, 8])
    red, blue, total, x, y = (graph("Slice", maps, np.array([i]), np.array([i + 1]), np.array([1])) for i in range(5))
    weight = graph("Max", total, np.float32(1e-6))
    ones = graph("Add", graph("Mul", total, np.float32(0)), np.float32(1))

    def centre(moment, axis):
        grid = graph("CumSum", ones, np.array(axis))
        cell = graph("Sub", graph("Mul", grid, np.float32(8)), np.float32(4))
        return graph("Add", cell, graph("Div", moment, weight))

    def flat(name):
        return graph("Reshape", name, np.array([0, 1, -1]))

    def zoomed(name):
        return graph("Add", graph("Mul", name, np.float32(zoom)), np.float32(128 * (1 - zoom)))

    cx, cy = zoomed(flat(centre(x, 3))), zoomed(flat(centre(y, 2)))
    red, blue, ones = (flat(graph("Min", name, np.float32(1))) for name in (red, blue, ones))
    size = graph("Mul", ones, np.float32(SPOT_PX))
    if layout == "yolov8":
        rows = graph("Concat", cx, cy, size, size, red, blue, axis=1)
        if ghost_px:
            ghost = np.array([*ghost_px, SPOT_PX, SPOT_PX, 1, 0], np.float32)
            rows = graph("Concat", rows, ghost[None, :, None], axis=2)
    elif layout == "yolov5":
        objectness = graph("Mul", ones, np.float32(OBJECTNESS))
        rows = graph("Concat", cx, cy, size, size, objectness, red, blue, axis=1)
    else:
        half = graph("Mul", size, np.float32(0.5))
        corners = [graph(op, centre, half) for op in ("Sub", "Add") for centre in (cx, cy)]
        score = graph("Max", red, blue)
        kind = graph("Cast", graph("Greater", blue, red), to=TensorProto.FLOAT)
        best = graph("TopK", score, np.array([100]), axis=2)
        rows = graph("Concat", *(graph("GatherElements", part, f"{best}_index", axis=2) for part in corners), best,
                     graph("GatherElements", kind, f"{best}_index", axis=2), axis=1)  # fmt: skip
    if layout != "yolov8":
        rows = graph("Transpose", rows, perm=[0, 2, 1])
    graph.nodes.append(helper.make_node("Cast", [rows], ["output0"], to=_DTYPES[dtype]))
    return model_of(graph.nodes, graph.constants, [batch, 3, side, side], _DTYPES[dtype])


def model_of(nodes, constants, shape, kind=TensorProto.FLOAT, **model):
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("output0", kind, ["a", "b", "c"])],
        constants,
    )
    opsets = model.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, **model)


def file_of(model):
    onnx.checker.check_model(model)
    return model.SerializeToString()


def drawn(xy_px, scores, height_px, width_px, channel=None):
    """A dark image, uint8 (3, h, w), with a spot at each whole (x, y), of the brightness that gives the score."""
    image = torch.zeros(3, height_px, width_px, dtype=torch.uint8)
    reach = SPOT_PX // 2
    for (x, y), score in zip(xy_px, scores, strict=True):
        where = image[slice(None) if channel is None else channel]
        where[..., y - reach : y + reach + 1, x - reach : x + reach + 1] = round(127.5 * (1 + score))
    return image
