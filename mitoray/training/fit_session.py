"""The cluster that trainings run on, and what is seen of them while they do."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from tqdm import tqdm

from mitoray.training.fit import BEST_BY, Placement, Scaling


@contextmanager
def ray_here(scaling: Scaling, address: str | None, at_once: int = 1) -> Iterator[Placement]:
    """`connected`; gives what each of `at_once` trainings gets."""
    with connected(address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        yield scaling.placed([(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes], at_once)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, at the address or as it is, or started here and ended with the block; it keeps its logs to itself.

    With its dashboard: Ray Train asks that whether a training still lives, and without an answer never frees what a
    training held that Ray Tune stopped. The next ones would wait forever.
    """
    mine = not ray.is_initialized()
    if mine:
        ray.init(address, include_dashboard=True, logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


class Watched:
    """Shows each epoch as it ends, in a bar and a line; what the controller tells comes through an actor."""

    def __init__(self, epochs: int, judged_by: str = "validation AP") -> None:
        """`judged_by`: what the number is, for people, that the best epoch is chosen by."""
        self._epochs, self._judged_by = epochs, judged_by

    def __enter__(self) -> "Watched":
        self._board: Any = ray.remote(num_cpus=0)(_Board).remote()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="epochs", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    @property
    def on_epoch(self) -> "Told":
        """To be called with each epoch's metrics, from any process."""
        return Told(self._board)

    def _look(self) -> None:
        shown = 0
        with tqdm(total=self._epochs, desc="training", unit="epoch", disable=None) as bar:
            ended = False
            while not ended:
                ended = self._stop.wait(1.0)
                try:
                    epochs: list[Mapping[str, float]] = ray.get(self._board.seen.remote(), timeout=5)
                except Exception:  # nosec B112 # the cluster goes away, or is busy: a progress bar is not worth an error
                    continue
                for metrics in epochs[shown:]:
                    bar.update(int(metrics["epoch"]) - bar.n)
                    line = _line(metrics, self._judged_by)
                    bar.set_postfix_str(line)
                    bar.write(f"epoch {int(metrics['epoch'])}: {line}")
                shown = len(epochs)


class _Board:
    def __init__(self) -> None:
        self._epochs: list[Mapping[str, float]] = []

    def add(self, metrics: Mapping[str, float]) -> None:
        self._epochs.append(metrics)

    def seen(self) -> list[Mapping[str, float]]:
        return self._epochs


@dataclass(frozen=True)
class Told:
    """Hands metrics on to a `Watched` of another process."""

    board: Any

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """One epoch's metrics."""
        self.board.add.remote(dict(metrics))


def _line(metrics: Mapping[str, float], judged_by: str) -> str:
    parts = {"loss": "loss {:.3f}", BEST_BY: f"{judged_by} {{:.3f}}", "patches_per_s": "{:.0f} patches/s"}
    line = ", ".join(text.format(metrics[name]) for name, text in parts.items() if name in metrics)
    return f"{line}, {metrics['wait_share']:.0%} waiting" if "wait_share" in metrics else line
