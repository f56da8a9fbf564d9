"""Draw phantoms: lay tissue, populate it with cells, divide some of them, and look through the scanner."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from mitoray.errors import BadOption
from mitoray.labels.schema import LABELS
from mitoray.phantom import imposters, mitoses, nuclei
from mitoray.phantom.domains import PhantomDomain, Stain, domain_named
from mitoray.phantom.noise import Field, enlarge, periodic_noise
from mitoray.phantom.sprites import Sprite
from mitoray.phantom.tissue import Tissue, lay_tissue

DATASET: Final = "phantom"
MIN_SIDE_UM: Final = 60.0
MARGIN_UM: Final = 12.0
"""Labelled cells keep this distance from the edges of the image."""
SEPARATION_UM: Final = 16.0
"""Labelled cells keep this distance from each other, more than any matching radius in use."""
DENSE_FIGURES_PER_MM2: Final = 220.0
"""Density of figures and of imposters, each, in training patches: fifty slides' worth of examples in one."""
OPTICAL_DENSITY: Final = 1.65
"""Natural-logarithmic density of one unit of stain."""

_STRIP_PX: Final = 256


@dataclass(frozen=True)
class Phantom:
    """A drawn slide. image: (height, width, 3) uint8 RGB; labels: `mitoray.labels.schema.LABELS`; mpp: µm per px."""

    image: NDArray[np.uint8]
    labels: pa.Table
    domain: PhantomDomain
    mpp: float
    seed: int
    slide_id: str


@dataclass(frozen=True)
class _Labelled:
    """A figure or an imposter and where it lies."""

    sprite: Sprite
    x_um: float
    y_um: float
    kind: str
    subtype: str | None


def draw_phantom(
    domain: PhantomDomain | str,
    *,
    seed: int,
    width_px: int = 6000,
    height_px: int = 6000,
    slide_id: str | None = None,
) -> Phantom:
    """Draw a slide of the domain (or the domain of that name) with known mitotic figures and imposters.

    The same arguments give the same pixels. `BadOption` if a side is under 60 µm or the domain is unknown.
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
    dense = replace(
        domain,
        tumour=replace(domain.tumour, figures_per_mm2=DENSE_FIGURES_PER_MM2, imposters_per_mm2=DENSE_FIGURES_PER_MM2),
    )
    rng = _generator(domain, seed)
    side_px = max(2 * size_px, round(360 / domain.mpp))
    per_field = max(1, side_px**2 // size_px**2)
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
    labelled = _divide(rng, domain, tissue)
    planes = _planes(rng, domain, tissue, shape)
    for xy_um, sprites, poses in _crowd(rng, domain, tissue, labelled):
        picks = rng.integers(len(sprites), size=len(xy_um))
        turns = rng.integers(poses, size=len(xy_um))
        for (x, y), pick, turn in zip(xy_um / domain.mpp, picks, turns, strict=True):
            layers = sprites[pick].turned(turn % 4, turn > 3)
            _stamp(planes, layers, int(x) - layers.shape[2] // 2, int(y) - layers.shape[1] // 2)
    rows = []
    for cell in labelled:
        side = cell.sprite.layers.shape[1]
        left, top = int(cell.x_um / domain.mpp) - side // 2, int(cell.y_um / domain.mpp) - side // 2
        _stamp(planes, cell.sprite.layers, left, top)
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
    return _expose(rng, domain, planes), pa.Table.from_pylist(rows, schema=LABELS)


def _divide(rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue) -> list[_Labelled]:
    """Choose the cells that divide (clustered, as in hotspots) and those that only look so (anywhere in the nests)."""
    tumour = domain.tumour
    height, width = tissue.extent_um
    cells = tissue.cells_um
    inner = ((cells > MARGIN_UM) & (cells < (width - MARGIN_UM, height - MARGIN_UM))).all(axis=1)
    cells = cells[inner & tissue.filled(cells, 9.0) & (tissue.at(tissue.nest, cells) > 0)]
    n_figures = rng.poisson(tumour.figures_per_mm2 * tissue.area_mm2)
    n_imposters = rng.poisson(tumour.imposters_per_mm2 * tissue.area_mm2)
    heat = np.exp(tissue.at(tissue.heat, cells) * 0.9)
    order = np.argsort(rng.exponential(size=len(cells)) / heat)
    figures = _apart(cells[order], np.empty((0, 2)), n_figures)
    looks_alike = _apart(cells[rng.permutation(len(cells))], figures, n_imposters)
    labelled = []
    for x, y in figures:
        atypical = rng.random() < tumour.atypical_share
        phase = str(
            rng.choice(list(mitoses.ATYPICAL))
            if atypical
            else rng.choice(list(mitoses.NORMAL), p=mitoses.NORMAL_SHARES)
        )
        sprite = mitoses.mitotic_figure(rng, domain, phase)
        labelled.append(_Labelled(sprite, x, y, "mitotic_figure", "atypical" if atypical else "normal"))
    for x, y in looks_alike:
        sprite = imposters.imposter(rng, domain, str(rng.choice(list(imposters.IMPOSTERS), p=imposters.SHARES)))
        labelled.append(_Labelled(sprite, x, y, "imposter", None))
    return labelled


def _apart(ordered: NDArray[np.float64], taken: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The first n of the (m, 2) points that keep `SEPARATION_UM` from those `taken` and from each other."""
    chosen: list[NDArray[np.float64]] = []
    for point in ordered:
        if len(chosen) == n:
            break
        near = np.concatenate([taken, np.reshape(chosen, (-1, 2))])
        if not len(near) or np.hypot(*(near - point).T).min() > SEPARATION_UM:
            chosen.append(point)
    return np.reshape(chosen, (-1, 2))


