"""Read patches from slides, wherever these lie, into arrays of one shape."""

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pyarrow as pa
from cachetools import LRUCache
from numpy.typing import NDArray

from mitoray.errors import BadOption, SlideError
from mitoray.slide import Rect, Slide, open_slide, options_for
from mitoray.training.sampling import MASK_REACH_UM
from mitoray.training.slides import TrainingSlide, is_remote

log = logging.getLogger(__name__)

OPEN_SLIDES: Final = 64
"""Patches hop from slide to slide, so many stay open. An open one holds no file, only where its tiles lie: 2 MB for a
whole slide of 10 gigapixels, far less for a region image."""
TILE_CACHE_BYTES: Final = 4 << 20
"""Of each open slide. Patches seldom meet again on a tile, so little is kept."""
REMOTE_THREADS: Final = 8
"""Reads under way at once where slides lie behind a network: each waits for its answers most of the time."""
LOCAL_THREADS: Final = 1
"""Local reads only decode: about 200 patches of 512 px per second and core, however many threads share it."""
MAX_FIGURES: Final = 64
MASK_RADIUS_UM: Final = 6.25 * math.sqrt(2)
"""Of the white discs over uncertain figures. Fick et al. 2024, §2.2 give no size: this is the circle around the box of
50 px at 0.25 µm/px in which figures are labelled, so that nothing of what was labelled shows."""
WHITE: Final = 255


