"""Trains a classifier's features on, so that cells of one class lie together (Khosla et al. 2020)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from mitoray.curation.embedding import Embedder
from mitoray.errors import BadOption
from mitoray.training.augment import Augmentation, augment
from mitoray.training.patches import Patches, centred

_WEIGHT_DECAY: Final = 1e-4


@dataclass(frozen=True)
class Contrast:
    """How the features are trained on.

    Args:
        epochs: times that every cell is shown, in two views; 0 takes the features as they are. More make labels agree
            with the network's view of them, wrong ones too, so few are best where wrong ones are looked for.
        batch_size: cells per step, equally many of each class.
        learning_rate: of Adam.
        temperature: of the loss, 0.1 as published (Khosla et al. 2020, §4.4).
        projection: length of what the loss sees: a linear layer's, which is thrown away (Khosla et al. 2020, §3.1).
        seed: of sampling, augmentation and that layer.
    """

    epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-4
    temperature: float = 0.1
    projection: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 4 or self.projection < 2:
            raise BadOption("epochs must be 0 or more, batch_size 4 or more, projection 2 or more.")
        if not (0 < self.temperature <= 10 and 0 < self.learning_rate <= 1):
            raise BadOption("temperature must lie above 0, at most 10; learning_rate above 0, at most 1.")


def supervised_contrastive_loss(features: torch.Tensor, classes: torch.Tensor, temperature: float) -> torch.Tensor:
    """The loss L_out of Khosla et al. 2020, equation 2: a mean over the views that have another one of their class.

    features: (n, d) of length 1; classes: int (n,). 0 where no view has another of its class.
    """
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    logits = (features @ features.T / temperature).masked_fill(own, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    positive = (classes[:, None] == classes[None]) & ~own
    n_positive = positive.sum(1)
    of_views = log_share.masked_fill(~positive, 0).sum(1) / n_positive.clamp(min=1)
    return -of_views.sum() / (n_positive > 0).sum().clamp(min=1)


def train_on(
    embedder: Embedder,
    images: torch.Tensor,
    codes: NDArray[np.int64],
    how: Contrast,
    augmentation: Augmentation,
    done: Callable[[], object] = lambda: None,
) -> list[Mapping[str, float]]:
    """Train the embedder's encoder on, in place; each epoch's number and mean loss.

    images: uint8 (n, 3, s, s), s at least patch_px; codes: the cells' classes, 0, 1, …; done: called after each epoch.
    """
    if not how.epochs:
        return []
    rng = np.random.default_rng(how.seed)
    classes = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    encoder = embedder.network.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        projection = nn.Linear(embedder.network.mitosis.in_features, how.projection).to(embedder.device)
    learnt = [*encoder.parameters(), *projection.parameters()]
    optimiser = torch.optim.Adam(learnt, how.learning_rate, weight_decay=_WEIGHT_DECAY)
    history: list[Mapping[str, float]] = []
    steps = max(1, len(codes) // how.batch_size)
    for epoch in range(how.epochs):
        losses = []
        encoder.train()
        for _ in range(steps):
            chosen = _balanced(classes, how.batch_size, rng)
            views = [_view(images, chosen, embedder, augmentation, rng) for _ in range(2)]
            seen = F.normalize(projection(embedder.features(torch.cat(views))).float(), dim=1)
            known = torch.from_numpy(np.tile(codes[chosen], 2)).to(seen.device)
            loss = supervised_contrastive_loss(seen, known, how.temperature)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        history.append({"epoch": float(epoch + 1), "loss": float(np.mean(losses))})
        done()
    encoder.eval()
    return history


def _balanced(classes: Sequence[NDArray[np.int64]], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`n` cells, of each class as many, give or take one."""
    share = -(-n // len(classes))
    drawn = [rng.choice(members, share, replace=len(members) < share) for members in classes]
    return rng.permutation(np.concatenate(drawn))[:n]


def _view(
    images: torch.Tensor,
    chosen: NDArray[np.int64],
    embedder: Embedder,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> torch.Tensor:
    """The cells as another scanner might show them, with the middle that the network sees."""
    cells = images[torch.from_numpy(chosen)].to(embedder.device)
    nowhere = torch.zeros(len(chosen), 0, 2, device=cells.device)
    return centred(augment(Patches(cells, nowhere), rng, augmentation).images, embedder.patch_px)
