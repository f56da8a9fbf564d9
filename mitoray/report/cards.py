"""The cards of a run's models, kept in its folder when it is scored: later the models may be out of reach."""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from mitoray.errors import MitorayError
from mitoray.models import Bundle, Model, load_bundle
from mitoray.models.plugin import SCHEME
from mitoray.storage import Folder

log = logging.getLogger(__name__)

CARDS: Final = "report/cards.json"


def card_of(model: Model) -> dict[str, Any]:
    """What is known of a model: a bundle's card with its digest, or what a plug-in tells."""
    if isinstance(model, Bundle):
        return {**json.loads(model.model_dump_json()), "digest": model.digest}
    told = {"name": model.name, "mpp": model.mpp, "threshold": model.threshold, "digest": model.digest}
    return told | {"thresholds": dict(model.thresholds), "architecture": "a plug-in in Python, which has no card"}


def keep_cards(folder: Folder, models: Mapping[str, Model]) -> None:
    """Write the cards of a run's models, by their part: model, classifier."""
    folder.write_json(CARDS, {part: card_of(model) for part, model in models.items()})


def cards_of(
    folder: Folder, record: Mapping[str, Any], storage_options: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The cards of the models that a run's record names, by part; one that cannot be had is `{"error": …}`.

    Kept ones of the same digest, or else the models' own. Runs no code: of plug-ins there is only what was kept.
    """
    identity = record["identity"]
    try:
        kept = folder.read_json(CARDS)
    except (FileNotFoundError, ValueError):
        kept = {}
    cards = {}
    for part in ("model", "classifier"):
        if uri := identity.get(part):
            digest = identity.get(f"{part}_digest")
            known = kept.get(part, {})
            cards[part] = known if known.get("digest") == digest else _loaded(uri, digest, storage_options)
    return cards


def _loaded(uri: str, digest: str | None, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    if uri.startswith(SCHEME):
        return {"error": f"{uri} is a plug-in in Python: only the run itself can say what it is."}
    try:
        return card_of(load_bundle(uri, storage_options, digest))
    except (MitorayError, OSError) as error:
        log.warning("The report goes without the model card: %s", error)
        return {"error": f"{type(error).__name__}: {error}"}
