"""Trains a detector or a classifier with Ray Train: several workers, checkpoints in storage, resumed after a crash.

Of the modules of training only those named `fit_*` or `experiments*` import ray beside it.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
import ray.train
import torch
from ray.train import Checkpoint, UserCallback
from ray.train.torch import get_device, prepare_model

# What ray.train itself offers as these is the former version as far as type checkers can see.
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from mitoray.errors import BadOption, TrainingFailed
from mitoray.models.architectures import built
from mitoray.models.placement import KEEP_MEMORY
from mitoray.training.augment import Augmentation
from mitoray.training.feed import Feed
from mitoray.training.fitting import Diverged, Fitter, Fitting, load_weights
from mitoray.training.network import BEST_BY as BEST_BY
from mitoray.training.network import Network as Network

log = logging.getLogger(__name__)

_OF_ALL: Final = ("patches_per_s", "skipped_patches")
"""Metrics that add up over workers."""
_KEPT_CHECKPOINTS: Final = 2
LIGHT_CPUS: Final = 0.1


@dataclass(frozen=True)
class Scaling:
    """How a training is spread.

    Args:
        workers: processes that train together (DDP), each on its own share of every epoch's patches; none takes one per
            GPU, or else one. A step sees `batch_size` patches of each, so that their number is part of the result.
        threads: CPU threads of the network in each worker; none takes the cluster's CPUs, evenly, at most 8.
        readers: processes per worker that read patches ahead of it.
        max_failures: times that a training goes on from its last epoch after a worker was lost; -1 for any number.
    """

    workers: int | None = None
    threads: int | None = None
    readers: int = 1
    max_failures: int = 3

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "readers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadOption(f"{name} must be at least 1, not {value}.")
        if self.max_failures < -1:
            raise BadOption(f"max_failures must be -1 or more, not {self.max_failures}.")

    def placed(self, nodes: Sequence[tuple[float, float]], at_once: int = 1) -> "Placement":
        """What each worker gets on nodes of so many CPUs and GPUs, with so many trainings at once."""
        gpus = sum(of_node for _, of_node in nodes)
        able = [node for node in nodes if node[1]] if gpus else [node for node in nodes if node[0]]
        cpus = sum(of_node for of_node, _ in able)
        workers = self.workers or max(1, int(gpus / at_once))
        threads = self.threads or max(1, min(8, int(cpus / (workers * at_once))))
        # The threads may use every core, but what is reserved leaves room for what reads patches, and for Ray Tune.
        around = LIGHT_CPUS * (1 + workers * self.readers) * at_once
        # A worker stands on one node, with its readers, and on a node of several GPUs there are several workers.
        roomy = max((of_node / max(1.0, n) - LIGHT_CPUS * (1 + self.readers) for of_node, n in able), default=1.0)
        num_cpus = max(0.1, min(float(threads), (cpus - around) / (workers * at_once), roomy))
        return Placement(workers, threads, math.floor(num_cpus * 10) / 10, bool(gpus))


@dataclass(frozen=True)
class Placement:
    """Workers as placed: `num_cpus` is what each reserves, `threads` what its network uses."""

    workers: int
    threads: int
    num_cpus: float
    use_gpu: bool


@dataclass(frozen=True, eq=False)
class Training:
    """One training: the network, what it is fed with, and how it is fitted. augmentation: none leaves patches be."""

    network: Network
    feed: Feed
    fitting: Fitting
    augmentation: Augmentation | None = None
    output_px: int | None = None
    crop_px: int | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a training gave: the best epoch's weights and metrics, and the metrics of all epochs.

    kept: weights and metrics of the best epochs, as many as were to be kept, in their order of time.
    """

    weights: Mapping[str, torch.Tensor]
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    kept: Sequence[tuple[Mapping[str, torch.Tensor], Mapping[str, float]]] = ()


