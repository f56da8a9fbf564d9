"""Register a rescan to its original: coarsely on thumbnails, then by ever smaller squares."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from scipy import ndimage

from mitoray.curation.registration import Affine, Extent, Node, Points, Registration, after
from mitoray.curation.registration_coarse import Density, coarse_affine, density
from mitoray.curation.registration_refine import SEARCH_PX, block_moves, local_map
from mitoray.errors import BadOption, BlankSlide, MirroredRescan, RegistrationRefused
from mitoray.slide import Rect, find_tissue, open_slide, options_for
from mitoray.slide.reader import Slide

NODE_PX: Final = 512
_HOPELESS: Final = 0.1
"""Quality under which a square is not looked at more closely: what is there was not scanned."""
_LABEL_MARGIN_UM: Final = 20.0


@dataclass(frozen=True)
class Registering:
    """How rescans are registered.

    Args:
        thumbnail_px: longer side of the thumbnails whose features are matched.
        min_inliers: matched features that must agree on one map, or the rescan is refused.
        leaf_um: side of the finest squares that are aligned by themselves, at most, µm.
        min_quality: mean correlation of the aligned squares, 0 to 1, below which the rescan is refused.
        everywhere: align all of the tissue finely, and not only the squares that labels lie in.
    """

    thumbnail_px: int = 1024
    min_inliers: int = 12
    leaf_um: float = 400.0
    min_quality: float = 0.3
    everywhere: bool = False

    def __post_init__(self) -> None:
        if not 256 <= self.thumbnail_px <= 4096:
            raise BadOption(f"thumbnail_px is {self.thumbnail_px}; give 256 to 4096 px.")
        if self.min_inliers < 6:
            raise BadOption(f"min_inliers is {self.min_inliers}; fewer than 6 features agree by chance.")
        if not 100 <= self.leaf_um <= 5000:
            raise BadOption(f"leaf_um is {self.leaf_um}; give 100 to 5000 µm.")
        if not 0 <= self.min_quality < 1:
            raise BadOption(f"min_quality is {self.min_quality}; give 0 to 1.")


def register_slides(
    original: Slide, rescan: Slide, how: Registering | None = None, near_px: Points | None = None
) -> Registration:
    """The map from a slide to its rescan. After Marzahl et al. 2021 (Robust quad-tree based registration).

    near_px: (n, 2) level-0 px of the original; only squares around these are aligned to the finest.
    Raises BlankSlide, MirroredRescan and RegistrationRefused, with the measure that was too low; SlideError.
    """
    how = how or Registering()
    extents = _extent(original), _extent(rescan)
    affine, inliers = _coarse(original, rescan, how)
    wanted = None if near_px is None or how.everywhere else extents[0].to_um(near_px)
    nodes = tuple(_refined(original, rescan, extents, affine, how, wanted))
    found = Registration(affine, inliers, nodes, *extents)
    if found.quality < how.min_quality:
        raise RegistrationRefused(
            f"quality {found.quality:.2f} is under {how.min_quality:.2f} ({inliers} features agree): the tissue is "
            "another one, or hardly any of it is on both. Check that the rescan is of the same glass slide."
        )
    return found


def register_files(
    original: str,
    rescan: str,
    how: Registering | None = None,
    near_px: Points | None = None,
    *,
    mpp: tuple[float | None, float | None] = (None, None),
    storage_options: Mapping[str, Any] | None = None,
) -> Registration:
    """As `register_slides`, of two URIs. mpp: µm per level-0 px of each, overrides the metadata."""
    opened = partial(open_slide, tile_cache_bytes=128 << 20)
    with (
        opened(original, options_for(original, storage_options), mpp[0]) as one,
        opened(rescan, options_for(rescan, storage_options), mpp[1]) as other,
    ):
        return register_slides(one, other, how, near_px)


def _coarse(original: Slide, rescan: Slide, how: Registering) -> tuple[Affine, int]:
    longest = max(
        side for slide in (original, rescan) for side in (slide.width_px * slide.mpp, slide.height_px * slide.mpp)
    )
    mpp = max(longest / how.thumbnail_px, original.mpp, rescan.mpp)
    for slide, name in ((original, "the original"), (rescan, "the rescan")):
        if not find_tissue(slide).mask.any():
            raise BlankSlide(
                f"{name} shows no tissue: quality 0. Check that the slide was scanned where its tissue is."
            )
    one, other = (density(slide.thumbnail(mpp)) for slide in (original, rescan))
    affine, inliers = coarse_affine(one, other, mpp)
    if affine is not None and inliers >= how.min_inliers:
        return affine, inliers
    _, mirrored = coarse_affine(one, np.ascontiguousarray(other[:, ::-1]), mpp)
    if mirrored >= how.min_inliers:
        raise MirroredRescan(
            f"{mirrored} features agree once the rescan is mirrored, {inliers} as it is. Scan the glass slide the "
            "right way up, or mirror the image before it is written."
        )
    raise RegistrationRefused(
        f"{inliers} features agree on one map, {how.min_inliers} must: the tissue is another one, or hardly any of it "
        "is on both. Check that the rescan is of the same glass slide."
    )


def _refined(
    original: Slide,
    rescan: Slide,
    extents: tuple[Extent, Extent],
    affine: Affine,
    how: Registering,
    wanted_um: Points | None,
) -> Iterator[Node]:
    """The nodes of the quad-tree, level by level."""
    longest = max(extents[0].width_px, extents[0].height_px) * original.mpp
    depth = max(0, math.ceil(math.log2(longest / how.leaf_um)))
    side = longest / 2**depth if depth == 0 else how.leaf_um * 2**depth
    level: list[tuple[float, float, Affine]] = [(0.0, 0.0, affine)]
    for deeper in range(depth + 1):
        below: list[tuple[float, float, Affine]] = []
        for left, top, coarser in level:
            node = _aligned(original, rescan, extents[1], (left, top, side), coarser)
            yield node
            if node.quality is None or node.quality < _HOPELESS or deeper == depth:
                continue
            half = side / 2
            corners = [(left + x * half, top + y * half) for y in (0, 1) for x in (0, 1)]
            below += [(x, y, node.affine) for x, y in corners if _worth(x, y, half, extents[0], wanted_um)]
        level, side = below, side / 2


def _worth(left: float, top: float, side: float, extent: Extent, wanted_um: Points | None) -> bool:
    """Whether a square has part in the slide and, where places are wanted, in what lies around them."""
    if left >= extent.width_px * extent.mpp or top >= extent.height_px * extent.mpp:
        return False
    if wanted_um is None:
        return True
    # Maps are blended from centre to centre, so that the squares beside a place have part in it.
    margin = side / 2 + _LABEL_MARGIN_UM
    corner = np.array([left, top])
    return bool(((wanted_um > corner - margin) & (wanted_um < corner + side + margin)).all(axis=1).any())


def _aligned(
    original: Slide, rescan: Slide, extent: Extent, square: tuple[float, float, float], coarser: Affine
) -> Node:
    """A square, µm of the original, by what its blocks say against the coarser map."""
    left, top, side = square
    rect = _rect(left, top, left + side, top + side, original.mpp)
    seen = density(original.read_region(rect, max(side / NODE_PX, original.mpp, extent.mpp)))
    mpp = rect.width_px * original.mpp / seen.shape[1]
    x, y = rect.x_px * original.mpp, rect.y_px * original.mpp
    change, quality = local_map(*block_moves(seen, _seen_through(rescan, coarser, (x, y), seen.shape, mpp)))
    a, b, c, d, e, f = change
    in_um = a, b, c * mpp + x - a * x - b * y, d, e, f * mpp + y - d * x - e * y
    return Node(left, top, side, after(coarser, in_um), quality)


def _seen_through(
    rescan: Slide, affine: Affine, corner_um: tuple[float, float], shape: tuple[int, int], mpp: float
) -> Density:
    """The rescan as the original would show it: `shape` at `mpp`, and `SEARCH_PX` around, from `corner_um` on."""
    matrix = np.reshape(affine, (2, 3))
    rows, columns = (length + 2 * SEARCH_PX for length in shape)
    corner = np.array(corner_um) - SEARCH_PX * mpp
    ends = corner + np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)]) * mpp
    there = ends @ matrix[:, :2].T + matrix[:, 2]
    (left, top), (right, bottom) = there.min(axis=0) - 2 * mpp, there.max(axis=0) + 2 * mpp
    rect = _rect(left, top, right, bottom, rescan.mpp)
    image = density(rescan.read_region(rect, mpp))
    # From px of what is given, by µm of the original and of the rescan, to px of what was read.
    step = np.array([rect.width_px / image.shape[1], rect.height_px / image.shape[0]]) * rescan.mpp
    linear = matrix[:, :2] * mpp / step[:, None]
    start = matrix[:, :2] @ (corner + 0.5 * mpp) + matrix[:, 2] - np.array([rect.x_px, rect.y_px]) * rescan.mpp
    offset = start / step - 0.5
    seen: Density = ndimage.affine_transform(
        image, linear[::-1, ::-1], offset[::-1], output_shape=(rows, columns), order=1, mode="nearest"
    )
    return seen


def _rect(left: float, top: float, right: float, bottom: float, mpp: float) -> Rect:
    x, y = math.floor(left / mpp), math.floor(top / mpp)
    return Rect(x, y, max(1, math.ceil(right / mpp) - x), max(1, math.ceil(bottom / mpp) - y))


def _extent(slide: Slide) -> Extent:
    return Extent(slide.width_px, slide.height_px, slide.mpp)
