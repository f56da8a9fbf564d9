"""A run's record and its models' cards, in the words and order in which the report shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Facts = tuple[tuple[str, str], ...]

_SHORT: Final = 12
"""Characters of a digest that people compare."""

_METHOD: Final = {
    "threshold": "Threshold given",
    "candidate_threshold": "Kept from a score of",
    "detector_threshold": "Classified from a score of",
    "subtypes": "Subtypes required",
    "region_um": "Region, µm",
    "nms_radius_um": "Suppression radius, µm",
    "hotspot_mm2": "Circle, mm²",
    "hotspot_hpf_mm2": "Rectangle, mm²",
}


@dataclass(frozen=True)
class Group:
    """Some facts under one title."""

    title: str
    facts: Facts


@dataclass(frozen=True)
class ShownCard:
    """A model's card. `metrics` are its own, each with name, value and the kind of data that gave it."""

    part: str
    name: str
    error: str | None
    facts: Facts
    notes: tuple[str, ...]
    data: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]


def record_groups(record: Mapping[str, Any]) -> list[Group]:
    """What `run.json` says: when and with what, the settings, the time it took, the versions."""
    identity, code = record["identity"], record.get("code", {})
    when = (
        ("Status", record["status"]),
        ("Started", record.get("started")),
        ("Updated", record.get("updated")),
        ("Attempts", record.get("attempts")),
        ("Model", identity.get("model")),
        ("Digest", _short(identity.get("model_digest"))),
        ("Classifier", identity.get("classifier")),
        ("Digest of it", _short(identity.get("classifier_digest"))),
        ("Manifest's digest", _short(identity.get("manifest_digest"))),
    )
    method = identity.get("method", {})
    settings = tuple((_METHOD.get(name, name), value) for name, value in method.items() if value is not None)
    times = [(f"To {stage}, s", value) for stage, value in record.get("duration_s", {}).items()]
    times += [(f"Actors: {stage}, s", value) for stage, value in record.get("actor_seconds", {}).items()]
    groups = [("Run", when), ("Settings", settings), ("Time taken", tuple(times)), ("Versions", tuple(code.items()))]
    return [Group(title, _told(facts)) for title, facts in groups if _told(facts)]


def shown_cards(cards: Mapping[str, Mapping[str, Any]]) -> list[ShownCard]:
    """The cards by part, model first."""
    return [_shown(part.capitalize(), card) for part, card in cards.items()]


def _shown(part: str, card: Mapping[str, Any]) -> ShownCard:
    training = card.get("training") or {}
    facts = (
        ("Licence", training.get("licence")),
        ("Architecture", card.get("architecture")),
        ("Members", ", ".join(member["name"] for member in card.get("members") or ())),
        ("Reads at, µm per pixel", card.get("mpp")),
        ("Figures count from a score of", card.get("threshold")),
        *((f"… in {domain}", value) for domain, value in (card.get("thresholds") or {}).items()),
        ("sha256 of weights and card", card.get("digest")),
    )
    return ShownCard(
        part=part,
        name=card.get("name", "unknown"),
        error=card.get("error"),
        facts=_told(facts),
        notes=tuple(training.get("notes", ())),
        data=tuple(training.get("data", ())),
        metrics=tuple(card.get("metrics") or ()),
    )


def _told(facts: Any) -> Facts:
    return tuple((str(name), _text(value)) for name, value in facts if value not in (None, ""))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _short(digest: str | None) -> str | None:
    return f"{digest[:_SHORT]}…" if digest else None
