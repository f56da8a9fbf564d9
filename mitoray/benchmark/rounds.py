"""Things measured side by side: in turn, round after round, since machines are noisy."""

import statistics
import time
from collections.abc import Callable, Mapping


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each work over `rounds` rounds, in each of which every one runs once, in turn.

    One round more comes first, and is not counted: caches fill, libraries load.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
