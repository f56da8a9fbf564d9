"""Draw phantoms: lay tissue, populate it with cells, divide some of them, and look through the scanner."""

import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom.domains import PhantomDomain, domain_named
from mitoray.phantom.exposure import expose, stain_planes, stamp
from mitoray.phantom.population import crowd, divide
from mitoray.phantom.tissue import lay_tissue

DATASET: Final = "phantom"
MIN_SIDE_UM: Final = 60.0
MIN_PATCH_PX: Final = 16
DENSE_FIGURES_PER_MM2: Final = 220.0
"""Density of figures and of imposters, each, in training patches: about ten times those of the slides."""


@dataclass(frozen=True)
class Phantom:
    """A drawn slide. image: (height, width, 3) uint8 RGB; labels: `mitoray.labels.schema.LABELS`; mpp: µm per px."""

    image: NDArray[np.uint8]
    labels: pa.Table
    domain: PhantomDomain
    mpp: float
    seed: int
    slide_id: str


def draw_phantom(
    domain: PhantomDomain | str,
    *,
    seed: int,
    width_px: int = 6000,
    height_px: int = 6000,
    slide_id: str | None = None,
) -> Phantom:
    """Draw a slide of the domain (or the domain of that name) with known mitotic figures and imposters.

    The same arguments give the same pixels. `BadOption` if a side is under 60 µm, the seed negative, or the domain
    unknown.
    """
    domain = domain_named(domain) if isinstance(domain, str) else domain
    name = f"{domain.name}-{seed}" if slide_id is None else slide_id
    image, labels = _draw(_generator(domain, seed), domain, (height_px, width_px), name, glass=True)
    return Phantom(image, labels, domain, domain.mpp, seed, name)


def draw_patches(domain: PhantomDomain | str, *, n: int, size_px: int, seed: int) -> tuple[NDArray[np.uint8], pa.Table]:
    """Draw patches for training, from the domain's tissue with many more figures and imposters than on its slides.

    Returns images, (n, size_px, size_px, 3) uint8 after a JPEG round trip, and a label table: `LABELS` preceded by
    `patch` (int32, index into the images), with `x_px, y_px` in px of the patch. A third of the patches hold a figure
    and a third an imposter, anywhere in them; the rest lie at random.
    """
    domain = domain_named(domain) if isinstance(domain, str) else domain
    if n < 1:
        raise BadOption(f"n is {n}; ask for at least one patch")
    if size_px < MIN_PATCH_PX:
        raise BadOption(f"size_px is {size_px}; patches have at least {MIN_PATCH_PX} px")
    dense = replace(
        domain,
        tumour=replace(domain.tumour, figures_per_mm2=DENSE_FIGURES_PER_MM2, imposters_per_mm2=DENSE_FIGURES_PER_MM2),
    )
    rng = _generator(domain, seed)
    side_px = max(2 * size_px, round(360 / domain.mpp))
    per_field = side_px**2 // size_px**2
    images = np.empty((n, size_px, size_px, 3), dtype=np.uint8)
    tables = []
    for start in range(0, n, per_field):
        field, labels = _draw(rng, dense, (side_px, side_px), f"{domain.name}-{seed}", glass=False)
        xy, kinds = np.column_stack([labels["x_px"], labels["y_px"]]), labels["kind"].to_numpy(zero_copy_only=False)
        for patch in range(start, min(n, start + per_field)):
            x, y = _place(rng, xy[kinds == (None, "mitotic_figure", "imposter")[patch % 3]], side_px, size_px)
            images[patch] = _through_jpeg(field[y : y + size_px, x : x + size_px], domain.scanner.jpeg_quality)
            within = ((xy >= (x, y)) & (xy < (x + size_px, y + size_px))).all(axis=1)
            tables.append(_of_patch(labels.filter(pa.array(within)), patch, x, y))
    return images, pa.concat_tables(tables)


def _generator(domain: PhantomDomain, seed: int) -> np.random.Generator:
    if seed < 0:
        raise BadOption(f"seed is {seed}; give a whole number of at least 0")
    return np.random.default_rng([seed, zlib.crc32(domain.name.encode())])


def _place(rng: np.random.Generator, anchors: NDArray[np.float64], side_px: int, size_px: int) -> tuple[int, int]:
    """The top-left corner of a patch that holds one of the (n, 2) anchors, or of any patch if there are none."""
    corner = rng.integers(0, side_px - size_px + 1, 2)
    if len(anchors):
        reach = size_px * rng.uniform(0.12, 0.88, 2)
        corner = np.clip(anchors[rng.integers(len(anchors))] - reach, 0, side_px - size_px).astype(int)
    return int(corner[0]), int(corner[1])


def _of_patch(labels: pa.Table, patch: int, x: int, y: int) -> pa.Table:
    for column, offset in (("x_px", x), ("y_px", y)):
        at = labels.schema.get_field_index(column)
        labels = labels.set_column(at, LABELS.field(column), pa.array(labels[column].to_numpy() - offset))
    return labels.add_column(0, pa.field("patch", pa.int32()), pa.array([patch] * len(labels), pa.int32()))


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _draw(
    rng: np.random.Generator, domain: PhantomDomain, shape: tuple[int, int], slide_id: str, *, glass: bool
) -> tuple[NDArray[np.uint8], pa.Table]:
    """An image of `shape` = (height, width) px and its label table."""
    extent_um = (shape[0] * domain.mpp, shape[1] * domain.mpp)
    if min(extent_um) < MIN_SIDE_UM:
        raise BadOption(
            f"{shape[1]} × {shape[0]} px at {domain.mpp} µm/px is too small to draw tissue; "
            f"give at least {int(np.ceil(MIN_SIDE_UM / domain.mpp))} px each way"
        )
    tissue = lay_tissue(rng, domain, extent_um, glass=glass)
    labelled = divide(rng, domain, tissue)
    planes = stain_planes(rng, domain, tissue, shape)
    for xy_um, sprites, poses in crowd(rng, domain, tissue, labelled):
        picks = rng.integers(len(sprites), size=len(xy_um))
        turns = rng.integers(poses, size=len(xy_um))
        for (x, y), pick, turn in zip(xy_um / domain.mpp, picks, turns, strict=True):
            layers = sprites[pick].turned(turn % 4, turn > 3)
            stamp(planes, layers, int(x) - layers.shape[2] // 2, int(y) - layers.shape[1] // 2)
    rows = []
    for cell in labelled:
        side = cell.sprite.layers.shape[1]
        left, top = int(cell.x_um / domain.mpp) - side // 2, int(cell.y_um / domain.mpp) - side // 2
        stamp(planes, cell.sprite.layers, left, top)
        x, y = cell.sprite.centre_px
        rows.append(
            {
                "dataset": DATASET,
                "slide_id": slide_id,
                "x_px": left + x,
                "y_px": top + y,
                "kind": cell.kind,
                "subtype": cell.subtype,
                "domain": domain.name,
            }
        )
    return expose(rng, domain, planes), pa.Table.from_pylist(rows, schema=LABELS)
