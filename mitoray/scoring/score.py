"""Score regions: read their pixels ahead of the network, detect, keep what the core owns, classify it."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from cachetools import LRUCache

from mitoray.errors import SlideError
from mitoray.models import Detector
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import BORDER_MARGIN_UM, core_rect, outer_rect
from mitoray.scoring.stages import SecondStage, candidate_rows
from mitoray.slide import RegionBytes, Slide, open_slide, options_for

log = logging.getLogger(__name__)

OPEN_SLIDES: Final = 4
"""Slides that a reader keeps open: regions come slide by slide, so more would only hold memory."""


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
        return self._slide(region).fetch_region(outer_rect(region), self._mpp)

    def decode(self, region: Mapping[str, Any], tiles: RegionBytes) -> np.ndarray:
        """The region's pixels, halo included, uint8 (h, w, 3); raises SlideError."""
        return self._slide(region).decode_region(tiles)

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


class RegionScorer:
    """Detects, and classifies, in regions, in order, while `read_threads` threads read the next ones."""

    def __init__(
        self,
        reader: RegionReader,
        detector: Detector,
        detector_threshold: float,
        read_threads: int = 1,
        second: SecondStage | None = None,
    ) -> None:
        """detector_threshold: lowest score of the detector that is kept, or handed to the second stage."""
        self._reader = reader
        self._detector = detector
        self._threshold = detector_threshold
        self._second = second
        self._pool = ThreadPoolExecutor(read_threads, thread_name_prefix="read")
        self._ahead = read_threads + 1
        self._lock = threading.Lock()
        self._seconds: Counter[str] = Counter()

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last taking: `fetch` and `decode` in the reading threads, `detect`, `wait` for pixels.

        With a second stage also `classify`.
        """
        with self._lock:
            taken, self._seconds = self._seconds, Counter()
        return dict(taken)

    def score(self, regions: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """One SCORES row per region. A region whose pixels cannot be had gives a row with `status="failed"`."""
        waiting: deque[tuple[Mapping[str, Any], Future[np.ndarray]]] = deque()
        source = iter(regions)
        while True:
            while len(waiting) < self._ahead and (region := next(source, None)) is not None:
                waiting.append((region, self._pool.submit(self._read, region)))
            if not waiting:
                return
            region, pixels = waiting.popleft()
            yield self._scored(region, pixels)

    def _read(self, region: Mapping[str, Any]) -> np.ndarray:
        started = time.perf_counter()
        packed = region.get("tiles")
        tiles = RegionBytes.from_bytes(packed) if packed else self._reader.fetch(region)
        fetched = time.perf_counter()
        image = self._reader.decode(region, tiles)
        self._took(fetch=fetched - started, decode=time.perf_counter() - fetched)
        return image

    def _took(self, **seconds: float) -> None:
        with self._lock:
            self._seconds.update(seconds)

    def _scored(self, region: Mapping[str, Any], pixels: "Future[np.ndarray]") -> dict[str, Any]:
        row = {name: region[name] for name in ("region_id", "slide_id", "x_px", "y_px", "width_px", "height_px")}
        started = time.perf_counter()
        try:
            image = pixels.result()
        except SlideError as error:
            return {**row, "status": "failed", "error": f"{type(error).__name__}: {error}", "candidates": []}
        except Exception as error:  # a decoder's own errors cost this region, not the cohort
            log.exception("Reading region %s failed in an unforeseen way", region["region_id"])
            message = f"Unforeseen {type(error).__name__} while reading: {error}"
            return {**row, "status": "failed", "error": message, "candidates": []}
        finally:
            self._took(wait=time.perf_counter() - started)
        return {**row, "status": "scored", "error": None, "candidates": self._candidates(region, torch.tensor(image))}

    def _candidates(self, region: Mapping[str, Any], image: torch.Tensor) -> list[dict[str, Any]]:
        """Those of an image uint8 (h, w, 3)."""
        started = time.perf_counter()
        if self._second is not None:
            image = image.to(self._second.device)
        (points,) = self._detector.detect(image.permute(2, 0, 1)[None], self._threshold)
        outer = outer_rect(region)
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
