"""Reads what the shipped detector is trained on: crops around figures, and tissue without any."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from mitoray.training.patches import Patches


def read_crops(path: Path) -> tuple[list[str], Patches]:
    """Ids and patches of a table `crop_id, image` of equally large crops, each with a mitotic figure at its centre."""
    table = pq.read_table(path, columns=["crop_id", "image"])
    images = torch.stack([_pixels(io.BytesIO(data)) for data in table["image"].to_pylist()])
    centre = images.shape[-1] / 2
    return table["crop_id"].to_pylist(), Patches(images, torch.full((len(images), 1, 2), centre))


def read_tissue(path: Path) -> torch.Tensor:
    """An image file as uint8 (3, h, w), RGB."""
    return _pixels(path)


def held_out(ids: list[str], share: float = 0.1) -> np.ndarray:
    """bool (n,): the ids kept for validation, about `share` of them, the same in every run and order."""
    buckets = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32 for name in ids]
    return np.array(buckets) < share


def _pixels(file: Path | io.BytesIO) -> torch.Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
