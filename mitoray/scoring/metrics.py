"""What a run exports through Ray for Prometheus, tagged by cohort and stage, never by slide. Imports ray.

Prometheus sees each name with `ray_` before it, and counters with `_total` behind. The driver tells all but the
histogram, so that numbers of an actor that came or went are neither lost nor doubled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from ray.util.metrics import Counter, Gauge, Histogram

TAGS: Final = ("cohort", "stage")

Kind = Literal["counter", "gauge", "histogram"]
Stage = Literal["plan", "score", "reduce"]


@dataclass(frozen=True)
class Described:
    """A metric's kind and what it tells."""

    kind: Kind
    text: str


METRICS: Final[Mapping[str, Described]] = {
    "mitoray_slides": Described("counter", "Slides that went through a stage, plan or reduce."),
    "mitoray_failed_slides": Described("counter", "Slides that failed, or were scored in part (stage reduce)."),
    "mitoray_regions": Described("counter", "Regions that went through scoring."),
    "mitoray_failed_regions": Described("counter", "Regions that could not be scored."),
    "mitoray_area_mm2": Described("counter", "Area of the regions that went through scoring, square mm."),
    "mitoray_actor_seconds": Described(
        "counter", "Seconds of scoring actors, by stage: fetch, decode, wait, detect, classify."
    ),
    "mitoray_queue_depth": Described("gauge", "What a stage has yet to do: slides (plan, reduce) or regions (score)."),
    "mitoray_time_left_seconds": Described("gauge", "Seconds until a stage is done, at its pace so far."),
    "mitoray_busy_share": Described("gauge", "Share of the actors' time in which their networks work, 0 to 1."),
    "mitoray_actors": Described("gauge", "Scoring actors that have begun."),
    "mitoray_silent_actors": Described("gauge", "Scoring actors that have not been heard of for a while."),
    "mitoray_region_seconds": Described(
        "histogram", "Seconds of one region, by stage: fetch, decode, wait, detect, classify."
    ),
}

_BOUNDARIES: Final = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]


def region_histogram(cohort: str) -> Histogram:
    """For an actor to observe seconds in, by stage."""
    name = "mitoray_region_seconds"
    histogram: Histogram = Histogram(name, METRICS[name].text, _BOUNDARIES, TAGS)
    histogram.set_default_tags({"cohort": cohort})
    return histogram


M = TypeVar("M")


def _made(kind: Kind, metric: Callable[[str, str, tuple[str, ...]], M]) -> dict[str, M]:
    return {name: metric(name, told.text, TAGS) for name, told in METRICS.items() if told.kind == kind}


class RunMetrics:
    """The driver's metrics of one run."""

    def __init__(self, cohort: str) -> None:
        self._tags = {"cohort": cohort}
        self._counters, self._gauges = _made("counter", Counter), _made("gauge", Gauge)
        self._told: dict[tuple[str, str], float] = {}
        self._busy_s = self._wall_s = 0.0

    def slides(self, stage: Stage, done: int, failed: int, left: int) -> None:
        """So many slides have gone through a stage since the job began."""
        self._count("mitoray_slides", stage, done)
        self._count("mitoray_failed_slides", stage, failed)
        self._set("mitoray_queue_depth", stage, left)

    def regions(self, snapshot: Mapping[str, Any], left: int, time_left_s: float | None) -> None:
        """A snapshot of what the actors told, and the regions that are left."""
        self._count("mitoray_regions", "score", snapshot["n_regions"])
        self._count("mitoray_failed_regions", "score", snapshot["n_failed_regions"])
        self._count("mitoray_area_mm2", "score", snapshot["mm2"])
        for stage, seconds in snapshot["seconds"].items():
            self._count("mitoray_actor_seconds", stage, seconds)
        self._set("mitoray_queue_depth", "score", left)
        self._set("mitoray_time_left_seconds", "score", time_left_s)
        self._set("mitoray_actors", "score", snapshot["n_actors"])
        self._set("mitoray_silent_actors", "score", snapshot["n_silent"])
        self._set("mitoray_busy_share", "score", self._busy_share(snapshot))

    def scored(self) -> None:
        """Scoring is over: what changes with time only would stay as it was."""
        for name in ("mitoray_time_left_seconds", "mitoray_busy_share", "mitoray_actors", "mitoray_silent_actors"):
            self._set(name, "score", 0)

    def _busy_share(self, snapshot: Mapping[str, Any]) -> float | None:
        """Since the last snapshot in which a region was finished."""
        seconds, n_actors = snapshot["seconds"], snapshot["n_actors"]
        busy_s, wall_s = seconds.get("detect", 0.0) + seconds.get("classify", 0.0), snapshot["wall_s"]
        if not n_actors or wall_s <= self._wall_s:
            return None
        share: float = (busy_s - self._busy_s) / ((wall_s - self._wall_s) * n_actors)
        self._busy_s, self._wall_s = busy_s, wall_s
        return max(0.0, min(1.0, share))

    def _count(self, name: str, stage: str, total: float) -> None:
        more = total - self._told.get((name, stage), 0.0)
        if more > 0:
            self._counters[name].inc(more, {**self._tags, "stage": stage})
            self._told[name, stage] = total

    def _set(self, name: str, stage: str, value: float | None) -> None:
        self._gauges[name].set(value, {**self._tags, "stage": stage})
