"""Fits a network to patches, epoch by epoch, in one process. What several processes share is `fit`'s business."""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import safetensors.torch
import torch
from torch import nn

from mitoray.errors import BadOption
from mitoray.models import Normalisation
from mitoray.models.inputs import Normaliser
from mitoray.training.augment import Augmentation, augment
from mitoray.training.patches import Patches, centred

_STATE_FILE: Final = "fitting.json"
_WEIGHTS_FILE: Final = "weights.safetensors"
_OPTIMISER_FILE: Final = "optimiser.safetensors"
_CLIP: Final = 5.0


class Trainable(Protocol):
    """What a network offers to be trained; it is an nn.Module as well."""

    @property
    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """From the body to the head: what learns slowly, and what learns fast."""
        ...

    def loss(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Loss of normalised images (n, 3, h, w), of which `Patches.known` is known."""
        ...


@dataclass(frozen=True)
class Fitting:
    """How a network is fitted. The defaults are those of MIDOG++ (Aubreville et al. 2023, Technical Validation).

    Args:
        epochs: passes, each over newly drawn patches.
        batch_size: patches per step of each worker.
        learning_rate: of the head, at the top of the one cycle.
        body_learning_rate: of the first layers; groups between lie evenly between, in octaves (discriminative rates,
            Howard and Ruder 2018).
        weight_decay: of AdamW.
        head_epochs: epochs at the start in which only the head learns, as with a pretrained body; all, to freeze it.
        patience: epochs without a better validation AP after which training stops early; none never stops early.
        mine_at: shares of the training after which the network's own false positives are looked for and learned from.
        precision: auto takes bfloat16 where the processor or GPU has it, else float32, on older GPUs float16.
        seed: of initial weights, patches and augmentation.
    """

    epochs: int = 200
    batch_size: int = 12
    learning_rate: float = 5e-4
    body_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    head_epochs: int = 0
    patience: int | None = None
    mine_at: tuple[float, ...] = ()
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.body_learning_rate <= self.learning_rate <= 1:
            raise BadOption(
                f"body_learning_rate {self.body_learning_rate} and learning_rate {self.learning_rate} must be above 0, "
                "at most 1, and the body's not above the head's."
            )
        if min(self.weight_decay, self.head_epochs) < 0 or (self.patience is not None and self.patience < 1):
            raise BadOption("weight_decay and head_epochs must be 0 or more, patience 1 or more.")
        if self.head_epochs > self.epochs:
            raise BadOption(f"head_epochs {self.head_epochs} is more than the {self.epochs} epochs there are.")
        if not all(0 < share < 1 for share in self.mine_at):
            raise BadOption(f"mine_at must hold shares between 0 and 1, not {list(self.mine_at)}.")
        if any(self._mining_epoch(share) >= self.epochs for share in self.mine_at):
            raise BadOption(
                f"mine_at {list(self.mine_at)} leaves no epoch of {self.epochs} to learn from what is found: "
                "give more epochs or smaller shares."
            )

    def mines_before(self, epoch: int) -> bool:
        """Whether false positives are to be looked for before that epoch, counted from 0."""
        return any(self._mining_epoch(share) == epoch for share in self.mine_at)

    def _mining_epoch(self, share: float) -> int:
        return math.ceil(share * self.epochs - 1e-9)


class Diverged(Exception):
    """The loss is no number any more. Trying again would only repeat it."""


@dataclass(frozen=True)
class Outcome:
    """One epoch. wait_share: of its time, waiting for patches; without start_s, until the first ones came.

    skipped: patches whose slide could not be read.
    """

    loss: float
    first_loss: float
    patches: int
    skipped: int
    start_s: float
    duration_s: float
    wait_share: float

    def metrics(self) -> dict[str, float]:
        """By the names under which they are recorded."""
        return {
            "loss": self.loss,
            "first_loss": self.first_loss,
            "patches_per_s": self.patches / self.duration_s,
            "wait_share": self.wait_share,
            "skipped_patches": self.skipped,
            "epoch_start_s": self.start_s,
            "epoch_s": self.duration_s,
        }


class _Objective(nn.Module):
    """A network's loss as a forward pass, which is what DistributedDataParallel sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        if not len(x):  # nothing could be read: other workers still wait for this one's gradients
            return torch.stack([p.sum() for p in self.network.parameters()]).sum() * 0.0
        loss: torch.Tensor = self.network.loss(x, known)  # type: ignore[operator]
        return loss


class Fitter:
    """A network, its optimiser and its one cycle (Smith and Topin 2018). Same seed, same numbers on one machine."""

    def __init__(
        self,
        network: nn.Module,
        fitting: Fitting,
        steps_per_epoch: int,
        normalisation: Normalisation,
        *,
        device: torch.device,
        augmentation: Augmentation | None = None,
        output_px: int | None = None,
        crop_px: int | None = None,
        rank: int = 0,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        """`augmentation`: none leaves patches be. `crop_px`: side of their middle, to train on. `wrap`: for workers."""
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.device = device
        self.epoch = 0
        self._fitting, self._rank, self._steps_per_epoch = fitting, rank, steps_per_epoch
        self._augmentation, self._output_px, self._crop_px = augmentation, output_px, crop_px
        self._objective = wrap(_Objective(self.network))
        self._groups: tuple[tuple[nn.Module, ...], ...] = network.layer_groups  # type: ignore[assignment]
        rates = np.geomspace(fitting.body_learning_rate, fitting.learning_rate, len(self._groups)).tolist()
        if len(self._groups) == 1:
            rates = [fitting.learning_rate]
        self._optimiser = torch.optim.AdamW(
            [{"params": [p for m in modules for p in m.parameters()]} for modules in self._groups],
            weight_decay=fitting.weight_decay,
        )
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, rates, fitting.epochs * steps_per_epoch, pct_start=0.3, final_div_factor=400
        )
        self._precision = _precision(fitting.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision == torch.float16)
        self._normalised = Normaliser(normalisation.mean, normalisation.std, device)

    def run_epoch(self, batches: Iterable[tuple[Patches, int]]) -> Outcome:
        """Train on the epoch's batches, each with its number of unreadable patches. Raises Diverged."""
        self.network.train()
        if only_head := self.epoch < self._fitting.head_epochs:
            for module in (m for group in self._groups[:-1] for m in group):
                module.eval()
        rng = np.random.default_rng([self._fitting.seed, self.epoch, self._rank])
        losses: list[torch.Tensor] = []
        steps: list[int] = []
        patches = skipped = 0
        waits: list[float] = []
        asked = time.perf_counter()
        for batch, unreadable in batches:
            waits.append(time.perf_counter() - asked)
            if len(waits) == 1:
                started = time.perf_counter()
            loss = self._step(batch, rng, only_head)
            if len(batch.images):
                losses.append(loss)
                steps.append(len(waits))
            patches += len(batch.images)
            skipped += unreadable
            asked = time.perf_counter()
        values = torch.stack(losses or [torch.zeros(())]).cpu().numpy()
        duration = time.perf_counter() - started
        if not np.isfinite(values).all():
            raise Diverged(
                f"The loss became {values[~np.isfinite(values)][0]} in epoch {self.epoch + 1}, step "
                f"{steps[int(np.argmax(~np.isfinite(values)))]}. Lower learning_rate, or set precision to float32."
            )
        self.epoch += 1
        wait_share = sum(waits[1:]) / duration
        return Outcome(float(values.mean()), float(values[0]), patches, skipped, waits[0], duration, wait_share)

    def _step(self, batch: Patches, rng: np.random.Generator, only_head: bool) -> torch.Tensor:
        batch = batch.to(self.device)
        if self._augmentation is not None and len(batch.images):
            batch = augment(batch, rng, self._augmentation, output_px=self._output_px)
        x = self._normalised(centred(batch.images, self._crop_px or batch.images.shape[-1]))
        with torch.autocast(self.device.type, self._precision, enabled=self._precision != torch.float32):
            loss = self._objective(x, batch.known)
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        if only_head:  # at rate 0, not frozen: several workers average the gradients of one fixed set of weights
            for group in self._optimiser.param_groups[:-1]:
                group["lr"] = 0.0
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._cycle.step()
        found: torch.Tensor = loss.detach().float()
        return found

    # ---- kept between attempts: tensors as safetensors, numbers as JSON, nothing pickled

    def save(self, folder: Path, notes: Mapping[str, Any]) -> None:
        """Everything that `load` needs to go on after this epoch; `notes` are kept beside it."""
        state = self._optimiser.state_dict()["state"]
        tensors = {f"{i}.{name}": value for i, kept in state.items() for name, value in kept.items()}
        cycle = {k: v for k, v in self._cycle.state_dict().items() if isinstance(v, int | float | list | bool | str)}
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self._optimiser.param_groups]
        record = {
            "epoch": self.epoch,
            "steps_per_epoch": self._steps_per_epoch,
            "cycle": cycle,
            "groups": groups,
            "scaler": self._scaler.state_dict(),
            "notes": dict(notes),
        }
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _WEIGHTS_FILE, self.network.state_dict())
        _write(folder / _OPTIMISER_FILE, tensors)
        (folder / _STATE_FILE).write_text(json.dumps(record))

    def load(self, folder: Path) -> dict[str, Any]:
        """Go on where `save` was called; returns the notes."""
        record: dict[str, Any] = json.loads((folder / _STATE_FILE).read_text())
        if record["steps_per_epoch"] != self._steps_per_epoch:
            raise BadOption(
                f"The training was begun with {record['steps_per_epoch']} steps per epoch and worker, and now has "
                f"{self._steps_per_epoch}. Give it as many workers as before, or begin a new one."
            )
        self.network.load_state_dict(load_weights(folder))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in safetensors.torch.load_file(folder / _OPTIMISER_FILE).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        known = self._optimiser.state_dict()["param_groups"]
        groups = [{**kept, "params": group["params"]} for kept, group in zip(record["groups"], known, strict=True)]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        self._cycle.load_state_dict(record["cycle"])
        self._scaler.load_state_dict(record["scaler"])
        self.epoch = record["epoch"]
        notes: dict[str, Any] = record["notes"]
        return notes

    @staticmethod
    def notes_in(folder: Path) -> dict[str, Any]:
        """The notes that `save` kept in a folder."""
        notes: dict[str, Any] = json.loads((folder / _STATE_FILE).read_text())["notes"]
        return notes


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The network's state in a folder that `Fitter.save` wrote."""
    return safetensors.torch.load_file(folder / _WEIGHTS_FILE)


def _write(file: Path, state: Mapping[str, torch.Tensor]) -> None:
    safetensors.torch.save_file({name: t.detach().cpu().contiguous() for name, t in state.items()}, file)


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that will do
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else torch.float32
