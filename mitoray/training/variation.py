"""Variants of a training: other settings, by the names that a sweep searches."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from mitoray.errors import BadOption


def varied(parts: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a training with other values: settings dataclasses by name, and the network's settings, a mapping.

    values: by dotted names, such as fitting.learning_rate, sampling.hard_share, augmentation.density_probability or
    settings.width. The body's learning rate keeps its ratio to the head's unless it is named itself. Raises BadOption
    for a name that is none, or a value that the part refuses.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        part, _, key = name.partition(".")
        if (
            part not in parts
            or not key
            or (is_dataclass(parts[part]) and key not in {f.name for f in fields(parts[part])})
        ):
            raise BadOption(f"{name!r} is no setting. Name a part ({', '.join(parts)}), a dot, and one of its options.")
        changes.setdefault(part, {})[key] = value
    fitting = changes.get("fitting", {})
    if "learning_rate" in fitting and "body_learning_rate" not in fitting:
        ratio = parts["fitting"].body_learning_rate / parts["fitting"].learning_rate
        fitting["body_learning_rate"] = fitting["learning_rate"] * ratio
    return {
        name: replace(part, **changes.get(name, {})) if is_dataclass(part) else {**part, **changes.get(name, {})}  # type: ignore[type-var]
        for name, part in parts.items()
    }
