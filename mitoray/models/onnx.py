"""Detectors of the YOLO family as ONNX files: an architecture whose weights are the file itself, and its detector."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mitoray.errors import BadModel, BadOption
from mitoray.models.detector import SUPPRESSION_RADIUS_UM, Points, checked_images, suppress
from mitoray.models.inputs import Normaliser
from mitoray.models.onnx_session import OnnxSession
from mitoray.models.yolo import BOX_FORMATS, LAYOUTS, centres, check_layout, layout_of

GREY: Final = 114
"""What YOLO trains beside its images (Ultralytics' letterbox), so nothing is found there."""

_MAX_BYTES: Final = 2**31 - 1
"""Protocol buffers, and so ONNX files without external data, end here."""

_BATCH: Final = {"cpu": 1, "cuda": 16}
"""Windows in one run of a network that takes any number; on a CPU more only cost memory."""

_MOST_BOXES: Final = 1000
"""Kept of one window, the best: at low thresholds each of some 25,000 cells is a box."""


class OnnxYolo(nn.Module):
    """An ONNX file as the state of a module, its bytes the buffer `onnx`, so that a bundle can hold it.

    It is not run by torch: see `OnnxYoloDetector`.
    """

    onnx: torch.Tensor

    def __init__(
        self,
        size_bytes: int = 0,
        window_px: int = 640,
        overlap_px: int = 128,
        layout: str = "auto",
        box_format: str = "auto",
        figure_class: int = 0,
    ) -> None:
        """An empty file of `size_bytes`, and how to use the network in it. Raises BadOption.

        window_px: side of the square windows that the network sees, px; as in its training.
        overlap_px: of neighbouring windows; half of it is the context that every figure has on all sides at least.
            128 px let windows of 640 tile a region of 512 µm at 0.25 µm/px without rest.
        layout, box_format: see `LAYOUTS`, `BOX_FORMATS`. figure_class: index of the mitotic figure among the classes.
        """
        super().__init__()
        if not 0 <= size_bytes <= _MAX_BYTES:
            raise BadOption(f"size_bytes {size_bytes} lies outside 0 to {_MAX_BYTES}")
        if not 64 <= window_px <= 8192:
            raise BadOption(f"window_px {window_px} lies outside 64 to 8192")
        if not 16 <= overlap_px <= window_px // 2:
            raise BadOption(f"overlap_px {overlap_px} lies outside 16 to half the window, {window_px // 2}")
        if layout not in LAYOUTS:
            raise BadOption(f"layout {layout!r} is unknown; use {', '.join(LAYOUTS)}")
        if box_format not in BOX_FORMATS:
            raise BadOption(f"box_format {box_format!r} is unknown; use {', '.join(BOX_FORMATS)}")
        if figure_class < 0:
            raise BadOption(f"figure_class {figure_class} is below 0")
        self.window_px = window_px
        self.overlap_px = overlap_px
        self.layout = layout
        self.box_format = box_format
        self.figure_class = figure_class
        self.register_buffer("onnx", torch.empty(size_bytes, dtype=torch.uint8))

    @classmethod
    def of(cls, onnx: bytes, **settings: int | str) -> "OnnxYolo":
        """The file `onnx`; settings as in the constructor."""
        network = cls(len(onnx), **settings)  # type: ignore[arg-type]
        network.onnx.copy_(torch.frombuffer(bytearray(onnx), dtype=torch.uint8))
        return network


class OnnxYoloDetector:
    """A YOLO network in an ONNX file as a detector: uint8 images in, points out.

    It sees windows, since it was trained on images of one size. layout: what it was found to be, where that was "auto".
    """

    def __init__(
        self,
        network: OnnxYolo,
        *,
        mpp: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
    ) -> None:
        """`mean` and `std` of the channels are in units of 0 to 255; YOLO's own 0 to 1 is mean 0, std 255.

        Takes as many CPU threads as torch has. Runs the network once, on a blank window. Raises BadModel, BadOption.
        """
        self.mpp = mpp
        self.halo_um = network.overlap_px / 2 * mpp
        self.device = device
        self._network = network
        self._normaliser = Normaliser(mean, std, device)
        self._session = OnnxSession(network.onnx.cpu().numpy().tobytes(), device, torch.get_num_threads())
        side_px = self._session.side_px or network.window_px
        if side_px != network.window_px:
            raise BadModel(f"ONNX model: takes windows of {side_px} px only; set window_px to that")
        blank = torch.full((self._session.batch or 1, 3, side_px, side_px), GREY, dtype=torch.uint8)
        output = self._session.run(self._normalised(blank))
        self.layout = layout_of(output.shape, side_px) if network.layout == "auto" else network.layout
        check_layout(output.shape, self.layout, network.figure_class)
        self._centres(output)

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:
        """Points that score at least `threshold`: see `Detector.detect`."""
        checked_images(images, threshold)
        return [self._detect_one(image, threshold) for image in images]

    def _detect_one(self, image: torch.Tensor, threshold: float) -> Points:
        height_px, width_px = image.shape[1:]
        rows = spans(height_px, self._network.window_px, self._network.overlap_px)
        columns = spans(width_px, self._network.window_px, self._network.overlap_px)
        places = [(row, column) for row in rows for column in columns]
        xy_px, scores = [np.empty((0, 2), np.float32)], [np.empty(0, np.float32)]
        windows = self._windows(image, [(row[0], column[0]) for row, column in places])
        for (row, column), (xy, score) in zip(places, windows, strict=True):
            xy = xy + np.array([column[0], row[0]], np.float32)
            kept = np.flatnonzero(
                (score >= threshold)
                & ((xy >= [column[1], row[1]]) & (xy < [column[2], row[2]])).all(axis=1)
                & ((xy >= -0.5) & (xy < [width_px - 0.5, height_px - 0.5])).all(axis=1)
            )
            best = kept[np.argsort(-score[kept], kind="stable")[:_MOST_BOXES]]
            xy_px.append(xy[best])
            scores.append(score[best])
        return suppress(np.concatenate(xy_px), np.concatenate(scores), SUPPRESSION_RADIUS_UM / self.mpp)

    def _windows(
        self, image: torch.Tensor, corners: list[tuple[int, int]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """What the network finds in the windows at `corners` (y, x), in their own px."""
        size, side_px = self._session.batch or _BATCH[self.device.type], self._network.window_px
        for first in range(0, len(corners), size):
            chosen = corners[first : first + size]
            n = self._session.batch or len(chosen)
            batch = torch.full((n, 3, side_px, side_px), GREY, dtype=torch.uint8, device=image.device)
            for window, (y, x) in zip(batch, chosen, strict=False):
                seen = image[:, y : y + side_px, x : x + side_px]
                window[:, : seen.shape[1], : seen.shape[2]] = seen
            yield from self._centres(self._session.run(self._normalised(batch)))[: len(chosen)]

    def _normalised(self, windows: torch.Tensor) -> torch.Tensor:
        return self._normaliser(windows).to(self._session.dtype).contiguous()

    def _centres(self, output: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return centres(output, self.layout, self._network.box_format, self._network.figure_class)


def spans(length_px: int, window_px: int, overlap_px: int) -> list[tuple[int, float, float]]:
    """Windows along one side of an image: where each starts, and from where to where it answers for figures' centres.

    The last is shifted inwards. A window leaves the outer quarter of an overlap to its neighbour. The middle half both
    keep, for each may place a figure in the middle on the other's side; suppression leaves one.
    """
    last = max(0, length_px - window_px)
    starts = [*range(0, last, window_px - overlap_px), last]
    middles = [(before + window_px + after) / 2 - 0.5 for before, after in pairwise(starts)]
    margin = overlap_px / 4
    lows = [-np.inf, *(middle - margin for middle in middles)]
    highs = [*(middle + margin for middle in middles), np.inf]
    return list(zip(starts, lows, highs, strict=True))
