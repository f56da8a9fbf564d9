"""WSInfer's patching and inference over a slide, with a network from a TorchScript file, in an environment of its own.

Its command line asks a hub for its models as soon as it is imported; the functions that it calls do not.
"""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from wsinfer.modellib.models import LocalModelTorchScript  # type: ignore[import-not-found]
from wsinfer.modellib.run_inference import run_inference  # type: ignore[import-not-found]
from wsinfer.patchlib import segment_and_patch_directory_of_slides  # type: ignore[import-not-found]
from wsinfer_zoo.client import ModelConfiguration  # type: ignore[import-not-found]


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, int]], dict[str, Any]]]:
    """The version, and the work: `batch` windows a forward pass, `workers` processes that read."""
    torch.set_num_threads(settings["cores"])
    folder = Path(settings["folder"])
    slides, results = folder / "wsinfer-slides", folder / "wsinfer-results"
    # It takes folders that hold nothing but slides.
    shutil.rmtree(slides, ignore_errors=True)
    slides.mkdir()
    slide = slides / Path(settings["slide"]).name
    slide.symlink_to(settings["slide"])
    model = LocalModelTorchScript(config=_configuration(settings), model_path=settings["network"])
    side_px, mpp = settings["window_px"], settings["mpp"]

    def work(tried: dict[str, int]) -> dict[str, Any]:
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        segment_and_patch_directory_of_slides(slides, results, side_px, mpp)
        failed = run_inference(slides, results, model, batch_size=tried["batch"], num_workers=tried["workers"])
        if any(failed):
            raise RuntimeError(f"WSInfer says of {failed} that it could not be patched or inferred; its log tells why")
        boxes = pd.read_csv(results / "model-outputs-csv" / slide.with_suffix(".csv").name)
        start = boxes[["minx", "miny"]].to_numpy()
        inside = np.minimum(start + boxes[["width", "height"]].to_numpy(), settings["size_px"]) - start
        return {
            "windows": len(boxes),
            "mm2": float(inside.prod(axis=1).sum()) * settings["slide_mpp"] ** 2 / 1e6,
            "scores": float(boxes["prob_figure"].mean()),
        }

    return {"version": version("wsinfer"), "torch": torch.__version__}, work


def _configuration(settings: dict[str, Any]) -> Any:
    """What its model zoo says of a model: windows, their µm/px, and how they are normalised."""
    mean, std = ([value / 255 for value in settings[name]] for name in ("mean", "std"))
    return ModelConfiguration.from_dict(
        {
            "spec_version": "1.0",
            "architecture": "mitoray-s",
            "num_classes": 2,
            "class_names": ["other", "figure"],
            "patch_size_pixels": settings["window_px"],
            "spacing_um_px": settings["mpp"],
            "transform": [
                {"name": "Resize", "arguments": {"size": settings["window_px"]}},
                {"name": "ToTensor"},
                {"name": "Normalize", "arguments": {"mean": mean, "std": std}},
            ],
        }
    )
