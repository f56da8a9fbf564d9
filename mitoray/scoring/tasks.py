"""A Ray to work on, and work on things one by one, each in a task of its own."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import ray

from mitoray.errors import RayNotStarted
from mitoray.logs import LogSettings
from mitoray.ray_address import ray_address

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_CHECK_S: Final = 1.0
_AHEAD: Final = 4
"""Tasks that wait for each CPU: enough that none idles, few enough that an interrupted job leaves little behind."""


def in_tasks(
    work: Callable[[Thing], Result],
    things: Sequence[Thing],
    num_cpus: float = 1,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """What `work` gives for each thing, as it is done, in no particular order.

    check: called every second; raises where the work is to end.
    On the Ray cluster that this process is connected to; an exception of `work` is raised here. Results pass through
    Ray's object store: they are small, and pixels are none of them.
    """

    logs = LogSettings.here()

    def one(thing: Thing) -> Result:
        if LogSettings.here() != logs:
            logs.apply()
        return work(thing)

    task = ray.remote(num_cpus=num_cpus)(one)
    running: list[Any] = []
    for thing in things:
        # Asked each time, for clusters grow.
        while len(running) >= max(1, int(cluster_cpus() / num_cpus)) * _AHEAD:
            ready, running = ray.wait(running, timeout=_CHECK_S)
            yield from ray.get(ready)
            check()
        running.append(task.remote(thing))
    while running:
        ready, running = ray.wait(running, timeout=_CHECK_S)
        yield from ray.get(ready)
        check()


def cluster_cpus() -> float:
    """CPUs of the Ray cluster that this process is connected to, at least 1."""
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1.0, cluster.get("CPU", 1.0))


@contextmanager
def ray_for_job(log_to_driver: bool = True) -> Iterator[None]:
    """Ray, on the cluster of this job or address, on one that runs here, or started for the purpose.

    log_to_driver: show here what the cluster's processes log. Raises RayNotStarted.
    """
    if ray.is_initialized():
        yield
        return
    _connect(log_to_driver)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(log_to_driver: bool) -> None:
    """Twice if need be: Ray gives a new node 30 s to start, which on a busy machine may be too few."""
    address = ray_address()
    for last in (False, True):
        try:
            ray.init(address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=log_to_driver)
            return
        except Exception as error:
            ray.shutdown()
            if last:
                raise RayNotStarted(_not_started(error, os.environ.get("RAY_ADDRESS", address))) from error
            log.warning("Ray did not start (%s); trying once more", type(error).__name__)


def _not_started(error: Exception, address: str | None) -> str:
    remedy = "Check that this machine has memory, room in /tmp and /dev/shm, and CPUs that are not all busy"
    if address not in (None, "local"):
        remedy = f"Check that the cluster at {address} is up, and that RAY_AUTH_MODE is set here as it is there"
    return f"Ray could not be started or reached ({type(error).__name__}: {error}). {remedy}."
