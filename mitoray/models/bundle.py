"""A bundle: a trained model as two files, weights.safetensors and bundle.json. Nothing in it is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError
from safetensors import SafetensorError
from torch import nn

from mitoray.errors import BadModel, BadOption
from mitoray.models.architectures import ARCHITECTURES, built
from mitoray.models.classifier import Classifier
from mitoray.models.classifiers import CLASSIFIERS, ClassifierNet, EnsembleClassifier, PatchClassifier
from mitoray.models.combination import Combination
from mitoray.models.detector import Detector
from mitoray.models.placement import placed

CARD_FILE: Final = "bundle.json"
WEIGHTS_FILE: Final = "weights.safetensors"

ENSEMBLE: Final = "ensemble"
"""The architecture of a bundle that holds several classifiers."""

SCHEMA_VERSION: Final = 1

MOST_CARD_BYTES: Final = 1 << 24
MOST_HEADER_BYTES: Final = 1 << 24
"""Of a safetensors header, which lists names and shapes."""
MOST_MEMBERS: Final = 64

_Channel = Annotated[float, Field(ge=0, le=255)]
_Score = Annotated[float, Field(ge=0, le=1)]
Setting = bool | int | float | str
_STRICT: Final = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


class Normalisation(BaseModel):
    """Mean and standard deviation of R, G, B that the network expects to be taken off and divided by, 0 to 255."""

    model_config = _STRICT
    mean: tuple[_Channel, _Channel, _Channel]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Training(BaseModel):
    """What the weights were made from, and what they may be used for."""

    model_config = _STRICT
    data: tuple[str, ...]
    licence: str
    notes: tuple[str, ...]


class Metric(BaseModel):
    """One measured figure. `data` says whether drawn or real images gave it."""

    model_config = _STRICT
    name: str
    value: float
    data: Literal["phantom", "real crops", "real tissue", "real slides"]


class Member(BaseModel):
    """One classifier of an ensemble. Its weights' names begin with its place: "0.", "1.", …"""

    model_config = _STRICT
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    architecture: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    normalisation: Normalisation


class Card(BaseModel):
    """What bundle.json holds, all of it and nothing else.

    settings: what the architecture is built with, such as its width; absent: as it is by default.
    mpp: µm per pixel of the input. threshold: score from which a detection counts; thresholds: the same by domain.

    Of classifiers only: members: those of an ensemble; combination: how scores become one; candidate_threshold: score
    of the detector from which a candidate is classified.
    """

    model_config = _STRICT
    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    architecture: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    mpp: Annotated[float, Field(ge=0.1, le=2)]
    threshold: _Score
    thresholds: dict[str, _Score]
    normalisation: Normalisation
    training: Training
    metrics: tuple[Metric, ...]
    members: tuple[Member, ...] = ()
    combination: Combination | None = None
    candidate_threshold: _Score | None = None


class Bundle(Card):
    """A trained model and what is known of it.

    digest: sha256, hex, over weights.safetensors followed by bundle.json. weights: the network's state by name.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    digest: str = Field(default="", exclude=True)
    weights: Mapping[str, torch.Tensor] = Field(default_factory=dict, exclude=True, repr=False)

    def detector(self, device: str = "cpu", threads: int | None = None) -> Detector:
        """The model, ready to detect, on a torch device ("cpu", "cuda", "cuda:1").

        threads: CPU threads, for the whole process (torch has one setting); None leaves it.
        Raises BadOption for a device that is not there, BadModel for a classifier.
        """
        if self.is_classifier:
            raise BadModel(
                f"model {self.name}: {self.architecture} classifies candidates and finds none; give a detector's "
                "bundle here, and this one as the classifier"
            )
        place = placed(device, threads)
        network = built(self.architecture, self.settings)
        network.load_state_dict(dict(self.weights))
        return detector_around(self.architecture, network, self.mpp, self.normalisation, place)

    def classifier(self, device: str = "cpu", threads: int | None = None) -> Classifier:
        """The classifier or ensemble, ready to classify; device, threads and errors as of `detector`.

        Raises BadModel for a detector.
        """
        if not self.is_classifier:
            raise BadModel(
                f"classifier {self.name}: {self.architecture} finds candidates and cannot classify them; give a "
                "classifier's bundle here, and this one as the model"
            )
        place = placed(device, threads)
        members = []
        for prefix, member in _parts(self):
            network = built(member.architecture, member.settings)
            own = {name.removeprefix(prefix): t for name, t in self.weights.items() if name.startswith(prefix)}
            network.load_state_dict(own)
            members.append(classifier_around(member.architecture, network, self.mpp, member.normalisation, place))
        return EnsembleClassifier(members, self.combining.weights) if self.architecture == ENSEMBLE else members[0]

    @property
    def is_classifier(self) -> bool:
        """Whether it classifies candidates, alone or as an ensemble, and does not detect."""
        return self.architecture == ENSEMBLE or self.architecture in CLASSIFIERS

    @property
    def has_subtypes(self) -> bool:
        """Whether it tells atypical from normal figures."""
        return self.is_classifier and any(member.settings.get("subtypes", True) for _, member in _parts(self))

    @property
    def combining(self) -> Combination:
        """How a classifier's scores become one: `combination`, or where the card has none, all members alike."""
        return self.combination or Combination(weights=(1.0,) * max(1, len(self.members)))


