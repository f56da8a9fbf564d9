"""Make a bundle of a detector that others trained and exported to ONNX, of the YOLO family.

    python jobs/import_model.py --onnx yolo.onnx --name yolo --mpp 0.25 --threshold 0.5 --output models/yolo
    python jobs/score_cohort.py --model models/yolo --slides "slides/*.svs" --output out

Exit status: 0 imported, 2 bad arguments or model.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadOption, MitorayError
from mitoray.models import Normalisation, Training, save_bundle
from mitoray.models.onnx_bundle import bundle_from_onnx


@dataclass(frozen=True)
class Import:
    """What to import, and how its network is used.

    Args:
        onnx: the ONNX file, weights inside.
        name: of the model: letters, digits, and . - _
        mpp: µm per pixel of the images that the network was trained on.
        threshold: score from which a detection counts, 0 to 1.
        output: folder for weights.safetensors and bundle.json.
        thresholds: the same by domain, JSON or YAML, such as '{"breast": 0.4}'.
        window_px: side of the windows that the network sees, px; None takes what the file fixes, or 640.
        overlap_px: of neighbouring windows, px.
        layout: of the output: auto, yolov5 (objectness, then classes; v3 to v7, YOLOR), yolov8 (transposed; also v9,
            v11, v12), end2end (suppressed in the network).
        box_format: auto, cxcywh or xyxy, in px of the window.
        figure_class: index of the mitotic figure among the network's classes.
        mean: of R, G, B, taken off before the network, 0 to 255.
        std: of R, G, B, divided by before the network; 255 gives it 0 to 1.
        licence: under which the weights may be used.
        data: datasets that the network was trained on.
        notes: for whoever reads the bundle.
    """

    onnx: Path
    name: str
    mpp: float
    threshold: float
    output: Path
    thresholds: dict[str, float] = field(default_factory=dict)
    window_px: int | None = None
    overlap_px: int = 128
    layout: str = "auto"
    box_format: str = "auto"
    figure_class: int = 0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    licence: str = "not stated"
    data: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if any(not 0 <= value <= 255 for value in self.mean):
            raise BadOption(f"mean {self.mean} lies outside 0 to 255")
        if any(value <= 0 for value in self.std):
            raise BadOption(f"std {self.std} must be above 0")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(MitorayError,))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("import_model", __doc__.partition("\n")[0])
    parser.add_class_arguments(Import)
    (given,) = parser.parsed(argv, Import)
    bundle, weights = bundle_from_onnx(
        given.onnx,
        name=given.name,
        mpp=given.mpp,
        threshold=given.threshold,
        thresholds=given.thresholds,
        normalisation=Normalisation(mean=given.mean, std=given.std),
        training=Training(data=tuple(given.data), licence=given.licence, notes=tuple(given.notes)),
        window_px=given.window_px,
        overlap_px=given.overlap_px,
        layout=given.layout,
        box_format=given.box_format,
        figure_class=given.figure_class,
    )
    digest = save_bundle(bundle, weights, given.output)
    print(f"{given.output}: {bundle.name}, {', '.join(f'{key} {value}' for key, value in bundle.settings.items())}")
    print(f"sha256 {digest}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
