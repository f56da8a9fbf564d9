"""Run one tool over a slide each time a line comes in: `python -P runner_loop.py RUNNER.py settings.json`.

By the interpreter of any environment: this file and the runners of others' tools import nothing of mitoray. A runner
defines `prepare(settings)`, which loads everything and returns what to tell of the tool, and a function that goes over
the slide and tells what it read. Each answer is one line of JSON on the standard output; all else that is printed goes
to the standard error.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

Tried = dict[str, int]


def main(runner: str, settings_file: str) -> None:
    """Prepare, warm up, answer; then for each line of the standard input go over the slide once, and answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings: dict[str, Any] = json.loads(Path(settings_file).read_text())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["cores"]])
    about, work = runpy.run_path(runner)["prepare"](settings)
    best = _fastest(work, settings["tries"])
    _answer(answers, {**about, "best": best})
    for _ in sys.stdin:
        before = _cpu_s()
        done = work(best)
        _answer(answers, {**done, "cpu_s": _cpu_s() - before})


def _cpu_s() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _fastest(work: Callable[[Tried], object], tries: list[Tried]) -> Tried:
    """What of `tries` takes least; the first goes once before, since it meets cold caches."""
    seconds = []
    for tried in [tries[0], *tries]:
        started = time.perf_counter()
        work(tried)
        seconds.append(time.perf_counter() - started)
        print(f"{tried}: {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    return tries[seconds.index(min(seconds[1:]), 1) - 1]


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