def fit(
    training: Training,
    placement: Placement,
    *,
    name: str,
    storage: str,
    filesystem: Any = None,
    max_failures: int = 0,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    callbacks: Sequence[UserCallback] = (),
    keep_epochs: int = 0,
) -> Fitted:
    """Train on the Ray cluster that this process is connected to, or go on where the training of that name stopped.

    storage: folder, on every node or with a pyarrow `filesystem` in object storage, for the folder `name` with the
    checkpoints. on_epoch: called in the controller's process with each epoch's metrics. keep_epochs: of so many
    of the best epochs the weights are kept and given. Raises TrainingFailed.
    """
    trainer = TorchTrainer(
        _train,
        train_loop_config={"training": training, "threads": placement.threads, "log": log.getEffectiveLevel()},
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.use_gpu,
            resources_per_worker={"CPU": placement.num_cpus, **({"GPU": 1} if placement.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=filesystem,
            worker_runtime_env={"env_vars": KEEP_MEMORY},
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=max(_KEPT_CHECKPOINTS, keep_epochs),
                checkpoint_score_attribute=BEST_BY,
                checkpoint_score_order="max",
            ),
            callbacks=[*callbacks, *([_Reported(on_epoch)] if on_epoch else [])],
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps whatever a worker raised in errors of its own
        raise TrainingFailed(f"The training {name!r} failed: {_cause(error)}") from error
    if result.error or result.checkpoint is None or not result.best_checkpoints:
        raise TrainingFailed(
            f"The training {name!r} failed: {_cause(result.error) if result.error else 'no epoch ended'}"
        )
    best, metrics = max(result.best_checkpoints, key=lambda kept: kept[1][BEST_BY])
    with best.as_directory() as folder:
        weights = load_weights(Path(folder))
    with result.checkpoint.as_directory() as folder:
        notes = Fitter.notes_in(Path(folder))
    if notes["diverged"]:
        raise TrainingFailed(f"The training {name!r} stopped: {notes['diverged']}")
    ranked = sorted(result.best_checkpoints, key=lambda kept: kept[1][BEST_BY], reverse=True)[:keep_epochs]
    in_time = sorted(ranked, key=lambda kept: float(kept[1]["epoch"]))
    return Fitted(weights, metrics, notes["history"], [_loaded(*kept) for kept in in_time])


def _loaded(
    checkpoint: Checkpoint, metrics: Mapping[str, float]
) -> tuple[dict[str, torch.Tensor], Mapping[str, float]]:
    with checkpoint.as_directory() as folder:
        return load_weights(Path(folder)), metrics


def _train(config: dict[str, Any]) -> None:
    """What each worker does."""
    training: Training = config["training"]
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("mitoray").setLevel(config["log"])
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    network, fitting, feed, device = training.network, training.fitting, training.feed, get_device()
    torch.manual_seed(fitting.seed)
    module = built(network.architecture, network.settings)
    if network.initial is not None:
        module.load_state_dict(dict(network.initial))
    if network.phase == "subtype":
        module.subtype_only()  # type: ignore[operator]
    fitter = Fitter(
        module,
        fitting,
        feed.steps_per_epoch(workers),
        network.normalisation,
        device=device,
        augmentation=training.augmentation,
        output_px=training.output_px,
        crop_px=training.crop_px,
        rank=rank,
        wrap=prepare_model if workers > 1 else lambda objective: objective,
    )
    notes: dict[str, Any] = {"history": [], "best": -1.0, "stale": 0, "diverged": ""}
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            notes = fitter.load(Path(folder))
    patches = feed.validation() if rank == 0 else None
    while fitter.epoch < fitting.epochs and not _stops(notes, fitting):
        if any(fitting.mines_before(epoch) for epoch in range(1, fitter.epoch + 1)):
            log.info("%d false positives to learn from", feed.mine(network.detector(module, device)))
        until = next((e for e in range(fitter.epoch + 1, fitting.epochs) if fitting.mines_before(e)), fitting.epochs)
        for batches in feed.epochs(fitter.epoch, until, rank, workers):
            try:
                outcome = fitter.run_epoch(batches)
                metrics = {"epoch": fitter.epoch, **outcome.metrics()}
            except Diverged as error:
                notes["diverged"], metrics = str(error), {"epoch": fitter.epoch + 1, BEST_BY: -1.0}
            if patches is not None and not notes["diverged"]:
                metrics |= network.judged(module, device, patches)
            _note(notes, metrics, device, workers)
            _report(fitter, notes, metrics, rank)
            if _stops(notes, fitting):
                return


def _note(notes: dict[str, Any], metrics: dict[str, float], device: torch.device, workers: int) -> None:
    """Keep an epoch's metrics; all workers take over the first one's judgement, so that they stop together."""
    judged = torch.tensor(
        [metrics.get(BEST_BY, 0.0), float(bool(notes["diverged"]))], dtype=torch.float64, device=device
    )
    if workers > 1:
        diverged = judged[1:].clone()
        torch.distributed.all_reduce(diverged, torch.distributed.ReduceOp.MAX)
        torch.distributed.broadcast(judged, 0)
        _add_up(metrics, device)
        if diverged.item():
            notes["diverged"] = notes["diverged"] or "the loss of another worker became no number"
    precision = float(judged[0])
    notes["stale"] = 0 if precision > notes["best"] else notes["stale"] + 1
    notes["best"] = max(notes["best"], precision)
    notes["history"] = [*notes["history"], metrics]


def _add_up(metrics: dict[str, float], device: torch.device) -> None:
    """What each worker did a part of becomes what all did."""
    parts = torch.tensor([metrics.get(name, 0.0) for name in _OF_ALL], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(parts, torch.distributed.ReduceOp.SUM)
    metrics |= {name: float(value) for name, value in zip(_OF_ALL, parts, strict=True) if name in metrics}


def _report(fitter: Fitter, notes: Mapping[str, Any], metrics: dict[str, float], rank: int) -> None:
    if rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        fitter.save(Path(folder), notes)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _stops(notes: Mapping[str, Any], fitting: Fitting) -> bool:
    return bool(notes["diverged"]) or (fitting.patience is not None and notes["stale"] >= fitting.patience)


class _Reported(UserCallback):
    def __init__(self, on_epoch: Callable[[Mapping[str, float]], None]) -> None:
        self._on_epoch = on_epoch

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        self._on_epoch(metrics[0])


def _cause(error: BaseException) -> str:
    """The innermost error of those that Ray wraps around it."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        return _cause(failure)
    for inner in (getattr(error, "cause", None), error.__cause__):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return f"{type(error).__name__}: {error}"
