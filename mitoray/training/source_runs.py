"""The models that trainings left behind: which one the source domain chose, and which others may be selected."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from mitoray.errors import BadModel, BadOption
from mitoray.models import Bundle, Metric, load_bundle
from mitoray.models.bundle import CARD_FILE
from mitoray.models.sources import SHIPPED, without_secrets
from mitoray.storage import Folder

SOURCE: Final = "bundle"
"""Folder of the bundle that the source domain chose, where a run holds several."""

_DEEPEST: Final = 3
"""Levels below a run's folder where bundles are looked for: run/epochs/epoch-001/bundle.json."""


@dataclass(frozen=True)
class Run:
    """A source model's training. source: its bundle's URI; candidates: all its bundles' URIs, the source's first."""

    name: str
    source: str
    candidates: tuple[str, ...]


def found_runs(uris: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs at these URIs: folders, each a bundle or a folder of bundles, such as jobs/train_detector.py writes.

    A name that `load_bundle` takes, such as "mitoray-s" or "models:/detector/1", is a run of one bundle. Raises
    BadModel for a folder without bundles, or with several of which none is called bundle; BadOption for two runs of one
    name.
    """
    runs = [_found(uri, storage_options) for uri in uris]
    if not runs:
        raise BadOption("There are no runs. Give the folder of at least one trained model.")
    names = [run.name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadOption(f"Two runs are called {twice[0]!r}. Give folders with different names.")
    return runs


def _found(uri: str, storage_options: Mapping[str, Any] | None) -> Run:
    shown = without_secrets(uri)
    words = [word for word in re.sub(r"[^\w./-]+", "-", shown).strip("/").split("/") if word not in ("", ".", "..")]
    if len(words) > 1 and words[-1] == SOURCE:
        words.pop()
    name = words[-1] if words else "run"
    if uri.startswith("models:/"):
        return Run("-".join(words[1:]), uri, (uri,))
    if re.fullmatch(r"[\w.-]+", uri) and (SHIPPED / uri / CARD_FILE).exists():
        return Run(name, uri, (uri,))
    folder = Folder.at(uri, storage_options)
    files = folder.filesystem.find(folder.root, maxdepth=_DEEPEST)
    below = {str(file)[len(folder.root) :].strip("/") for file in files}
    places = sorted(file.removesuffix(CARD_FILE).strip("/") for file in below if file.rpartition("/")[2] == CARD_FILE)
    if not places:
        raise BadModel(f"Run {shown}: no {CARD_FILE} there, or in folders below it. Give the output of a training.")
    source = next((place for place in ("", SOURCE) if place in places), places[0] if len(places) == 1 else None)
    if source is None:
        raise BadModel(
            f"Run {shown} holds {len(places)} bundles ({', '.join(places[:3])}, …), none of them called {SOURCE!r}. "
            "Call the one that the source domain chose so."
        )
    ordered = [source, *(place for place in places if place != source)]
    candidates = tuple(f"{folder.uri}/{place}".rstrip("/") for place in ordered)
    return Run(name, candidates[0], candidates)


def epoch_bundles(
    bundle: Bundle, kept: Sequence[tuple[Mapping[str, torch.Tensor], Mapping[str, float]]]
) -> dict[str, Bundle]:
    """Kept epochs of a training as bundles, by folder name such as epoch-007: candidates for another domain.

    Their threshold is that of the training's own bundle.
    """
    made = {}
    for weights, metrics in kept:
        name = f"epoch-{int(metrics['epoch']):03d}"
        data = bundle.metrics[0].data if bundle.metrics else "real slides"
        figures = Metric(name="AP on the validation patches", value=round(float(metrics["val_ap"]), 4), data=data)
        notes = (*bundle.training.notes, "One epoch of several; the threshold is that of the best one.")
        made[name] = bundle.model_copy(
            update={
                "name": f"{bundle.name}-{name}",
                "weights": weights,
                "metrics": (figures,),
                "training": bundle.training.model_copy(update={"notes": notes}),
            }
        )
    return made


def digests_of(uris: Iterable[str], storage_options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The digest of the bundle at each URI."""
    return {without_secrets(uri): load_bundle(uri, storage_options).digest for uri in uris}
