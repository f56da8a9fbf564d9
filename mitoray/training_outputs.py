"""What the jobs that train one model leave: its bundle and history in a folder, and the same in MLflow."""

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mitoray.errors import BadOption
from mitoray.models import Bundle, save_bundle
from mitoray.report.training_figure import training_figure
from mitoray.storage import Folder
from mitoray.tracking import TrackedRun, register_bundle


@dataclass(frozen=True)
class Destination:
    """Where a trained bundle is recorded. Raises BadOption for a name or an alias that cannot be.

    name: of the bundle; mlflow: tracking server or database, None records nothing; register: name under which it is
    registered; alias: moved to the registered version.
    """

    name: str
    mlflow: str | None
    register: str | None
    alias: str | None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise BadOption(f"name {self.name!r} must hold letters, digits, dots, dashes and underscores only.")
        if (self.register or self.alias) and not self.mlflow:
            raise BadOption("register and alias need mlflow, the registry's address.")
        if self.alias and not self.register:
            raise BadOption("alias needs register, the model's name.")


def write_bundle(folder: Folder, name: str, bundle: Bundle, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a bundle's files below `name`, on disk or in object storage."""
    with tempfile.TemporaryDirectory() as here:
        save_bundle(bundle, weights, here)
        for file in Path(here).iterdir():
            folder.write_bytes(f"{name}/{file.name}", file.read_bytes())


def write_training(
    folder: Folder,
    bundle: Bundle,
    weights: Mapping[str, torch.Tensor],
    history: Sequence[Mapping[str, Any]],
    drawn: Sequence[Mapping[str, float]],
) -> None:
    """Write bundle/, history.json with all epochs, and training.png of the epochs to be drawn."""
    write_bundle(folder, "bundle", bundle, weights)
    folder.write_json("history.json", list(history))
    picture = io.BytesIO()
    training_figure(drawn).savefig(picture, dpi=150)
    folder.write_bytes("training.png", picture.getvalue())


def record_training(
    job: str,
    to: Destination,
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
    bundle: Bundle,
    weights: Mapping[str, torch.Tensor],
    epochs: Sequence[tuple[int, Mapping[str, float]]],
    drawn: Sequence[Mapping[str, float]],
) -> str:
    """Record the training in MLflow, register the bundle where asked, and say where. epochs: steps and metrics."""
    with TrackedRun.start(job, tracking_uri=to.mlflow, data=digests) as tracked:
        tracked.log_parameters(settings)
        for step, metrics in epochs:
            tracked.log_metrics(metrics, step=step)
        tracked.log_figure(training_figure(drawn), "training.png")
        with tempfile.TemporaryDirectory() as here:
            save_bundle(bundle, weights, here)
            if to.register:
                uri = register_bundle(here, to.register, alias=to.alias, run=tracked.ref)
                return f"Registered as {uri} by {tracked.ref}."
            tracked.log_folder(here, "bundle")
        return f"Recorded as {tracked.ref}."
