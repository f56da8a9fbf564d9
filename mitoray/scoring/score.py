"""Score regions: read their pixels ahead of the network, detect, keep what the core owns, classify it."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from cachetools import LRUCache

from mitoray.errors import RegionTimedOut, SlideError
from mitoray.models import Detector
from mitoray.scoring.ahead import Reads
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import BORDER_MARGIN_UM, core_rect, outer_rect
from mitoray.scoring.stages import SecondStage, candidate_rows
from mitoray.slide import Rect, RegionBytes, Slide, open_slide, options_for
from mitoray.slide.window import Allocate, new_memory
from mitoray.uris import redact_text

log = logging.getLogger(__name__)

OPEN_SLIDES: Final = 4
"""Slides that a reader keeps open: regions come slide by slide, so more would only hold memory."""
STREAMS: Final = 2
"""Regions that a GPU works on at a time."""
SIDE_PX: Final = 32
"""Images are a multiple of this wide: at other widths, such as 2500 px, convolutions of 8-bit integers on AMX take up
to 1.7 times as long."""


class RegionReader:
    """Regions' pixels at the model's µm/px. Keeps slides open; for several threads of one process.

    Fetching and decoding are separate steps so that another process may fetch.
    """

    def __init__(
        self,
        slides: Iterable[ManifestRow],
        mpp: float,
        storage_options: Mapping[str, Any] | None = None,
        tile_cache_bytes: int = 128 << 20,
        reduced_decode: bool = True,
    ) -> None:
        self._sources = {row.slide_id: row for row in slides}
        self._mpp = mpp
        self._storage_options = storage_options
        self._opened = partial(open_slide, tile_cache_bytes=tile_cache_bytes, reduced_decode=reduced_decode)
        self._open: LRUCache[str, Slide] = LRUCache(OPEN_SLIDES)
        self._lock = threading.Lock()

    def fetch(self, region: Mapping[str, Any]) -> RegionBytes:
        """The region's compressed native tiles; raises SlideError."""
        return self._slide(region).fetch_region(self.outer(region), self._mpp)

    def outer(self, region: Mapping[str, Any]) -> Rect:
        """The rectangle that is read: the core with its halo, and a little more on the right for `SIDE_PX`."""
        rect = outer_rect(region)
        _, width = self._slide(region).output_shape(rect, self._mpp)
        more = round(-width % SIDE_PX * rect.width_px / width)
        return Rect(rect.x_px, rect.y_px, rect.width_px + more, rect.height_px)

    def decode(self, region: Mapping[str, Any], tiles: RegionBytes, allocate: Allocate = new_memory) -> np.ndarray:
        """The region's pixels, halo included, uint8 (h, w, 3); raises SlideError. allocate: of the slide's canvas."""
        return self._slide(region).decode_region(tiles, allocate)

    def packed(self, region: Mapping[str, Any]) -> bytes | None:
        """What `fetch` gives as one byte string for another process, None where it fails."""
        try:
            return self.fetch(region).to_bytes()
        except SlideError:
            return None

    def _slide(self, region: Mapping[str, Any]) -> Slide:
        # One lock for look-up and opening: a slide opened twice would also be cached and decoded twice.
        with self._lock:
            slide = self._open.get(region["slide_id"])
            if slide is None:
                source = self._sources[region["slide_id"]]
                options = options_for(source.uri, self._storage_options)
                slide = self._opened(source.uri, options, source.mpp)
                self._open[region["slide_id"]] = slide
            return slide


def pinned_memory(shape: tuple[int, int, int]) -> np.ndarray:
    """Memory that a GPU can copy from by itself; torch keeps what is given back for the next."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


class _Streams:
    """Threads that each queue work for one GPU on a stream of their own: while the points of one region are waited for
    and looked at, the GPU is busy with the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = ThreadPoolExecutor(STREAMS, thread_name_prefix="detect", initializer=self._begin)

    def submit(self, work: Callable[[], dict[str, Any]]) -> "Future[dict[str, Any]]":
        """The work's result, to come."""
        return self._pool.submit(work)

    def _begin(self) -> None:
        torch.cuda.set_stream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]


class _Read(NamedTuple):
    """A region's pixels, uint8 (h, w, 3), and the rectangle that they show."""

    outer: Rect
    image: np.ndarray


