"""Moving an alias of the registry to a new version, if that is better."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mitoray.errors import BadModel
from mitoray.tracking.registry import download_bundle, set_alias, tags_of, version_of


@dataclass(frozen=True)
class Promotion:
    """Whether the alias moved, and why or why not, as a sentence."""

    moved: bool
    reason: str


def promote(
    name: str,
    alias: str,
    version: int | str,
    value: float,
    judge: Callable[[Path], float | None],
    *,
    tag: str,
    tracking_uri: str | None = None,
) -> Promotion:
    """Move the alias to `version` of a registered model if its value is above that of the version which has it now.

    judge: gives the value of another bundle's folder on the same data; None where that cannot be, and then the number
    in the other version's tag counts. Where that has none either, or nobody can read it, the alias stays. An alias that
    nobody has is set. Raises BadOption, BadModel, TrackingUnreachable.
    """
    uri = f"models:/{name}@{alias}"
    try:
        present = version_of(uri, tracking_uri=tracking_uri)
    except BadModel:
        set_alias(name, alias, version, tracking_uri=tracking_uri)
        return Promotion(True, f"{name}@{alias} is now version {version}: no version had that alias.")
    rival = judge(download_bundle(uri, tracking_uri))
    how = "judged on the same candidates"
    if rival is None:
        how = "as recorded when it was registered, since its networks are others than the cached scores are from"
        rival = _number(tags_of(uri, tracking_uri=tracking_uri).get(tag))
    if rival is None:
        return Promotion(
            False,
            f"{name}@{alias} stays version {present}: its networks are others than the cached scores are from, and it "
            f"has no tag {tag} to compare with. Move the alias by hand, or score the cohort with it.",
        )
    if value > rival:
        set_alias(name, alias, version, tracking_uri=tracking_uri)
    moved = value > rival
    return Promotion(
        moved,
        f"{name}@{alias} {'is now' if moved else 'stays'} version {version if moved else present}: version {version} "
        f"has {tag} {value:.4f}, {'above' if moved else 'not above'} the {rival:.4f} of version {present}, {how}.",
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
