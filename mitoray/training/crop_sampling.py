"""Which crops a classifier's training sees: figures and negatives evenly, and normal and atypical figures evenly.

After Fick et al. 2024, §2.4: two loaders, the second of mitotic figures only.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitoray.errors import BadLabels, BadOption
from mitoray.training.crops import crop_targets
from mitoray.training.placing import allotted

log = logging.getLogger(__name__)

Ambiguous = Literal["masked", "negative", "positive"]
_REMEDY_NEGATIVES: Final = (
    "Label imposters, or take negatives from the slides: detector mines false positives, random_negatives takes tissue."
)


@dataclass(frozen=True)
class CropSampling:
    """Which crops a training sees, and how they are shown.

    Args:
        patches: crops per epoch for the mitosis head, of all workers; half of them figures, half negatives.
        subtype_batch_size: figures of known subtype per step of each worker, half normal, half atypical, added to the
            batch.
        subtype_task: whether the network learns to tell atypical from normal figures as well (Fick 2024, Table 2).
        ambiguous: what labels of the kind "uncertain" are in training: masked leaves them out. Validation always does.
        domain_weights: share of each domain, in any unit; none weighs all domains alike.
        shift_um: most that a crop is moved aside along x and y, µm, since detectors miss a figure's centre by that.
    """

    patches: int = 4096
    subtype_batch_size: int = 32
    subtype_task: bool = True
    ambiguous: Ambiguous = "masked"
    domain_weights: dict[str, float] | None = None
    shift_um: float = 0.75

    def __post_init__(self) -> None:
        for name in ("patches", "subtype_batch_size"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.shift_um <= 10:
            raise BadOption(f"shift_um must lie between 0 and 10 µm, not {self.shift_um}.")
        weights = list((self.domain_weights or {"": 1.0}).values())
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
            raise BadOption(f"domain_weights must be 0 or more, one above 0, not {self.domain_weights}.")


def check_crops(crops: pa.Table, sampling: CropSampling, purpose: str) -> None:
    """Raises BadLabels where the crops (schema `CROPS`, without images) cannot be sampled so."""
    figure, subtype = crop_targets(crops, sampling.ambiguous).T
    domains = np.array([str(name) for name in crops["domain"].to_pylist()], object)
    figure = np.where([_weight(name, sampling.domain_weights) > 0 for name in domains], figure, np.nan)
    for domain, weight in (sampling.domain_weights or {}).items():
        if weight and not (figure[domains == domain] == 1).any():
            known = ", ".join(sorted(set(domains[figure == 1])))
            raise BadLabels(
                f"The domain {domain!r} has no mitotic figure among the crops to {purpose}, which come from: {known}. "
                "Label some in it, or leave it out of domain_weights."
            )
    if not (figure == 1).any():
        raise BadLabels(
            f"The {len(crops)} crops to {purpose} hold no mitotic figure. Give labelled slides or crops with figures, "
            "or another split, validation share or seed."
        )
    if not (figure == 0).any():
        raise BadLabels(f"The {len(crops)} crops to {purpose} hold no negatives. {_REMEDY_NEGATIVES}")
    if sampling.subtype_task:
        for name, value in (("atypical", 1.0), ("normal", 0.0)):
            if not (subtype == value).any():
                raise BadLabels(
                    f"The crops to {purpose} hold no figure labelled {name}. Give subtypes, or set subtype_task to "
                    "false."
                )


def warn_of_giveaways(crops: pa.Table, sampling: CropSampling) -> None:
    """Warn of domains with figures only, or negatives only: a network can then go by their colours."""
    figure = crop_targets(crops, sampling.ambiguous)[:, 0]
    domains = np.array([str(name) for name in crops["domain"].to_pylist()], object)
    for domain in sorted(set(domains)):
        held = figure[domains == domain]
        for value, lacking in ((1.0, "no mitotic figure"), (0.0, "no negative")):
            if (held == 1 - value).any() and not (held == value).any():
                log.warning("Domain %s has %s to train on: its colours may be learned instead", domain, lacking)


def sample_figures_and_negatives(
    crops: pa.Table, n: int, rng: np.random.Generator, sampling: CropSampling
) -> NDArray[np.int64]:
    """Rows (n,) of the crops: figures and negatives in turn, so that any stretch of them is half and half.

    Each half is shared between the domains that have its kind by their weights; within a domain all crops come equally
    often, as far as whole numbers allow, imposters and false positives alike. Crops of unknown target are never taken.
    """
    figure = crop_targets(crops, sampling.ambiguous)[:, 0]
    domains = np.array([str(name) for name in crops["domain"].to_pylist()], object)
    halves = []
    for value, share in ((1.0, (n + 1) // 2), (0.0, n // 2)):
        known = np.flatnonzero(figure == value)
        groups = [known[domains[known] == name] for name in sorted(set(domains[known]))]
        weights = [_weight(str(domains[group[0]]), sampling.domain_weights) for group in groups]
        halves.append(_shared(groups, weights, share, rng))
    return _in_turn(*halves)


def sample_subtypes(crops: pa.Table, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows (n,) of figures of known subtype: normal and atypical in turn, each evenly over the phases of mitosis.

    Figures of unknown phase come as often as they are; of the others each phase comes equally often.
    """
    subtype = crop_targets(crops)[:, 1]
    phases = np.array(crops["phase"].to_pylist(), object)
    halves = []
    for value, share in ((0.0, (n + 1) // 2), (1.0, n // 2)):
        known = np.flatnonzero(subtype == value)
        names = sorted({name for name in phases[known] if name is not None})
        groups = [known[phases[known] == name] for name in names]
        unknown = known[[name is None for name in phases[known]]]
        weights = [(len(known) - len(unknown)) / max(1, len(groups))] * len(groups)
        halves.append(_shared([*groups, unknown], [*weights, float(len(unknown))], share, rng))
    return _in_turn(*halves)


def _weight(domain: str, weights: Mapping[str, float] | None) -> float:
    return 1.0 if weights is None else weights.get(domain, 0.0)


def _shared(
    groups: Sequence[NDArray[np.int64]], weights: Sequence[float], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`n` members of the groups in random order, so many of each as its weight says, each member equally often."""
    group = allotted(np.asarray(weights, np.float64), n, rng)
    drawn = np.empty(n, np.int64)
    for number, members in enumerate(groups):
        places = np.flatnonzero(group == number)
        rounds = [rng.permutation(members) for _ in range(-(-len(places) // max(1, len(members))))]
        drawn[places] = np.concatenate([np.empty(0, np.int64), *rounds])[: len(places)]
    return drawn


def _in_turn(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """One of the first, one of the second, and so on; the first may be longer by one."""
    both = np.empty(len(first) + len(second), np.int64)
    both[::2], both[1::2] = first, second
    return both