class RegionScorer:
    """Detects, and classifies, in regions, in order, while `read_threads` threads fetch or read the next ones."""

    def __init__(
        self,
        reader: RegionReader,
        detector: Detector,
        detector_threshold: float,
        read_threads: int = 1,
        second: SecondStage | None = None,
        region_timeout_s: float | None = None,
    ) -> None:
        """detector_threshold: lowest score of the detector that is kept, or handed to the second stage.

        region_timeout_s: a region whose pixels are not there by then fails; None waits for ever.
        Threads decode too, beside the network; but a single one beside a network on a CPU only fetches. Sharing a core
        they would only drive each other's data out of its cache: in turn they take a fourteenth less.
        """
        self._reader = reader
        self._detector = detector
        self._threshold = detector_threshold
        self._second = second
        self._timeout_s = region_timeout_s
        self._reads: Reads[RegionBytes | _Read] = Reads(read_threads)
        self._ahead = read_threads + 1
        on_gpu = detector.device.type == "cuda"
        self._decode_ahead = on_gpu or read_threads > 1
        self._allocate = pinned_memory if on_gpu else new_memory
        self._streams = _Streams(detector.device) if on_gpu else None
        self._lock = threading.Lock()
        self._seconds: Counter[str] = Counter()

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last taking: `fetch`, `decode`, `detect`, and `wait` for what threads do ahead.

        With a second stage also `classify`.
        """
        with self._lock:
            taken, self._seconds = self._seconds, Counter()
        return dict(taken)

    def score(
        self,
        regions: Iterable[Mapping[str, Any]],
        *,
        alone: bool = False,
        taking: Callable[[str], object] = str,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[dict[str, Any]]:
        """One SCORES row per region. A region whose pixels cannot be had gives a row with `status="failed"`.

        alone: nothing is read ahead, so that whatever befalls the process is the doing of one region. taking: is told
        of the region that is waited for from then on. stopped: once it says so, what is not in hand is left.
        """
        waiting: deque[tuple[str, Callable[[], dict[str, Any]]]] = deque()
        ahead = self._read if self._decode_ahead else self._fetched
        most = 1 if alone else self._ahead
        source = iter(regions)
        while not stopped():
            while len(waiting) < most and (region := next(source, None)) is not None:
                score: Callable[[], dict[str, Any]] = partial(self._scored, region, self._reads.submit(ahead, region))
                waiting.append((region["region_id"], self._streams.submit(score).result if self._streams else score))
            if not waiting:
                return
            region_id, scored = waiting.popleft()
            taking(region_id)
            yield scored()

    def _fetched(self, region: Mapping[str, Any]) -> RegionBytes:
        started = time.perf_counter()
        packed = region.get("tiles")
        tiles = RegionBytes.from_bytes(packed) if packed else self._reader.fetch(region)
        self._took(fetch=time.perf_counter() - started)
        return tiles

    def _decoded(self, region: Mapping[str, Any], tiles: RegionBytes) -> _Read:
        started = time.perf_counter()
        read = _Read(self._reader.outer(region), self._reader.decode(region, tiles, self._allocate))
        self._took(decode=time.perf_counter() - started)
        return read

    def _read(self, region: Mapping[str, Any]) -> _Read:
        return self._decoded(region, self._fetched(region))

    def _pixels(self, region: Mapping[str, Any], coming: "Future[RegionBytes | _Read]") -> _Read:
        started = time.perf_counter()
        try:
            ready = coming.result(self._timeout_s)
        except NotYet:
            if coming.done():
                raise
            self._reads.give_up(coming)
            raise RegionTimedOut(
                f"{region['slide_id']}: the pixels of a region were not there after {self._timeout_s:g} s. Look at the "
                "slide and its storage, or raise region_timeout_s; then run again."
            ) from None
        finally:
            self._took(wait=time.perf_counter() - started)
        return ready if isinstance(ready, _Read) else self._decoded(region, ready)

    def _took(self, **seconds: float) -> None:
        with self._lock:
            self._seconds.update(seconds)

    def _scored(self, region: Mapping[str, Any], coming: "Future[RegionBytes | _Read]") -> dict[str, Any]:
        try:
            read = self._pixels(region, coming)
        except SlideError as error:
            return failed_region(region, redact_text(f"{type(error).__name__}: {error}"))
        except Exception as error:  # a decoder's own errors cost this region, not the cohort
            log.exception("Reading region %s failed in an unforeseen way", region["region_id"])
            return failed_region(region, redact_text(f"Unforeseen {type(error).__name__} while reading: {error}"))
        return _row(region) | {"status": "scored", "error": None, "candidates": self._candidates(region, read)}

    def _candidates(self, region: Mapping[str, Any], read: _Read) -> list[dict[str, Any]]:
        started = time.perf_counter()
        outer, image = read.outer, torch.from_numpy(np.require(read.image, requirements="W"))
        if self._second is not None:
            image = image.to(self._second.device, non_blocking=True)
        (points,) = self._detector.detect(image.permute(2, 0, 1)[None], self._threshold)
        slide_xy_px = outer.to_level0(points.xy_px.astype(float), (image.shape[0], image.shape[1]))
        margin_px = round(BORDER_MARGIN_UM / region["mpp"])
        owned = core_rect(region).expanded(margin_px).contains(slide_xy_px)
        slide_xy_px, scores = slide_xy_px[owned], points.scores[owned]
        detected = time.perf_counter()
        self._took(detect=detected - started)
        if self._second is None:
            return candidate_rows(slide_xy_px, scores)
        image_mpp = region["mpp"] * outer.width_px / image.shape[1]
        candidates = self._second.judged(image, image_mpp, points.xy_px[owned].astype(float), slide_xy_px, scores)
        self._took(classify=time.perf_counter() - detected)
        return candidates


def failed_region(region: Mapping[str, Any], error: str) -> dict[str, Any]:
    """The SCORES row of a region that could not be scored."""
    return _row(region) | {"status": "failed", "error": error, "candidates": []}


def _row(region: Mapping[str, Any]) -> dict[str, Any]:
    return {name: region[name] for name in ("region_id", "slide_id", "x_px", "y_px", "width_px", "height_px")}
