"""The actors of the pipeline: one that watches, some that score, some that fetch for them. Imports ray."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mitoray.logs import LogSettings
from mitoray.models import load_model
from mitoray.scoring.config import Cohort, Identity, Placement, Resources
from mitoray.scoring.health import Health, Orders
from mitoray.scoring.metrics import region_histogram
from mitoray.scoring.progress import Tally
from mitoray.scoring.schema import SCORES
from mitoray.scoring.score import RegionReader, RegionScorer, failed_region
from mitoray.scoring.stages import Levels, SecondStage

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
"""Between two signs of life of an actor; with each it learns whether to stop."""
GRACE_S: Final = 30.0
"""Beyond a region's time, after which an actor that does not give it up by itself is ended."""


class Watch:
    """What all scoring actors tell, in one process beside the driver: counts, and their health."""

    def __init__(self) -> None:
        self._tally, self._health = Tally(), Health()
        self._handles: dict[str, Any] = {}

    def begin(self, actor: str, handle: Any) -> None:
        """A scoring actor is ready, for the first time or once more."""
        self._know(actor, handle)
        self._health.begin_actor(actor)

    def _know(self, actor: str, handle: Any) -> None:
        if actor not in self._handles:
            self._tally.begin()
        self._handles[actor] = handle

    def orders(self, actor: str, region_ids: Sequence[str]) -> Orders:
        """See `Health`."""
        return self._health.orders(actor, region_ids)

    def take(self, actor: str, region_id: str | None) -> None:
        """See `Health`."""
        self._health.take(actor, region_id)

    def add(self, slide_id: str, mm2: float, failed: bool, seconds: dict[str, float]) -> None:
        """See `Tally`."""
        self._tally.add(slide_id, mm2, failed, seconds)

    def heard(self, actor: str, handle: Any) -> bool:
        """See `Health`. After a restart of this process actors that it had forgotten are known again by this."""
        self._know(actor, handle)
        return self._health.heard(actor)

    def stop(self) -> None:
        """Have the actors finish what they have in hand, and no more."""
        self._health.stop()

    def stuck(self, limit_s: float) -> list[tuple[str, Any]]:
        """Regions that are given up, and the actors that are stuck with them: these are to be killed."""
        return [(region_id, self._handles[actor]) for actor, region_id in self._health.stuck(limit_s).items()]

    def snapshot(self, silent_s: float) -> dict[str, Any]:
        """Everything counted so far; `n_silent`, the actors not heard of for so long; `n_in_hand`, regions in work."""
        silent = len(self._health.silent(silent_s))
        return {**self._tally.snapshot(), "n_silent": silent, "n_in_hand": self._health.in_hand()}


def started_watch() -> Any:
    """A `Watch` actor on the driver's own node, since nodes with workers come and go."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Ray keeps up to 100,000 calls in the memory of its head, and there are several for each region.
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here, "enable_task_events": False}
    return ray.remote(Watch).options(**options).remote()


class ScoreActor:
    """Holds the models on one device and scores blocks of regions."""

    def __init__(
        self,
        cohort: Cohort,
        identity: Identity,
        levels: Levels,
        resources: Resources,
        place: Placement,
        watch: Any,
        logs: LogSettings,
    ) -> None:
        logs.apply()
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        bundle = load_model(cohort.model, cohort.storage_options, expected_digest=identity.model_digest)
        self._scorer = RegionScorer(
            RegionReader(
                cohort.rows,
                bundle.mpp,
                cohort.storage_options,
                resources.tile_cache_mb << 20,
                cohort.method.reduced_decode,
            ),
            bundle.detector(device, place.threads),
            levels.detector,
            place.read_threads,
            SecondStage.of(cohort, identity.classifier_digest, levels.final, device),
            resources.region_timeout_s,
        )
        self._watch = watch
        self._seconds = region_histogram(cohort.name)
        context = ray.get_runtime_context()
        self._me = str(context.get_actor_id())
        self._handle = context.current_actor
        watch.begin.remote(self._me, self._handle)
        self._stop = threading.Event()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """SCORES rows for a block of REGIONS rows, one each; fewer where it is told to stop meanwhile."""
        orders = self._orders(batch["region_id"].to_pylist())
        if orders.stop:
            self._stop.set()
        rows: list[dict[str, Any]] = []
        todo: dict[str, dict[str, Any]] = {}
        for region in batch.to_pylist():
            if error := orders.given_up.get(region["region_id"]):
                rows.append(failed_region(region, error))
            else:
                todo[region["region_id"]] = region
        with self._at_rest_after():
            for row in self._scorer.score(
                todo.values(),
                alone=orders.alone,
                taking=partial(self._take, heard=orders.alone),
                stopped=self._stop.is_set,
            ):
                self._told(row, todo[row["region_id"]]["mpp"])
                rows.append(row)
        return pa.Table.from_pylist(rows, schema=SCORES)

    def _take(self, region_id: str, *, heard: bool) -> None:
        """heard: wait until the watch knows, since the region may end this process before a message leaves it."""
        told = self._watch.take.remote(self._me, region_id)
        if heard:
            with suppress(RayActorError):  # it is being restarted
                ray.get(told)

    def _told(self, row: dict[str, Any], mpp: float) -> None:
        facts = {name: row[name] for name in ("slide_id", "region_id", "status", "error")}
        level = logging.DEBUG if row["status"] == "scored" else logging.INFO
        log.log(level, "region %s %s", row["region_id"], row["status"], extra=facts)
        mm2 = row["width_px"] * row["height_px"] * mpp**2 / 1e6
        seconds = self._scorer.take_seconds()
        for stage, value in seconds.items():
            self._seconds.observe(value, {"stage": stage})
        self._watch.add.remote(row["slide_id"], mm2, row["status"] == "failed", seconds)

    def _orders(self, region_ids: Sequence[str]) -> Orders:
        try:
            orders: Orders = ray.get(self._watch.orders.remote(self._me, region_ids))
        except RayActorError:  # it is being restarted; work goes on without it
            return Orders({}, alone=False, stop=False)
        return orders

    @contextmanager
    def _at_rest_after(self) -> Iterator[None]:
        """Nothing is in hand between blocks. Where an error ends the block, Ray tries it again."""
        try:
            yield
        finally:
            self._watch.take.remote(self._me, None)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                if ray.get(self._watch.heard.remote(self._me, self._handle)):
                    self._stop.set()
            except RayError:
                log.debug("The watch did not answer", exc_info=True)


class FetchActor:
    """Fetches regions' compressed tiles for actors elsewhere."""

    def __init__(self, cohort: Cohort, mpp: float) -> None:
        self._reader = RegionReader(cohort.rows, mpp, cohort.storage_options, 0, cohort.method.reduced_decode)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The same REGIONS rows with their `tiles`; null where they could not be had: the scorer finds out why."""
        return batch.append_column("tiles", pa.array(map(self._reader.packed, batch.to_pylist()), pa.large_binary()))
