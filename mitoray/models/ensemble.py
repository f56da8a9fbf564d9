"""An ensemble: several classifiers of one resolution in one bundle."""

from collections.abc import Mapping, Sequence

import torch

from mitoray.errors import BadModel
from mitoray.models.bundle import ENSEMBLE, Bundle, Member, Metric, Training
from mitoray.models.combination import Combination


def ensemble_of(
    bundles: Sequence[Bundle],
    combination: Combination | None = None,
    *,
    name: str,
    threshold: float,
    thresholds: Mapping[str, float] | None = None,
    candidate_threshold: float | None = None,
    training: Training | None = None,
    metrics: Sequence[Metric] = (),
) -> tuple[Bundle, dict[str, torch.Tensor]]:
    """The bundle of an ensemble, and its weights: what `save_bundle` takes.

    bundles: single classifiers; what they say of combining and thresholds is not taken over. combination: None weighs
    all alike. candidate_threshold: None takes the lowest of the members'. training: None joins the members'.

    Raises BadModel for members that are no single classifiers, or differ in µm/px or in the side of their patches, and
    for a combination that weighs another number of them.
    """
    where = f"ensemble {name}"
    if not bundles:
        raise BadModel(f"{where}: has no members; name one classifier's bundle or more")
    for bundle in bundles:
        if not bundle.is_classifier or bundle.members:
            what = (
                "an ensemble itself; name its members' own bundles" if bundle.members else "a detector, no classifier"
            )
            raise BadModel(f"{where}: {bundle.name} is {what}")
    first = bundles[0]
    for other in bundles:
        if other.mpp != first.mpp:
            raise BadModel(
                f"{where}: {first.name} takes {first.mpp:g} µm/px and {other.name} {other.mpp:g}; members look at the "
                "same pixels: train them at one resolution"
            )
    sides_px = {bundle.classifier().patch_px: bundle.name for bundle in bundles}
    if len(sides_px) > 1:
        told = " and ".join(f"{name} takes patches of {side} px" for side, name in sorted(sides_px.items()))
        raise BadModel(f"{where}: {told}; members look at the same pixels: train them with one patch_px")
    combination = combination or Combination(weights=(1.0,) * len(bundles))
    if len(combination.weights) != len(bundles):
        raise BadModel(f"{where}: {len(combination.weights)} weights for {len(bundles)} members; give each one")
    lowest = [b.candidate_threshold for b in bundles if b.candidate_threshold is not None]
    ensemble = Bundle(
        name=name,
        architecture=ENSEMBLE,
        mpp=first.mpp,
        threshold=threshold,
        thresholds=dict(thresholds or {}),
        normalisation=first.normalisation,
        training=training or _joined([bundle.training for bundle in bundles]),
        metrics=tuple(metrics),
        members=tuple(
            Member(name=b.name, architecture=b.architecture, settings=b.settings, normalisation=b.normalisation)
            for b in bundles
        ),
        combination=combination,
        candidate_threshold=candidate_threshold if candidate_threshold is not None else min(lowest, default=None),
    )
    weights = {f"{i}.{key}": tensor for i, bundle in enumerate(bundles) for key, tensor in bundle.weights.items()}
    return ensemble.model_copy(update={"weights": weights}), weights


def _joined(trainings: Sequence[Training]) -> Training:
    data = dict.fromkeys(source for training in trainings for source in training.data)
    licences = dict.fromkeys(training.licence for training in trainings)
    notes = dict.fromkeys(note for training in trainings for note in training.notes)
    return Training(data=tuple(data), licence="; ".join(licences), notes=tuple(notes))
