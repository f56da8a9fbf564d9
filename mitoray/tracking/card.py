"""What is known of a bundle, as the page that a model registry shows."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mitoray.models import Bundle

_LONGEST: Final = 5000
"""Characters of a description that MLflow's databases hold."""


def model_card(bundle: "Bundle") -> str:
    """Markdown: what the model takes, what it was made from, its licence, its limits and its measured figures."""
    thresholds = "".join(f"; {domain}: {value:g}" for domain, value in sorted(bundle.thresholds.items()))
    does = "Judges candidates for" if bundle.is_classifier else "Finds"
    lines = [
        f"# {bundle.name}",
        f"{does} mitotic figures in RGB images of haematoxylin and eosin at {bundle.mpp:g} µm/px "
        f"(architecture {bundle.architecture}). A detection counts from a score of {bundle.threshold:g}{thresholds}.",
        f"**Licence:** {bundle.training.licence}",
        "## Limits",
        *(f"- {note}" for note in bundle.training.notes),
        "## Trained on",
        *(f"- {data}" for data in bundle.training.data),
        "## Measured",
        *(f"- {metric.name}: {metric.value:g} ({metric.data})" for metric in bundle.metrics),
        f"\nsha256 of weights and card: `{bundle.digest}`",
    ]
    text = "\n".join(lines)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
