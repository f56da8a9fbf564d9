"""Crops around labelled cells, in tables: taken ready-made, and brought to one resolution and size."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import BadLabels, RefusedUri
from mitoray.labels.schema import SUBTYPES
from mitoray.slide.window import FILTER
from mitoray.training.patches import centred
from mitoray.uris import read_file, redact

CROP_KINDS: Final = ("mitotic_figure", "imposter", "uncertain", "mined", "random")
"""Labels; false positives of a detector; tissue anywhere, far from every label."""
NEGATIVE_KINDS: Final = ("imposter", "mined", "random")

CROPS: Final = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("domain", pa.string()),
        pa.field("x_px", pa.float64()),
        pa.field("y_px", pa.float64()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("subtype", pa.string()),
        pa.field("phase", pa.string()),
        pa.field("mpp", pa.float64(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""One row per crop, its cell in the middle. `x_px, y_px`: level-0 px of the slide, where known; `kind`: one of
`CROP_KINDS`; `phase`: of the mitosis, where known; `image`: a file without loss, RGB, at `mpp` µm/px.
"""

_OTHER_NAMES: Final = {"slide_id": "slide", "domain": "scanner", "x_px": "x", "y_px": "y"}
_SAME: Final = 0.03
"""Crops whose µm/px differ by no more than that share stay as they are, as slides do."""
_NATIVE_MPP: Final = 0.25


def as_crops(table: pa.Table, where: str) -> pa.Table:
    """A ready-made table as `CROPS`. `where` names it in errors.

    Needed are crop_id and image. kind is mitotic_figure where not said, mpp 0.25 µm/px, slide_id the crop_id, case_id
    the slide_id; slide, scanner, x and y are understood too. Raises BadLabels for what is missing or unknown.
    """
    names = set(table.column_names)
    if lacking := {"crop_id", "image"} - names:
        raise BadLabels(f"{where} lacks the column {sorted(lacking)[0]!r}. Crop tables need crop_id and image.")
    ids = table["crop_id"].cast(pa.string())
    if pc.count_distinct(ids, mode="all").as_py() < len(ids) or ids.null_count:
        raise BadLabels(f"{where} has crops without a crop_id, or two of the same one. Give each its own.")
    slides = _column(table, "slide_id", ids)
    instead = {
        "crop_id": ids,
        "slide_id": slides,
        "case_id": slides,
        "kind": pa.scalar("mitotic_figure"),
        "mpp": pa.scalar(_NATIVE_MPP),
    }
    columns = [_column(table, field.name, instead.get(field.name), field.type) for field in CROPS]
    crops = pa.table(columns, schema=CROPS)
    for name, known in (("kind", CROP_KINDS), ("subtype", SUBTYPES)):
        if strange := sorted(set(pc.unique(crops[name]).to_pylist()) - {*known, None}):
            raise BadLabels(f"{where} has the {name} {strange[0]!r}. Use {', '.join(known)}.")
    if len(crops) and not 0.05 <= pc.min(crops["mpp"]).as_py() <= pc.max(crops["mpp"]).as_py() <= 4:
        raise BadLabels(f"{where} has crops outside 0.05 to 4 µm/px. Correct the column mpp.")
    return crops


def _column(table: pa.Table, name: str, instead: Any, kind: pa.DataType | None = None) -> Any:
    """The column by either name, cast; what is null in it, or all of it where there is none, from `instead`."""
    kind = kind or pa.string()
    found = next((n for n in (name, _OTHER_NAMES.get(name)) if n in table.column_names), None)
    column = table[found].cast(kind) if found else pa.nulls(len(table), kind)
    return column if instead is None else pc.fill_null(column, instead)


def read_crop_table(
    uri: str, storage_options: Mapping[str, Any] | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The Parquet table at a path or URI, schema `CROPS`, or those columns of it. Raises BadLabels."""
    try:
        table = pq.read_table(io.BytesIO(read_file(uri, storage_options)))
    except RefusedUri:
        raise
    except Exception as error:  # storage backends raise what they like; their messages may hold credentials
        raise BadLabels(
            f"{redact(uri)} cannot be read as a Parquet table of crops ({type(error).__name__}). Check its address."
        ) from None
    crops = as_crops(table, redact(uri))
    return crops.select(list(columns)) if columns else crops


def crop_images(crops: pa.Table, mpp: float, side_px: int | None, least_px: int) -> torch.Tensor:
    """The crops' images uint8 (n, 3, s, s), brought to `mpp` µm/px as slides are, cut to the same middle.

    s is `side_px`, or less where a crop is smaller, but at least `least_px`. Raises BadLabels for a crop smaller than
    that, or no image.
    """
    rows = zip(crops["crop_id"].to_pylist(), crops["image"].to_pylist(), crops["mpp"].to_pylist(), strict=True)
    images = [_image(crop_id, data, of_crop, mpp, least_px) for crop_id, data, of_crop in rows]
    side = min([side_px or 1 << 30, *(min(image.shape[1:]) for image in images)])
    if not images:
        return torch.empty(0, 3, side_px or least_px, side_px or least_px, dtype=torch.uint8)
    return torch.cat([centred(image[None], side) for image in images])


def _image(crop_id: str, data: bytes, of_crop: float, mpp: float, least_px: int) -> torch.Tensor:
    """One crop, (3, s, s)."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError) as error:
        raise BadLabels(f"Crop {crop_id!r} holds no image that can be read ({error}). Write it again.") from None
    if abs(of_crop / mpp - 1) > _SAME:
        picture = picture.resize((round(picture.width * of_crop / mpp), round(picture.height * of_crop / mpp)), FILTER)
    side = min(picture.size)
    if side < least_px:
        raise BadLabels(
            f"Crop {crop_id!r} is {side} px wide at {mpp:g} µm/px, the model's patches are {least_px} px. Give larger "
            "crops, or lower patch_px."
        )
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return pixels[:, top : top + side, left : left + side]


def crop_targets(crops: pa.Table, ambiguous: str = "masked") -> NDArray[np.float32]:
    """float32 (n, 2), the targets of `Patches`: 1 for a mitotic figure, 0 for none; 1 for atypical, 0 for normal.

    NaN is unknown. ambiguous: what an uncertain label is: "positive", "negative", or "masked", which leaves it unknown.
    """
    of_kind: dict[str | None, float] = {"mitotic_figure": 1.0, **dict.fromkeys(NEGATIVE_KINDS, 0.0)}
    of_kind["uncertain"] = {"masked": np.nan, "negative": 0.0, "positive": 1.0}[ambiguous]
    of_subtype = {"atypical": 1.0, "normal": 0.0, None: np.nan}
    figure = [of_kind[kind] for kind in crops["kind"].to_pylist()]
    subtype = [
        of_subtype[name] if kind == "mitotic_figure" else np.nan
        for name, kind in zip(crops["subtype"].to_pylist(), crops["kind"].to_pylist(), strict=True)
    ]
    return np.column_stack([figure, subtype]).astype(np.float32).reshape(-1, 2)


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB image (h, w, 3) as a file without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()
