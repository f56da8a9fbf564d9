"""How many pixels go through a network at once: as many as its device's memory holds."""

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import torch

log = logging.getLogger(__name__)

LEAST_PX: Final = 2**20
"""A pass of fewer would hardly be one: a device that cannot hold it is too small, or full of other things."""
_SHARE: Final = 0.4
"""Of a GPU's free memory that one pass may take: two run at a time, and others may come to use it as well."""

T = TypeVar("T")


class PassSize:
    """Pixels in one forward pass; halved, for good, when a GPU's memory turns out not to hold it."""

    def __init__(self, device: torch.device, most_px: int, bytes_per_px: float) -> None:
        """most_px: more do not run faster. bytes_per_px: what the largest activations of a pixel take together."""
        self._device = device
        self._lock = threading.Lock()
        self.pixels = most_px
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.pixels = max(LEAST_PX, min(most_px, int(free * _SHARE / bytes_per_px)))

    def run(self, work: Callable[[int], T]) -> T:
        """What `work` gives for a number of pixels at a time; tried with half as many when memory runs out.

        Raises torch.OutOfMemoryError where even `LEAST_PX` are too many.
        """
        while True:
            tried = self.pixels
            try:
                return work(tried)
            except torch.OutOfMemoryError:
                if tried <= LEAST_PX:
                    raise
            # Out here the error no longer holds the tensors of what was tried.
            self._halve(tried)

    def _halve(self, tried: int) -> None:
        with self._lock:
            if self.pixels == tried:  # else another thread has done so
                self.pixels = max(LEAST_PX, tried // 2)
                log.warning(
                    "The memory of %s does not hold passes of %.1f Mpx: going on with %.1f.",
                    self._device,
                    tried / 1e6,
                    self.pixels / 1e6,
                )
            torch.cuda.empty_cache()
