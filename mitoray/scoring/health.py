"""Which actor has which region in hand: it shows that one is stuck, or that a region ends whatever process tries it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_CRASHES: Final = 3
"""Processes that may end over a region before it is given up. One that runs out of memory ends too."""


STALLED_S: Final = 120.0
"""Without a region in hand, although some are left, after which a run is said to wait for something."""


@dataclass
class InHand:
    """The region that an actor works on, since when, and when it was last heard of; monotonic seconds.

    block: the regions that it was last given.
    """

    region_id: str | None
    since_s: float
    heard_s: float
    block: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Orders:
    """What an actor is to know of a block before it begins.

    given_up: errors of the regions that it must not try. alone: score them one by one and be heard before each, for one
    of them may have ended a process. stop: score nothing more.
    """

    given_up: dict[str, str]
    alone: bool
    stop: bool


class Health:
    """A roll of actors, by name, and of the regions that stopped or ended them. Held by one process, told by all."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._actors: dict[str, InHand] = {}
        self._crashes: Counter[str] = Counter()
        self._given_up: dict[str, str] = {}
        self._stop = False

    def begin_actor(self, actor: str) -> None:
        """An actor is ready. If it was before, its process ended over the region that it had in hand.

        It may also have ended so fast that its last words were lost, or before it handed over a block that it was
        through with: then any region of the block is suspected.
        """
        if before := self._actors.get(actor):
            for region_id in {before.region_id} if before.region_id is not None else before.block:
                self._accuse(region_id)
        self._actors[actor] = InHand(None, self._now(), self._now())

    def _accuse(self, region_id: str) -> None:
        self._crashes[region_id] += 1
        if self._crashes[region_id] >= MOST_CRASHES:
            self._given_up.setdefault(
                region_id,
                f"RegionEndsProcess: {MOST_CRASHES} processes ended over this region, by a crash or for want of "
                "memory. Look at the slide there, give actors more memory, or lower region_um; then run again.",
            )

    def orders(self, actor: str, region_ids: Sequence[str]) -> Orders:
        """For a block of regions that the actor is about to score."""
        self.heard(actor)
        given_up = {region_id: self._given_up[region_id] for region_id in region_ids if region_id in self._given_up}
        if actor in self._actors:
            self._actors[actor].block = frozenset(region_ids)
        alone = any(region_id in self._crashes for region_id in region_ids)
        return Orders(given_up, alone, self._stop)

    def take(self, actor: str, region_id: str | None) -> None:
        """The actor takes a region of its block in hand, or none: it is through with the block."""
        hand = self._actors.setdefault(actor, InHand(None, 0.0, 0.0))
        hand.region_id, hand.since_s, hand.heard_s = region_id, self._now(), self._now()

    def heard(self, actor: str) -> bool:
        """The actor's process is there; returns whether it is to stop."""
        if actor in self._actors:
            self._actors[actor].heard_s = self._now()
        return self._stop

    def stop(self) -> None:
        """From now on actors are told to finish the region in hand and to take no more."""
        self._stop = True

    def stuck(self, limit_s: float) -> dict[str, str]:
        """The actors that have had one region in hand for longer, and that region, which is given up. Told once."""
        found = {
            actor: hand.region_id
            for actor, hand in self._actors.items()
            if hand.region_id is not None and self._now() - hand.since_s > limit_s
        }
        for actor, region_id in found.items():
            self._given_up[region_id] = (
                f"RegionTimedOut: not scored within {limit_s:g} s, so that its process was ended. Look at the slide "
                "there, or raise region_timeout_s; then run again."
            )
            self._actors[actor].region_id, self._actors[actor].block = None, frozenset()
        return found

    def in_hand(self) -> int:
        """How many actors have a region in hand."""
        return sum(hand.region_id is not None for hand in self._actors.values())

    def silent(self, limit_s: float) -> list[str]:
        """The actors that have not been heard of for so long."""
        return [actor for actor, hand in self._actors.items() if self._now() - hand.heard_s > limit_s]


class Stall:
    """Notices that a run has actors and regions left, and that none is in work."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since_s = now()
        self._n_regions = -1

    def lasts(self, snapshot: Mapping[str, Any], left: int) -> bool:
        """Whether it has lasted for `STALLED_S`, or as long again since it was last said. snapshot: of the watch."""
        waits = left > 0 and snapshot["n_actors"] > 0 and snapshot["n_in_hand"] == 0
        if not waits or snapshot["n_regions"] != self._n_regions:
            self._since_s, self._n_regions = self._now(), snapshot["n_regions"]
            return False
        if self._now() - self._since_s < STALLED_S:
            return False
        self._since_s = self._now()
        return True
