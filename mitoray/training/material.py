"""What the shipped detector is trained on: crops around figures, tissue without any, and phantoms."""

import hashlib
import io
from collections.abc import Mapping, Sequence
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
from mitoray.slide.window import FILTER
from mitoray.training.patches import Patches, joined

CROP_FILES: Final = ("crops/atnorm-br.parquet", "crops/atnorm-md.parquet")
EVALUATION_FILE: Final = "crops/amibr-midog21.parquet"
TISSUE_FOLDER: Final = "negative_tissue"
COARSE_SLIDE: Final = "slides/CMU-1-Small-Region.svs"
NATIVE_MPP: Final = 0.25
_TEXTURE: Final = 12.0
"""Standard deviation of grey values from which a block is no glass and no black margin, alike in many images."""
VALIDATION_SHARE: Final = 0.25
"""Of the tissue, its right part; of the crops a tenth, by their names."""


@dataclass(frozen=True, eq=False)
class RealMaterial:
    """Real images at 0.25 µm/px to train and to validate on: crops around figures, and tissue without any.

    Crops of neighbouring figures overlap: those that show anything of a held-out crop are in neither part.
    """

    crops: Patches
    held_out_crops: Patches
    tissue: torch.Tensor
    held_out_tissue: torch.Tensor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Real images that no training and no choice of a threshold sees.

    crops: by scanner, of AMi-Br, at 0.25 µm/px. tissue: a whole region without figures, at 0.25 µm/px, of another part
    of the slide than the one trained on. coarse_slide: path of a slide scanned at 0.5 µm/px, without known figures.
    """

    crops: Mapping[str, Patches]
    tissue: torch.Tensor
    coarse_slide: Path


def read_real(data_dir: Path) -> RealMaterial:
    """The crops and tissue under `data_dir`; raises BadOption if a file is missing."""
    tissue_files = _found(data_dir)
    tables = [read_crops(data_dir / name) for name in CROP_FILES]
    ids = [name for names, _ in tables for name in names]
    crops = joined([patches for _, patches in tables])
    out = held_out(ids)
    seen = shares_pixels(crops.images, crops.images[torch.from_numpy(out)])
    tissue = read_image(tissue_files[0])
    edge = round(tissue.shape[2] * (1 - VALIDATION_SHARE))
    return RealMaterial(crops.taken(~out & ~seen), crops.taken(out), tissue[:, :, :edge], tissue[:, :, edge:])


def read_evaluation(data_dir: Path) -> Evaluation:
    """What to judge on under `data_dir`; raises BadOption if a file is missing."""
    tissue_files = _found(data_dir)
    _, crops = read_crops(data_dir / EVALUATION_FILE)
    scanners = np.array(pq.read_table(data_dir / EVALUATION_FILE, columns=["scanner"])["scanner"].to_pylist())
    by_scanner = {str(scanner): crops.taken(scanners == scanner) for scanner in np.unique(scanners)}
    return Evaluation(by_scanner, read_image(tissue_files[1]), data_dir / COARSE_SLIDE)


def at_mpp(image: torch.Tensor, mpp: float) -> torch.Tensor:
    """An image uint8 (3, h, w) at 0.25 µm/px as the slide reader would give it at another µm/px."""
    if mpp == NATIVE_MPP:
        return image
    size = (round(image.shape[2] * NATIVE_MPP / mpp), round(image.shape[1] * NATIVE_MPP / mpp))
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, FILTER)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def patches_at_mpp(patches: Patches, mpp: float) -> Patches:
    """The same for patches, whose figures stay where they are in the tissue."""
    if mpp == NATIVE_MPP:
        return patches
    images = torch.stack([at_mpp(image, mpp) for image in patches.images])
    scale = images.shape[-1] / patches.images.shape[-1]
    return Patches(images, (patches.centres_px + 0.5) * scale - 0.5)


def _found(data_dir: Path) -> list[Path]:
    """The images of tissue, after all files were seen to be there."""
    tissue_files = sorted((data_dir / TISSUE_FOLDER).glob("*.jpg"))
    missing = [name for name in (*CROP_FILES, EVALUATION_FILE, COARSE_SLIDE) if not (data_dir / name).exists()]
    if len(tissue_files) < 2:
        missing.append(f"two images {TISSUE_FOLDER}/*.jpg")
    if missing:
        raise BadOption(f"{data_dir} lacks {', '.join(missing)}; give the folder that holds them")
    return tissue_files


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


def shares_pixels(images: torch.Tensor, others: torch.Tensor) -> NDArray[np.bool_]:
    """bool (n,): the images that show, anywhere, a piece of textured tissue that one of `others` shows as well.

    uint8 (n, 3, h, w) both, stored without loss. Compared are blocks of 8 px around pixels that their own colours
    choose, which two images of one place choose alike, wherever it lies in them.
    """
    known = set().union(*map(_blocks, others)) if len(others) else set()
    return np.array([not known.isdisjoint(_blocks(image)) for image in images], bool)


def _blocks(image: torch.Tensor) -> set[bytes]:
    pixels = image.permute(1, 2, 0).numpy()
    mixed = pixels.astype(np.uint32) @ np.array([2654435761, 2246822519, 3266489917], np.uint32)
    rows, columns = np.nonzero(((mixed[:-8, :-8] ^ (mixed[1:-7, 1:-7] >> 3)) >> 8) % 128 == 0)
    blocks = (pixels[row : row + 8, column : column + 8] for row, column in zip(rows, columns, strict=True))
    return {block.tobytes() for block in blocks if block.std() > _TEXTURE}


def _tensor(file: Path | io.BytesIO) -> torch.Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