def detector_around(
    architecture: str, network: nn.Module, mpp: float, normalisation: Normalisation, device: torch.device
) -> Detector:
    """The detector of a trained network, which is changed in place (fused, frozen, moved to the device)."""
    around = ARCHITECTURES[architecture].detector
    return around(network, mpp=mpp, mean=normalisation.mean, std=normalisation.std, device=device)


def classifier_around(
    architecture: str, network: nn.Module, mpp: float, normalisation: Normalisation, device: torch.device
) -> Classifier:
    """The classifier of a trained network, which is changed in place. Raises BadOption where it is no classifier's."""
    if not isinstance(network, ClassifierNet):
        raise BadOption(f"architecture {architecture!r} is no classifier; use {', '.join(CLASSIFIERS)}")
    return PatchClassifier(network, mpp=mpp, mean=normalisation.mean, std=normalisation.std, device=device)


def save_bundle(bundle: Bundle, state_dict: Mapping[str, torch.Tensor], folder: Path | str) -> str:
    """Write weights.safetensors and bundle.json into `folder`; returns the digest. Same content, same bytes.

    Raises BadModel for weights that `load_bundle` would refuse.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    _check_weights(state, bundle, str(folder))
    weights = safetensors.torch.save(state)
    card = (json.dumps(bundle.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CARD_FILE).write_bytes(card)
    return digest(weights, card)


def most_weights_bytes(card: bytes, where: str) -> int:
    """The most bytes that the weights of a card's architecture can take as a file. Raises BadModel."""
    expected = _expected(_card(card, where), where)
    return sum(shape.numel() * dtype.itemsize for shape, dtype in expected.values()) + MOST_HEADER_BYTES


def parse_bundle(weights: bytes, card: bytes, where: str) -> Bundle:
    """The bundle in the two files' bytes; `where` names it in errors. Raises BadModel."""
    known = _card(card, where)
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadModel(f"{where}: {WEIGHTS_FILE} is truncated or not safetensors ({error}); copy it again") from error
    _check_weights(state, known, where)
    return Bundle(**dict(known), digest=digest(weights, card), weights=state)


def digest(weights: bytes, card: bytes) -> str:
    """sha256, hex, over the weights file followed by the JSON file."""
    return hashlib.sha256(weights + card).hexdigest()


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    if any(fault["loc"] == ("schema_version",) for fault in faults):
        return f"its schema_version is not {SCHEMA_VERSION}; use the mitoray version that wrote it, or convert it"
    listed = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in faults)
    return f"{listed}; correct or export it again"


def _parts(card: Card) -> list[tuple[str, Member]]:
    """The networks in a bundle, each with what its weights' names begin with."""
    if card.architecture == ENSEMBLE:
        return [(f"{place}.", member) for place, member in enumerate(card.members)]
    settings, normalisation = card.settings, card.normalisation
    return [
        ("", Member(name=card.name, architecture=card.architecture, settings=settings, normalisation=normalisation))
    ]


def _check_members(card: Card, where: str) -> None:
    if len(card.members) > MOST_MEMBERS:
        raise BadModel(f"{where}: an ensemble of {len(card.members)}; at most {MOST_MEMBERS} are loaded")
    if bool(card.members) != (card.architecture == ENSEMBLE) or (card.members and card.settings):
        raise BadModel(f"{where}: an ensemble, and nothing else, has members, and settings of its own it has none")
    if others := [member.name for member in card.members if member.architecture not in CLASSIFIERS]:
        raise BadModel(f"{where}: member {others[0]} is no classifier; members are {', '.join(CLASSIFIERS)}")
    if card.combination and len(card.combination.weights) != len(_parts(card)):
        raise BadModel(
            f"{where}: its combination weighs {len(card.combination.weights)} classifiers and it holds "
            f"{len(_parts(card))}; give each one weight"
        )


def _card(card: bytes, where: str) -> Card:
    try:
        return Card.model_validate_json(card)
    except ValidationError as error:
        raise BadModel(f"{where}: {CARD_FILE} is not valid: {_faults(error)}") from error


def _expected(card: Card, where: str) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor that the architecture has, by name. Raises BadModel."""
    _check_members(card, where)
    expected: dict[str, tuple[torch.Size, torch.dtype]] = {}
    sides_px = set()
    try:
        with torch.device("meta"):  # shapes are enough: nothing is allocated, whatever the settings ask for
            for prefix, part in _parts(card):
                network = built(part.architecture, part.settings)
                expected |= {prefix + name: (t.shape, t.dtype) for name, t in network.state_dict().items()}
                sides_px.add(getattr(network, "patch_px", 0))
    except BadOption as error:
        raise BadModel(f"{where}: {error}") from error
    if len(sides_px) > 1:
        raise BadModel(f"{where}: its members take patches of {min(sides_px)} and {max(sides_px)} px; use one size")
    return expected


def _check_weights(state: Mapping[str, torch.Tensor], card: Card, where: str) -> None:
    expected = _expected(card, where)
    found = {name: (t.shape, t.dtype) for name, t in state.items()}
    if found != expected:
        names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise BadModel(
            f"{where}: weights do not fit architecture {card.architecture!r}: {len(names)} tensors differ, "
            f"first {names[0]!r}; check that weights and JSON belong together"
        )
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise BadModel(
            f"{where}: weights hold NaN or infinity, first in {broken[0]!r}; train or export the model again"
        )
