"""Material of the layout that the shipped models are trained on, drawn instead of scanned."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mitoray.phantom import draw_cohort, draw_patches
from mitoray.training.material import COARSE_SLIDE, CROP_FILES, EVALUATION_FILE


def webp(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True)
    return file.getvalue()


def lay_out(folder: Path) -> Path:
    """Write crops/, negative_tissue/ and slides/ into the folder, and give it back."""
    (folder / "crops").mkdir(parents=True, exist_ok=True)
    (folder / "negative_tissue").mkdir()
    images, _ = draw_patches("phantom-breast-a", n=30, size_px=128, seed=3)
    half = len(images) // 2
    for name in (*CROP_FILES, EVALUATION_FILE):
        table = {
            "crop_id": [f"{name}/{i}" for i in range(len(images))],
            "image": [webp(image) for image in images],
            "subtype": ["normal", "atypical"] * half,
            "scanner": ["scanner A"] * half + ["scanner B"] * half,
            "slide": [f"slide {i // 3}" for i in range(len(images))],
        }
        pq.write_table(pa.table(table), folder / name)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.concatenate(list(np.concatenate(images[:24]).reshape(4, -1, 128, 3)), axis=1)).save(
            folder / "negative_tissue" / name
        )
    manifest, _ = draw_cohort(folder / "slides", n_slides=1, seed=4, width_px=300, height_px=300)
    Path(manifest["uri"][0].as_py()).rename(folder / COARSE_SLIDE)
    return folder