class PatchReader:
    """Reads patches of `patch_px` × `patch_px` px at `mpp` µm/px. Threads may share it; processes make their own.

    Slides are opened when first needed. `storage_options`: for fsspec, of slides in object storage. `max_figures`: room
    for figures per patch. `threads`: reads at once; None for 8 where a slide lies behind a network, else 1.
    """

    def __init__(
        self,
        slides: Iterable[TrainingSlide],
        mpp: float,
        patch_px: int,
        storage_options: Mapping[str, Any] | None = None,
        *,
        max_figures: int = MAX_FIGURES,
        mask_radius_um: float = MASK_RADIUS_UM,
        threads: int | None = None,
    ) -> None:
        if not (mpp > 0 and patch_px >= 1 and max_figures >= 1 and (threads is None or threads >= 1)):
            raise BadOption(
                f"mpp {mpp}, patch_px {patch_px}, max_figures {max_figures} and threads {threads} must be positive"
            )
        if not 0 <= mask_radius_um <= MASK_REACH_UM:
            raise BadOption(f"mask_radius_um is {mask_radius_um}; give 0 to {MASK_REACH_UM:g} µm")
        self._slides = {slide.slide_id: slide for slide in slides}
        self._mpp, self._patch_px, self._max_figures = mpp, patch_px, max_figures
        self._mask_radius_px = mask_radius_um / mpp
        self._storage_options = storage_options
        remote = any(is_remote(slide.uri) for slide in self._slides.values())
        self._threads = threads or (REMOTE_THREADS if remote else LOCAL_THREADS)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="patch")
        self._open: LRUCache[str, Future[Slide]] = LRUCache(OPEN_SLIDES)
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def read(self, batch: pa.Table) -> dict[str, np.ndarray]:
        """Images and figures of a batch of `PATCHES`, exactly one row for each of its rows, in their order.

        image: uint8 (n, s, s, 3), RGB, with a white disc over each label to mask. figures_px: float32 (n, max_figures,
        2), (x, y) in px of the image, NaN where fewer; without those under a disc. failed: bool (n,), True where the
        slide cannot be read: the image is white and without figures then, so that trainers in step with each other
        stay so. Raises BadOption for patches that are not of this reader's slides or size.
        """
        rows = batch.to_pylist()
        for row in rows:
            self._refuse_other_patches(row)
        s = self._patch_px
        image = np.full((len(rows), s, s, 3), WHITE, np.uint8)
        figures = np.full((len(rows), self._max_figures, 2), np.nan, np.float32)
        failed = np.zeros(len(rows), np.bool_)
        read = map(self._try_row, rows) if self._threads == 1 else self._pool.map(self._try_row, rows)
        for i, (row, result) in enumerate(zip(rows, read, strict=True)):
            if result is None:
                failed[i] = True
                continue
            image[i], points = result
            if len(points) > self._max_figures:
                self._tell(row["slide_id"], f"a patch holds {len(points)} figures; raise max_figures to see them all")
            figures[i, : len(points)] = points[: self._max_figures]
        return {"image": image, "figures_px": figures, "failed": failed}

    def _try_row(self, row: Mapping[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        try:
            return self._read_row(row)
        except SlideError as error:
            self._tell(row["slide_id"], f"patches that cannot be read are left white: {type(error).__name__}: {error}")
            return None

    def _read_row(self, row: Mapping[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The image and the figures in it, (k, 2) px."""
        slide = self._slide(row["slide_id"])
        placed = Rect(row["x_px"], row["y_px"], row["side_px"], row["side_px"])
        # The side was rounded to whole px of level 0; read at the µm/px that makes whole patches of it.
        mpp = placed.width_px * slide.mpp / self._patch_px
        rect = whole_patch(slide, placed, mpp, self._patch_px)
        image = slide.read_region(rect, mpp)
        masks, figures = (self._moved(row[name], slide.mpp, placed, rect) for name in ("masks_px", "figures_px"))
        if not len(masks):
            return image, figures
        image = self._masked(image, masks)
        apart = np.hypot(*(figures[:, None] - masks).transpose(2, 0, 1))
        return image, figures[(apart > self._mask_radius_px).all(axis=1)]

    def _moved(self, points: Any, slide_mpp: float, placed: Rect, rect: Rect) -> NDArray[np.float64]:
        """Points as `with_figures` gives them for the rectangle placed, as px of the image of the one read, (k, 2)."""
        xy_px = np.asarray(points or [], np.float64).reshape(-1, 2)
        level0 = (placed.x_px, placed.y_px) + (xy_px + 0.5) * self._mpp / slide_mpp - 0.5
        moved: NDArray[np.float64] = (level0 - (rect.x_px, rect.y_px) + 0.5) * self._patch_px / rect.width_px - 0.5
        return moved

    def _masked(self, image: NDArray[np.uint8], masks: NDArray[np.float64]) -> NDArray[np.uint8]:
        axis = np.arange(self._patch_px)
        dx2, dy2 = ((axis - masks[:, i, None]) ** 2 for i in (0, 1))
        inside: NDArray[np.bool_] = np.any(dy2[:, :, None] + dx2[:, None, :] <= self._mask_radius_px**2, axis=0)
        return np.where(inside[..., None], np.uint8(WHITE), image)

    def _slide(self, slide_id: str) -> Slide:
        """The open slide. Threads that want it meanwhile wait for the one that opens it; a failure is not kept."""
        with self._lock:
            future = self._open.get(slide_id)
            if mine := future is None:
                future = self._open[slide_id] = Future()
        if mine:
            source = self._slides[slide_id]
            options = options_for(source.uri, self._storage_options)
            try:
                future.set_result(open_slide(source.uri, options, source.mpp, tile_cache_bytes=TILE_CACHE_BYTES))
            except BaseException as error:
                with self._lock:
                    if self._open.get(slide_id) is future:
                        del self._open[slide_id]
                future.set_exception(error)
        return future.result()

    def _refuse_other_patches(self, row: Mapping[str, Any]) -> None:
        source = self._slides.get(row["slide_id"])
        if source is None:
            raise BadOption(
                f"a patch lies on slide {row['slide_id']!r}, which the reader was not given; give it all slides sampled"
            )
        side_um, wanted_um = row["side_px"] * source.mpp, self._patch_px * self._mpp
        if abs(side_um - wanted_um) > source.mpp:
            raise BadOption(
                f"a patch of slide {row['slide_id']!r} was placed {side_um:g} µm wide, but {self._patch_px} px at "
                f"{self._mpp:g} µm/px are {wanted_um:g} µm; sample with patch_um={wanted_um:g}"
            )

    def _tell(self, slide_id: str, message: str) -> None:
        """Warn, once per slide."""
        with self._lock:
            new = slide_id not in self._told
            self._told.add(slide_id)
        if new:
            log.warning("Slide %s: %s", slide_id, message)


def whole_patch(slide: Slide, placed: Rect, mpp: float, patch_px: int) -> Rect:
    """The rectangle to read at `mpp`, so that the image has the patch's shape.

    It is the one placed, unless the slide gives its pixels as they are, which may be up to 3 % more or fewer than the
    patch has: then it is as many of them, around the same middle, just as scoring would see them.
    """
    if slide.output_shape(placed, mpp) == (patch_px, patch_px):
        return placed
    level = min(slide.levels, key=lambda level: abs(level.downsample * slide.mpp - mpp))
    side_px = round(patch_px * level.downsample)
    shift_px = (placed.width_px - side_px) // 2
    return Rect(placed.x_px + shift_px, placed.y_px + shift_px, side_px, side_px)
