"""Runners as the benchmark sees them: processes that go over a slide when they are told to."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

from mitoray.benchmark.runner_environment import PeerFailed

LOOP = Path(__file__).with_name("runner_loop.py")
SETTLE_S = 10.0


class Runner:
    """One process of a tool. Its settings and its log are files in `folder`."""

    def __init__(
        self,
        name: str,
        python: Path | str,
        runner: Path,
        settings: Mapping[str, Any],
        folder: Path,
        environment: Mapping[str, str],
        limit_s: float,
    ) -> None:
        """limit_s: seconds that an answer may take."""
        self._limit_s = limit_s
        self._log = folder / f"{name}.log"
        given = folder / f"{name}.json"
        given.write_text(json.dumps(settings))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), "-P", str(LOOP), str(runner), str(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )

    def go(self) -> None:
        """Tell it to go over the slide."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerFailed(self._why("ended")) from None

    def answer(self) -> dict[str, Any]:
        """What it says next. Raises PeerFailed where it ends, or takes longer than it may."""
        assert self._process.stdout is not None
        late = Timer(self._limit_s, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        in_time = late.is_alive()
        late.cancel()
        if not line:
            raise PeerFailed(self._why("failed" if in_time else f"took more than {self._limit_s:g} s"))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it: at the end of its input it ends by itself, or is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(SETTLE_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _why(self, what: str) -> str:
        told = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{what}: {told[-1][:300] if told else 'it said nothing'} ({self._log})"


def together(runners: Sequence[Runner]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until all have gone over the slide once, started at the same time, and their answers."""
    started = time.perf_counter()
    for runner in runners:
        runner.go()
    answers = [runner.answer() for runner in runners]
    return time.perf_counter() - started, answers
