"""How far a run is: counted where the work happens, shown where a person looks."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LOG_LINES = 30.0


class Tally:
    """Counts of finished regions, per slide, with their area and the seconds of each stage."""

    def __init__(self) -> None:
        self._regions: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._failed = 0
        self._mm2 = 0.0
        self._began: float | None = None
        self._last = 0.0
        self._actors = 0
        self._all_ready = 0.0
        self._mm2_before = 0.0

    def begin(self) -> None:
        """An actor is ready to work; what it took to start is not counted as working."""
        now = time.perf_counter()
        if self._began is None:
            self._began = self._last = now
        self._actors += 1
        self._all_ready, self._mm2_before = now, self._mm2

    def add(self, slide_id: str, mm2: float, failed: bool, seconds: Mapping[str, float]) -> None:
        """One more region of `mm2`; `seconds` are what it took, by stage."""
        self._regions[slide_id] += 1
        self._mm2 += mm2
        self._failed += failed
        self._last = time.perf_counter()
        self._seconds.update(seconds)

    def snapshot(self) -> dict[str, Any]:
        """Everything counted so far; `wall_s` runs from the first actor's readiness to the last region.

        `steady_mm2` and `steady_s`: the same from the last actor's readiness on, when all of them worked.
        """
        return {
            "regions": dict(self._regions),
            "n_regions": self._regions.total(),
            "n_failed_regions": self._failed,
            "mm2": self._mm2,
            "seconds": dict(self._seconds),
            "wall_s": self._last - self._began if self._began is not None else 0.0,
            "n_actors": self._actors,
            "steady_mm2": self._mm2 - self._mm2_before,
            "steady_s": max(0.0, self._last - self._all_ready),
        }


class RegionBar:
    """A bar over regions, with slides, mm²/s and time left. Where no terminal looks on, a line every half minute."""

    def __init__(self, to_do: Mapping[str, int], done: Mapping[str, int], enabled: bool = True) -> None:
        self._to_do = to_do
        self._done = done
        self._shown = 0
        self._wall_s = 0.0
        self._started = time.perf_counter()
        self._bar = _bar("scoring", "region", sum(to_do.values()), sum(done.values()), enabled)

    def show(self, snapshot: Mapping[str, Any]) -> None:
        """Move the bar to a snapshot of the actors' `Watch`."""
        finished = sum(
            self._done.get(slide_id, 0) + snapshot["regions"].get(slide_id, 0) >= count
            for slide_id, count in self._to_do.items()
        )
        speed = snapshot["mm2"] / (time.perf_counter() - self._started)
        text = f"{finished}/{len(self._to_do)} slides, {speed:.2f} mm²/s, {snapshot['n_actors']} actors"
        if snapshot["n_failed_regions"]:
            text += f", {snapshot['n_failed_regions']} regions failed"
        if snapshot["n_silent"]:
            text += f", {snapshot['n_silent']} actors silent"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(snapshot["n_regions"] - self._shown)
        self._shown = snapshot["n_regions"]
        self._wall_s = snapshot["wall_s"]

    @property
    def left(self) -> int:
        """Regions that are yet to be scored; those scored again after a loss do not count twice."""
        return max(0, sum(self._to_do.values()) - sum(self._done.values()) - self._shown)

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the last region, at the pace since the first actor was ready; None before the first region."""
        return self.left * self._wall_s / self._shown if self._shown else None

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def slide_bar(what: str, n_slides: int, enabled: bool = True) -> "tqdm[Any]":
    """A bar over slides."""
    return _bar(what, "slide", n_slides, 0, enabled and n_slides > 0)


def _bar(what: str, unit: str, total: int, done: int, enabled: bool) -> "tqdm[Any]":
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=what,
        disable=not enabled,
        mininterval=0.5 if terminal else _SECONDS_BETWEEN_LOG_LINES,
        dynamic_ncols=terminal,
    )
