"""The arrays of boxes that networks of the YOLO family give, read as scored centres."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadModel, BadOption

LAYOUTS: Final = ("auto", "yolov5", "yolov8", "end2end")
"""yolov5: (n, boxes, 5 + classes), box, objectness, classes; also YOLOR, v3 to v7. yolov8: (n, 4 + classes, boxes);
also v9, v11, v12. end2end: (n, boxes, 6), box, score, class, after suppression in the network; also v10."""

BOX_FORMATS: Final = ("auto", "cxcywh", "xyxy")
"""Centre, width and height, or two opposite corners, in px of the window. auto: corners for end2end only."""

_END2END_COLUMNS: Final = 6
_END2END_ROWS: Final = 1000
"""No exporter keeps more boxes than this after suppression; 100 and 300 are usual."""
_STRIDES: Final = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (4, 8, 16, 32, 64))


def layout_of(shape: tuple[int, ...], window_px: int) -> str:
    """The layout of an output of `shape` (n, rows, columns) for windows of window_px.

    Six columns are either end2end or yolov5 with one class: as many boxes as three or more levels have cells, with one
    or three boxes each, are no result of a suppression. Raises BadModel where the shape fits none or does not tell.
    """
    _, rows, columns = shape
    if rows < columns and rows > 4:
        return "yolov8"
    if columns == _END2END_COLUMNS:
        cells = [sum((window_px // stride) ** 2 for stride in strides) for strides in _STRIDES]
        if rows in {anchors * n for anchors in (1, 3) for n in cells}:
            return "yolov5"
        if rows <= _END2END_ROWS:
            return "end2end"
        raise BadModel(
            f"ONNX model: gives {rows} rows of 6, which yolov5 with one class and end2end both do; state the layout"
        )
    if rows > columns > 5:
        return "yolov5"
    raise BadModel(f"ONNX model: an output of shape {shape} is no YOLO layout that is known ({', '.join(LAYOUTS[1:])})")


def check_layout(shape: tuple[int, ...], layout: str, figure_class: int) -> None:
    """Raises BadModel where an output of `shape` is not of the layout, BadOption where it lacks the class."""
    _, rows, columns = shape
    boxes_first = layout != "yolov8"
    width = columns if boxes_first else rows
    classes = width - (5 if layout == "yolov5" else 4)
    if (layout == "end2end" and width != _END2END_COLUMNS) or classes < 1:
        raise BadModel(f"ONNX model: an output of shape {shape} does not have the layout {layout}; state another")
    if layout != "end2end" and figure_class >= classes:
        raise BadOption(f"figure_class {figure_class} is not there: the model has {classes} classes, counted from 0")


def centres(
    output: NDArray[np.float32], layout: str, box_format: str, figure_class: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Centres (m, 2), px as (x, y) with (0, 0) in the middle of the first pixel, and scores (m,), for each window.

    output: (n, rows, columns). A score is that of `figure_class` alone, times the objectness where there is one. For
    end2end, boxes of other classes are left out. Raises BadModel for scores that are no probabilities.
    """
    boxes = output.transpose(0, 2, 1) if layout == "yolov8" else output
    match layout:
        case "yolov5":
            scores = boxes[..., 4] * boxes[..., 5 + figure_class]
        case "yolov8":
            scores = boxes[..., 4 + figure_class]
        case _:
            scores = boxes[..., 4]
    if not ((scores >= -1e-3) & (scores <= 1 + 1e-3)).all():
        raise BadModel(
            f"ONNX model: gives scores that are no numbers in [0, 1], read as layout {layout}; "
            "export it with its sigmoid, or state another layout"
        )
    corners = box_format == "xyxy" or (box_format == "auto" and layout == "end2end")
    xy = (boxes[..., :2] + boxes[..., 2:4]) / 2 if corners else boxes[..., :2]
    found = zip(xy - np.float32(0.5), scores.clip(0, 1), strict=True)
    if layout != "end2end":
        return list(found)
    ours = (np.rint(boxes[..., 5]) == figure_class) & (scores > 0)  # too few are filled up with zeros
    return [(where[kept], score[kept]) for (where, score), kept in zip(found, ours, strict=True)]
