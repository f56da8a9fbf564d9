"""Threads that read ahead of the network, of which one that never returns can be left behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Reads(Generic[T]):
    """At most `at_once` reads at a time, each in a thread of its own.

    Unlike a pool's, a thread that is stuck takes no place once it is given up, and keeps no process from ending.
    """

    def __init__(self, at_once: int) -> None:
        self._slots = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._holding: set[int] = set()

    def submit(self, read: Callable[[Any], T], what: Any) -> "Future[T]":
        """`read(what)`, to come."""
        future: Future[T] = Future()
        threading.Thread(target=self._run, args=(future, read, what), name="read", daemon=True).start()
        return future

    def give_up(self, future: "Future[T]") -> None:
        """Let another read take the place of this one, which goes on for nobody."""
        self._release(future)

    def _run(self, future: "Future[T]", read: Callable[[Any], T], what: Any) -> None:
        with self._lock:
            self._holding.add(id(future))
        self._slots.acquire()
        try:
            result = read(what)
        except BaseException as error:
            self._release(future)
            future.set_exception(error)
        else:
            self._release(future)
            future.set_result(result)

    def _release(self, future: "Future[T]") -> None:
        with self._lock:
            if id(future) not in self._holding:
                return
            self._holding.remove(id(future))
        self._slots.release()
