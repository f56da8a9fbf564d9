"""Trains a heat-map network: targets, loss and loop."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mitoray.models.heatmap import HeatmapDetector, HeatmapNet
from mitoray.training.augment import augment
from mitoray.training.patches import Patches

log = logging.getLogger(__name__)

MEAN = (172.0, 102.0, 176.0)
STD = (49.0, 54.0, 40.0)
"""Of the channels, 0 to 255, over crops of haematoxylin and eosin from many scanners."""


@dataclass(frozen=True)
class Schedule:
    """One cycle of AdamW: the rate rises over the first 30 % and falls over the rest (Smith and Topin 2018).

    minutes: ends the training after this time instead of after `steps`, so that it is in time on a busy machine; the
    numbers of such a training do not come again.
    pause_at: shares of the training after which it pauses, to look for the network's mistakes.
    """

    steps: int = 1000
    minutes: float | None = None
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    view_px: int = 80
    pause_at: tuple[float, ...] = (0.4, 0.6, 0.8)
    seed: int = 0

    def rate_at(self, progress: float) -> float:
        """The learning rate after that share of the training."""
        rise, start, end = 0.3, 1 / 25, 1e-4
        low, way = (start, progress / rise) if progress < rise else (end, (1 - progress) / (1 - rise))
        return self.learning_rate * (low + (1 - low) * (1 - math.cos(math.pi * way)) / 2)


def train_heatmap(
    draw: Callable[[np.random.Generator, int], Patches],
    schedule: Schedule,
    *,
    at_pause: Callable[[HeatmapNet], None] | None = None,
) -> tuple[HeatmapNet, list[float]]:
    """A trained network and its loss at each step. The same seed and steps give the same numbers on the same machine.

    draw: gives a batch from a random generator and the side of a view in px.
    at_pause: called with the network at each of the schedule's pauses.
    """
    rng = np.random.default_rng(schedule.seed)
    torch.manual_seed(schedule.seed)
    network = HeatmapNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=schedule.weight_decay)
    pauses = sorted(schedule.pause_at, reverse=True)
    losses: list[float] = []
    for progress in _progress(schedule):
        if at_pause and pauses and progress >= pauses[-1]:
            pauses.pop()
            at_pause(network)
        network.train()
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(progress)
        batch = augment(draw(rng, schedule.view_px), rng)
        logits = network(normalised(batch.images))
        loss = focal_loss(logits[:, 0], centre_targets(batch.centres_px, schedule.view_px))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if len(losses) % 50 == 0:
            log.info("%3.0f %% done, step %d: mean loss %.3f", 100 * progress, len(losses), np.mean(losses[-50:]))
    return network.eval(), losses


def _progress(schedule: Schedule) -> Iterator[float]:
    """The share of the training that is over, before each step."""
    if schedule.minutes is None:
        yield from (step / schedule.steps for step in range(schedule.steps))
        return
    started = time.monotonic()
    while (share := (time.monotonic() - started) / (60 * schedule.minutes)) < 1:
        yield share


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 3, h, w) to float32 with about zero mean and unit variance."""
    x = images.to(torch.float32, memory_format=torch.channels_last)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def detector_of(network: HeatmapNet, mpp: float) -> HeatmapDetector:
    """A detector with a copy of the network's present weights, for use between two training steps."""
    copy = HeatmapNet()
    copy.load_state_dict(network.state_dict())
    return HeatmapDetector(copy, mpp=mpp, mean=MEAN, std=STD, device=torch.device("cpu"))


def centre_targets(centres_px: torch.Tensor, view_px: int, sigma_cells: float = 1.5) -> torch.Tensor:
    """Heat-maps (n, c, c) with a Gaussian bump, 1 at its cell, for each figure whose cell is in the view.

    centres_px: float32 (n, k, 2), NaN for none. Bumps of figures just beyond the view reach into it.
    """
    cells = -(-view_px // 4)
    grid = torch.arange(cells, dtype=torch.float32)
    peak = (centres_px / 4).round()
    dx, dy = (grid - peak[..., axis, None] for axis in (0, 1))
    bumps = torch.exp(-(dy[..., :, None] ** 2 + dx[..., None, :] ** 2) / (2 * sigma_cells**2))
    return bumps.nan_to_num(0.0).amax(dim=1)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Penalty-reduced focal loss per figure (Zhou et al. 2019, eq. 1; alpha 2, beta 4). Shapes (n, c, c)."""
    log_p, log_q = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    at_peak = targets == 1
    loss = torch.where(at_peak, log_q.exp() ** 2 * log_p, (1 - targets) ** 4 * log_p.exp() ** 2 * log_q)
    return -loss.sum() / at_peak.sum().clamp(min=1)
