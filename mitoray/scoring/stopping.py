"""A job that is told to stop, by SIGTERM, ends in good order: nodes that are taken back get no other notice."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mitoray.errors import Stopped


class StopRequest:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Ask to stop, from any thread or a signal's handler."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether it was asked to."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raises Stopped if it was asked to."""
        if self.asked:
            raise Stopped("Told to stop, and did. The same command goes on from here.")


@contextmanager
def stop_on_sigterm(request: StopRequest) -> Iterator[None]:
    """SIGTERM asks, until the block ends; a second one ends the process as ever. Of the main thread only.

    Enter it after Ray was started, which sets a handler of its own that ends the process at once.
    """

    def heard(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        request.ask()

    before: Any = signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
