"""What the shipped detector is trained on: crops around figures, tissue without any, and phantoms."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import BadOption
from mitoray.phantom import DOMAINS, draw_patches
from mitoray.training.patches import Patches, joined

CROP_FILES: Final = ("crops/atnorm-br.parquet", "crops/atnorm-md.parquet")
EVALUATION_FILE: Final = "crops/amibr-midog21.parquet"
TISSUE_FOLDER: Final = "negative_tissue"


@dataclass(frozen=True, eq=False)
class RealMaterial:
    """Real images at 0.25 µm/px. The held-out parts and the evaluation crops never enter training."""

    crops: Patches
    held_out_crops: Patches
    tissue: torch.Tensor
    held_out_tissue: torch.Tensor
    evaluation_crops: Patches


def read_real(data_dir: Path) -> RealMaterial:
    """The crops and tissue under `data_dir`; raises BadOption if a file is missing."""
    tissue_files = sorted((data_dir / TISSUE_FOLDER).glob("*.jpg"))
    missing = [name for name in (*CROP_FILES, EVALUATION_FILE) if not (data_dir / name).exists()]
    if len(tissue_files) < 2:
        missing.append(f"two images {TISSUE_FOLDER}/*.jpg")
    if missing:
        raise BadOption(f"{data_dir} lacks {', '.join(missing)}; give the folder that holds them")
    tables = [read_crops(data_dir / name) for name in CROP_FILES]
    ids = [name for names, _ in tables for name in names]
    crops = joined([patches for _, patches in tables])
    out = held_out(ids)
    return RealMaterial(
        crops=crops.taken(~out),
        held_out_crops=crops.taken(out),
        tissue=read_image(tissue_files[0]),
        held_out_tissue=read_image(tissue_files[1]),
        evaluation_crops=read_crops(data_dir / EVALUATION_FILE)[1],
    )


def read_crops(path: Path) -> tuple[list[str], Patches]:
    """Ids and patches of a table `crop_id, image` of equally large crops, each with a mitotic figure at its centre."""
    table = pq.read_table(path, columns=["crop_id", "image"])
    images = torch.stack([_tensor(io.BytesIO(data)) for data in table["image"].to_pylist()])
    centre = (images.shape[-1] - 1) / 2
    return table["crop_id"].to_pylist(), Patches(images, torch.full((len(images), 1, 2), centre))


def read_image(path: Path) -> torch.Tensor:
    """An image file as uint8 (3, h, w), RGB."""
    return _tensor(path)


def phantom_patches(domain: str, n: int, size_px: int, mpp: float, seed: int) -> Patches:
    """`n` patches of a phantom domain, brought to `mpp` as the slide reader does. Imposters are left unlabelled."""
    native_mpp = DOMAINS[domain].mpp
    native_px = round(size_px * mpp / native_mpp)
    images, labels = draw_patches(domain, n=n, size_px=native_px, seed=seed)
    if native_px != size_px:
        images = np.stack([np.asarray(Image.fromarray(image).resize((size_px, size_px))) for image in images])
    labels = labels.filter(np.array(labels["kind"].to_pylist()) == "mitotic_figure")
    patch = labels["patch"].to_numpy()
    xy_px = np.column_stack([labels["x_px"], labels["y_px"]])
    xy_px = (xy_px + 0.5) * (size_px / native_px) - 0.5
    return Patches(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), padded(xy_px, patch, n))


def padded(xy_px: NDArray[np.floating], owner: NDArray[np.integer], n: int) -> torch.Tensor:
    """Points (m, 2), each owned by one of `n` images, as float32 (n, k, 2) with NaN behind an image's last point."""
    counts = np.bincount(owner, minlength=n)
    order = np.argsort(owner, kind="stable")
    rank = np.arange(len(owner)) - np.repeat(counts.cumsum() - counts, counts)
    points = torch.full((n, max(1, counts.max(initial=0)), 2), torch.nan)
    points[owner[order], rank] = torch.from_numpy(xy_px[order]).float()
    return points


def held_out(ids: Sequence[str], share: float = 0.1) -> NDArray[np.bool_]:
    """bool (n,): the ids kept for validation, about `share` of them, the same in every run and order."""
    buckets = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32 for name in ids]
    return np.array(buckets) < share


def _tensor(file: Path | io.BytesIO) -> torch.Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
