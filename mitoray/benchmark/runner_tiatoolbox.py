"""TIAToolbox's patch predictor over a slide, with a network from a TorchScript file, in an environment of its own."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tiatoolbox  # type: ignore[import-not-found]
import torch
import zarr
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig  # type: ignore[import-not-found]
from tiatoolbox.models.engine.patch_predictor import PatchPredictor  # type: ignore[import-not-found]
from tiatoolbox.models.models_abc import ModelABC  # type: ignore[import-not-found]


class Traced(ModelABC):  # type: ignore[misc]
    """The network as TIAToolbox takes one. It normalises batches as TIAToolbox's own models do, on the device."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.network = torch.jit.load(settings["network"])  # type: ignore[no-untyped-call]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings[name]).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 2) probabilities of images (n, h, w, 3), 0 to 255."""
        x = images.permute(0, 3, 1, 2).to(torch.float32).sub_(self.mean).div_(self.std)
        return torch.softmax(self.network(x), dim=1)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """(n, 2) probabilities of a batch as the engine's loader gives it."""
        with torch.inference_mode():
            return model(batch_data.to(device)).cpu().numpy()  # type: ignore[no-any-return]

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        """The class of each window."""
        return image.argmax(axis=-1)  # type: ignore[no-any-return]


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, int]], dict[str, Any]]]:
    """The version, and the work: `batch` windows a forward pass, `workers` processes that read."""
    torch.set_num_threads(settings["cores"])
    tiatoolbox.rcParam["torch_compile_mode"] = "disable"
    engine = PatchPredictor(model=Traced(settings), device=settings["device"], verbose=False)
    side_px, mpp = settings["window_px"], settings["mpp"]
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": mpp}],
        patch_input_shape=(side_px, side_px),
        stride_shape=(side_px, side_px),
    )
    slide, folder = Path(settings["slide"]), Path(settings["folder"]) / "tiatoolbox-results"
    size_px = np.array(settings["size_px"]) * settings["slide_mpp"] / mpp

    def work(tried: dict[str, int]) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        out = engine.run(
            images=[slide],
            patch_mode=False,
            ioconfig=config,
            save_dir=folder,
            overwrite=True,
            output_type="zarr",
            batch_size=tried["batch"],
            num_workers=tried["workers"],
            return_probabilities=True,
        )
        found = zarr.open_group(str(out[slide]), mode="r")
        boxes = np.asarray(found["coordinates"])
        inside = np.minimum(boxes[:, 2:], size_px) - boxes[:, :2]
        return {
            "windows": len(boxes),
            "mm2": float(inside.prod(axis=1).sum()) * mpp**2 / 1e6,
            "scores": float(np.asarray(found["probabilities"])[:, 1].mean()),
        }

    return {"version": version("tiatoolbox"), "torch": torch.__version__}, work
