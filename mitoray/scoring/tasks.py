"""A Ray to work on, and work on things one by one, each in a task of its own."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import ray

from mitoray.ray_address import ray_address

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_AHEAD: Final = 4
"""Tasks that wait for each CPU: enough that none idles, few enough that an interrupted job leaves little behind."""


def in_tasks(work: Callable[[Thing], Result], things: Sequence[Thing], num_cpus: float = 1) -> Iterator[Result]:
    """What `work` gives for each thing, as it is done, in no particular order.

    On the Ray cluster that this process is connected to; an exception of `work` is raised here. Results pass through
    Ray's object store: they are small, and pixels are none of them.
    """

    def one(thing: Thing) -> Result:
        return work(thing)

    task = ray.remote(num_cpus=num_cpus)(one)
    running: list[Any] = []
    for thing in things:
        # Asked each time, for clusters grow.
        if len(running) >= max(1, int(cluster_cpus() / num_cpus)) * _AHEAD:
            ready, running = ray.wait(running)
            yield from ray.get(ready)
        running.append(task.remote(thing))
    while running:
        ready, running = ray.wait(running)
        yield from ray.get(ready)


def cluster_cpus() -> float:
    """CPUs of the Ray cluster that this process is connected to, at least 1."""
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1.0, cluster.get("CPU", 1.0))


@contextmanager
def ray_for_job() -> Iterator[None]:
    """Ray, on the cluster of this job or address, on one that runs here, or started for the purpose."""
    if ray.is_initialized():
        yield
        return
    ray.init(ray_address(), include_dashboard=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
