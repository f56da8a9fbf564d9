"""Bundles from ONNX files that others trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError

from mitoray.errors import BadModel, BadOption
from mitoray.models.bundle import Bundle, Normalisation, Training
from mitoray.models.onnx import OnnxYolo, OnnxYoloDetector
from mitoray.models.onnx_session import OnnxSession

ARCHITECTURE: Final = "onnx-yolo"

ZERO_TO_ONE: Final = Normalisation(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
"""What YOLO takes: pixels divided by 255."""


def bundle_from_onnx(
    path: Path | str,
    *,
    name: str,
    mpp: float,
    threshold: float,
    thresholds: Mapping[str, float] | None = None,
    normalisation: Normalisation = ZERO_TO_ONE,
    training: Training | None = None,
    window_px: int | None = None,
    overlap_px: int = 128,
    layout: str = "auto",
    box_format: str = "auto",
    figure_class: int = 0,
) -> tuple[Bundle, dict[str, torch.Tensor]]:
    """A bundle around an ONNX file, and its weights: what `save_bundle` takes. The network is run once, on the CPU.

    window_px: None takes the size that the file fixes, or 640. The other settings are those of `OnnxYolo`; where they
    are "auto", the bundle holds what was found.

    Raises BadModel for a file that cannot be read, trusted or understood, BadOption for a value outside its range.
    """
    try:
        onnx = Path(path).read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({type(error).__name__}); give the path of an .onnx file") from error
    cpu = torch.device("cpu")
    try:
        window_px = window_px or OnnxSession(onnx, cpu, torch.get_num_threads()).side_px or 640
        use = {"window_px": window_px, "overlap_px": overlap_px, "figure_class": figure_class}
        network = OnnxYolo.of(onnx, **use, layout=layout, box_format=box_format)
        detector = OnnxYoloDetector(network, mpp=mpp, mean=normalisation.mean, std=normalisation.std, device=cpu)
    except (BadModel, BadOption) as error:
        raise type(error)(f"{path}: {error}") from error
    if box_format == "auto":
        box_format = "xyxy" if detector.layout == "end2end" else "cxcywh"
    try:
        bundle = Bundle(
            name=name,
            architecture=ARCHITECTURE,
            settings={"size_bytes": len(onnx), **use, "layout": detector.layout, "box_format": box_format},
            mpp=mpp,
            threshold=threshold,
            thresholds=dict(thresholds or {}),
            normalisation=normalisation,
            training=training or Training(data=(), licence="not stated", notes=()),
            metrics=(),
        )
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors(include_url=False))
        raise BadOption(f"{faults}; correct these values") from error
    return bundle, {"onnx": network.onnx}