def _crowd(
    rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue, labelled: list[_Labelled]
) -> Iterator[tuple[NDArray[np.float64], list[Sprite], int]]:
    """All other cells, layer by layer: places in µm, sprites to choose from, and in how many poses (8, or 1 as is)."""
    height, width = tissue.extent_um
    slots = [(cell.x_um, cell.y_um) for cell in labelled]

    def scatter(per_mm2: float, *, nest: bool) -> NDArray[np.float64]:
        xy = rng.uniform((0, 0), (width, height), (rng.poisson(per_mm2 * width * height / 1e6), 2))
        keep = tissue.filled(xy, 3.0) & ((tissue.at(tissue.nest, xy) > 0) == nest)
        return _away(xy[keep], slots, 8.0)

    def bank(draw: Callable[[np.random.Generator, PhantomDomain], Sprite], size: int) -> list[Sprite]:
        return [draw(rng, domain) for _ in range(size)]

    stroma = scatter(1900, nest=False)
    slant_x, slant_y = (tissue.at(slant, stroma) for slant in tissue.slant)
    angle = np.arctan2(-slant_x, 1 + slant_y)
    for step in range(12):
        towards = np.pi * step / 12
        aligned = np.abs((angle - towards + np.pi / 2) % np.pi - np.pi / 2) <= np.pi / 24
        sprites = [nuclei.fibroblast(rng, domain, towards) for _ in range(3)]
        yield stroma[aligned], sprites, 1
    yield scatter(250, nest=False), bank(nuclei.red_blood_cell, 6), 8
    lymphocytes = scatter(domain.tumour.lymphocytes_per_mm2 * 3, nest=False)
    yield lymphocytes[tissue.at(tissue.heat, lymphocytes) > 0.4], bank(nuclei.lymphocyte, 12), 8
    cells = tissue.cells_um + rng.normal(0, 0.6, tissue.cells_um.shape)
    keep = tissue.filled(cells, 3.5) & (tissue.at(tissue.nest, tissue.cells_um) > 0)
    yield _away(cells[keep], slots, 9.0), bank(nuclei.tumour_nucleus, 72), 8


def _away(xy_um: NDArray[np.float64], slots: list[tuple[float, float]], distance_um: float) -> NDArray[np.float64]:
    if not slots:
        return xy_um
    far = np.asarray(cKDTree(slots).query(xy_um)[0]) > distance_um
    return xy_um[far]


def _planes(rng: np.random.Generator, domain: PhantomDomain, tissue: Tissue, shape: tuple[int, int]) -> Field:
    """(2, height, width) float32: haematoxylin and eosin of the ground at the scanner's resolution, with fine grain."""
    planes = np.empty((2, *shape), dtype=np.float32)
    fine, coarse = 0.4 / domain.mpp, 1.2 / domain.mpp
    grain = 0.11 * periodic_noise(rng, (_STRIP_PX, 1024), (fine, fine))
    grain += 1 + 0.09 * periodic_noise(rng, (_STRIP_PX, 1024), (coarse, coarse))
    grain = np.tile(grain, (1, shape[1] // 1024 + 1))[:, : shape[1]]
    for plane, ground in zip(planes, (tissue.haematoxylin, tissue.eosin), strict=True):
        scale = ground.shape[0] / shape[0]
        for top in range(0, shape[0], _STRIP_PX):
            rows = min(_STRIP_PX, shape[0] - top)
            strip = enlarge(ground, (rows, shape[1]), (top * scale, (top + rows) * scale))
            np.multiply(strip, grain[:rows], out=plane[top : top + rows])
    return planes


def _stamp(planes: Field, layers: Field, left: int, top: int) -> None:
    """Lay a sprite over the planes, as far as it lies within them."""
    height, width = planes.shape[1:]
    rows = slice(max(top, 0), min(top + layers.shape[1], height))
    columns = slice(max(left, 0), min(left + layers.shape[2], width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = layers[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    under = planes[:, rows, columns]
    under *= part[::2]
    under += part[1::2]


def _expose(rng: np.random.Generator, domain: PhantomDomain, planes: Field) -> NDArray[np.uint8]:
    """The scanner's image (height, width, 3) uint8, by the law of Beer and Lambert, with sensor noise."""
    height, width = planes.shape[1:]
    density = _densities(domain.stain)
    noise = rng.standard_normal((_STRIP_PX, width), dtype=np.float32) * np.float32(domain.scanner.noise) + 0.5
    image = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _STRIP_PX):
        h, e = planes[:, top : top + _STRIP_PX]
        for channel, white in enumerate(domain.scanner.white):
            light = h * -density[channel, 0]
            light -= e * density[channel, 1]
            np.exp(light, out=light)
            light *= white
            light += np.roll(noise, int(rng.integers(width)), axis=1)[: len(h)]
            image[top : top + _STRIP_PX, :, channel] = np.clip(light, 0, 255, out=light)
    return image


def _densities(stain: Stain) -> NDArray[np.float32]:
    """(3, 2) float32: natural-logarithmic optical density per channel of one unit of haematoxylin and of eosin."""
    columns = (
        (stain.haematoxylin, stain.haematoxylin_strength),
        (stain.eosin, stain.eosin_strength),
    )
    return np.stack(
        [np.multiply(vector, strength * OPTICAL_DENSITY, dtype=np.float32) for vector, strength in columns], 1
    )
