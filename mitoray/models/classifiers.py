"""Networks that classify patches around candidates, and the classifiers around them."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mitoray.errors import BadModel, BadOption
from mitoray.models.classifier import Classifier, Verdicts, checked_patches
from mitoray.models.inputs import Normaliser
from mitoray.models.layers import ConvNorm, Residual, fused

BATCH: Final = 512
"""Patches in one forward pass, so that a region crowded with candidates fits in memory."""

_DROPOUT: Final = 0.2
_PIXELS: Final = {"cpu": 2**18, "cuda": 2**23}
"""Pixels in one forward pass. On a CPU, what its caches hold of the small network's first layers."""


class ClassifierNet(nn.Module):
    """An encoder, a head for mitotic figure or not, and one for atypical or normal (after Fick et al. 2024, §2.4).

    patch_px: side of the patches that it was made for. subtype: None without that head.
    """

    def __init__(self, encoder: nn.Module, features: int, patch_px: int, subtypes: bool) -> None:
        """`encoder`: normalised patches (n, 3, s, s) to features (n, `features`)."""
        if not 32 <= patch_px <= 256 or patch_px % 16:
            raise BadOption(f"patch_px {patch_px} must be a multiple of 16, from 32 to 256")
        super().__init__()
        self.patch_px = patch_px
        self.encoder = encoder
        self.dropout = nn.Dropout(_DROPOUT)
        self.mitosis = nn.Linear(features, 1)
        self.subtype = nn.Linear(features, 1) if subtypes else None
        self._subtype_only = False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (n,) of mitotic figure, and of atypical, of normalised patches (n, 3, s, s)."""
        features = self.dropout(self.encoder(x))
        return self.mitosis(features)[:, 0], self.subtype(features)[:, 0] if self.subtype is not None else None

    def loss(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy of each task, a mean over what is known of it; their sum.

        targets: float32 (n, 2): 1 for a mitotic figure, 0 for none; 1 for atypical, 0 for normal; NaN for unknown.
        """
        mitosis, subtype = self(x)
        losses = [] if self._subtype_only else [_known_entropy(mitosis, targets[:, 0])]
        if subtype is not None:
            losses.append(_known_entropy(subtype, targets[:, 1]))
        return torch.stack(losses).sum()

    @property
    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """From the body to the head: what learns slowly, and what learns fast."""
        if self._subtype_only:
            return (self.encoder, self.mitosis), (self._subtype_head,)
        blocks = list(getattr(self.encoder, "features", self.encoder).children())
        heads = (self.mitosis,) if self.subtype is None else (self.mitosis, self.subtype)
        return tuple(blocks[: len(blocks) // 2]), tuple(blocks[len(blocks) // 2 :]), heads

    def subtype_only(self) -> "ClassifierNet":
        """Freeze all but the subtype head, which alone has a loss from now on. Raises BadOption where there is none."""
        self._subtype_head.requires_grad_(True)
        for module in (self.encoder, self.mitosis):
            module.requires_grad_(False)
        self._subtype_only = True
        return self.train(self.training)

    def train(self, mode: bool = True) -> "ClassifierNet":
        """As of any network; a frozen encoder stays in evaluation, for its batch norms would go on learning."""
        super().train(mode)
        if self._subtype_only:
            self.encoder.eval()
        return self

    def fuse(self) -> "ClassifierNet":
        """Fold the small network's batch norms into its convolutions, in place, for inference."""
        fused(self)
        return self

    @property
    def _subtype_head(self) -> nn.Linear:
        if self.subtype is None:
            raise BadOption("the network has no subtype head to train; build it with subtypes true")
        return self.subtype


def _known_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(0.0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def mitoray_c(patch_px: int = 64, subtypes: bool = True, width: float = 1.0) -> ClassifierNet:
    """The small fast one: a stem and four residual stages at strides 2 to 16 px. `width` multiplies the channels."""
    if not 0.25 <= width <= 4:
        raise BadOption(f"width {width} lies outside 0.25 to 4")
    channels = [max(8, round(n * width / 8) * 8) for n in (16, 32, 56, 104)]
    return ClassifierNet(_SmallEncoder(channels), 2 * channels[-1], patch_px, subtypes)


class _SmallEncoder(nn.Module):
    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Sequential(ConvNorm(3, channels[0], stride=2), Residual(channels[0]))]
        for before, after in pairwise(channels):
            stages.append(nn.Sequential(ConvNorm(before, after, stride=2), Residual(after)))
        self.features = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Means over the whole patch, and over its middle, where the candidate is."""
        x = self.features(x)
        height, width = x.shape[-2:]
        middle = x[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4]
        return torch.cat([x.mean((2, 3)), middle.mean((2, 3))], dim=1)


def _of_torchvision(name: str, head: str, features: int, patch_px: int = 64, subtypes: bool = True) -> ClassifierNet:
    """One of torchvision's networks, not pretrained, without its layer `head`: it ends in a global average pooling."""
    from torchvision.models import get_model  # takes seconds to import, which most runs need not wait for

    encoder: nn.Module = get_model(name, weights=None)
    setattr(encoder, head, nn.Identity())
    return ClassifierNet(encoder, features, patch_px, subtypes)


CLASSIFIERS: Final[dict[str, Callable[..., ClassifierNet]]] = {
    "mitoray-c": mitoray_c,
    "resnet18": partial(_of_torchvision, "resnet18", "fc", 512),
    "resnet50": partial(_of_torchvision, "resnet50", "fc", 2048),
    "densenet201": partial(_of_torchvision, "densenet201", "classifier", 1920),
    "efficientnet_b4": partial(_of_torchvision, "efficientnet_b4", "classifier", 1792),
}
"""How to build each without weights, from a bundle's settings as keywords."""


class PatchClassifier:
    """A trained `ClassifierNet` as a classifier: uint8 patches in, probabilities out."""

    def __init__(
        self,
        network: ClassifierNet,
        *,
        mpp: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
    ) -> None:
        """`mean` and `std` of the channels are in units of 0 to 255; the network is fused in place."""
        self.mpp = mpp
        self.patch_px = network.patch_px
        self.has_subtypes = network.subtype is not None
        self.device = device
        self._network = network.fuse().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self._normalised = Normaliser(mean, std, device)

    def classify(self, patches: torch.Tensor) -> Verdicts:
        """See `Classifier.classify`."""
        checked_patches(patches, self.patch_px)
        size = max(1, min(BATCH, _PIXELS[self.device.type] // self.patch_px**2))
        parts = [self._probabilities(batch) for batch in torch.split(patches, size)] if len(patches) else []
        both = np.concatenate([np.empty((0, 2), np.float32), *parts])
        return Verdicts(both[:, :1], both[:, 1])

    def _probabilities(self, patches: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            x = self._normalised(patches)
            with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
                mitosis, subtype = self._network(x)
            atypical = torch.full_like(mitosis, torch.nan) if subtype is None else subtype
            found: np.ndarray = torch.stack([mitosis, atypical], dim=1).float().sigmoid_().cpu().numpy()
        return found


class EnsembleClassifier:
    """Several classifiers that look at the same patches."""

    def __init__(self, members: Sequence[Classifier], weights: Sequence[float]) -> None:
        """`weights`: of the members in the mean that the atypical probability is; of those with a subtype head.

        Raises BadModel where members differ in µm/px or in the side of their patches.
        """
        first = members[0]
        if unequal := sorted({member.mpp for member in members} - {first.mpp}):
            raise BadModel(
                f"members of one ensemble take {first.mpp:g} and {unequal[0]:g} µm/px; train them at one resolution"
            )
        if others := sorted({member.patch_px for member in members} - {first.patch_px}):
            raise BadModel(f"members of one ensemble take patches of {first.patch_px} and {others[0]} px; use one size")
        self.mpp, self.patch_px, self.device = first.mpp, first.patch_px, first.device
        self.has_subtypes = any(member.has_subtypes for member in members)
        self._members = members
        of_subtypes = np.array([w * m.has_subtypes for w, m in zip(weights, members, strict=True)], np.float32)
        if not of_subtypes.any():  # those that tell subtypes have no say in mitosis: each has the same in subtypes
            of_subtypes = np.array([member.has_subtypes for member in members], np.float32)
        self._of_subtypes = of_subtypes

    def classify(self, patches: torch.Tensor) -> Verdicts:
        """See `Classifier.classify`."""
        checked_patches(patches, self.patch_px)
        patches = patches.to(self.device)
        verdicts = [member.classify(patches) for member in self._members]
        of_members = np.concatenate([verdict.members for verdict in verdicts], axis=1)
        if not self.has_subtypes:
            return Verdicts(of_members, np.full(len(patches), np.nan, np.float32))
        atypical = np.stack([verdict.atypical for verdict in verdicts], axis=1)
        asked = self._of_subtypes > 0
        return Verdicts(of_members, np.average(atypical[:, asked], axis=1, weights=self._of_subtypes[asked]))
