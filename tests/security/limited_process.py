"""Work on hostile input in a process of limited memory and time, and what becomes of it."""

import io
import logging
import multiprocessing
import resource
import sys
from pathlib import Path

from mitoray.errors import MitorayError


class LimitedProcess:
    """A process that works on one thing after the other; another takes its place when it ends or is stuck.

    work: a function of a module, gives an outcome and what was told. memory_bytes: address space beyond what the
    process has when it starts: nothing that is asked for can be larger. `most_mb`: the most memory that one held.
    """

    def __init__(self, work, memory_bytes, watchdog_s):
        self._work, self._memory_bytes, self._watchdog_s = work, memory_bytes, watchdog_s
        self._process = None
        self.most_mb = 0

    def outcome(self, thing):
        """What `work` gives, a named error, or one of "!unnamed", "!memory", "!crash", "!hang"; and what was told."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self._pipe.send(thing)
        try:
            if self._pipe.poll(self._watchdog_s):
                outcome, told, mb = self._pipe.recv()
                self.most_mb = max(self.most_mb, mb)
                return outcome, told
        except EOFError:
            self._process.join()
            return "!crash", f"status {self._process.exitcode}"
        self.end()
        return "!hang", f"over {self._watchdog_s:g} s"

    def end(self):
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._work, self._memory_bytes), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready: importing is not the time of what it works on


def _serve(pipe, work, memory_bytes):
    logging.disable(logging.CRITICAL)
    sys.stderr = io.StringIO()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    pipe.send("ready")
    while True:
        try:
            thing = pipe.recv()
        except EOFError:
            return
        try:
            outcome, told = work(thing)
        except MitorayError as error:
            outcome, told = type(error).__name__, str(error)
        except MemoryError as error:
            outcome, told = "!memory", repr(error)
        except Exception as error:
            outcome, told = f"!unnamed {type(error).__name__}", str(error)[:300]
        pipe.send((outcome, told, _most_mb()))


def _most_mb():
    # Not getrusage, which counts what the parent held when it made this process.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10
