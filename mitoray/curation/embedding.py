"""What a classifier makes of cells before it judges them: the features that its heads read."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mitoray.errors import BadLabels, BadModel
from mitoray.models import Bundle
from mitoray.models.architectures import built
from mitoray.models.classifiers import ClassifierNet
from mitoray.models.inputs import Normaliser
from mitoray.models.placement import placed
from mitoray.training.crops import crop_images
from mitoray.training.patches import centred

_BATCH: Final = 256


class Embedder:
    """A classifier's network up to its heads.

    mpp: µm/px; patch_px: side of what it sees. network: still trainable, its batch norms not folded.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        """Raises BadModel for a bundle that is no single classifier, BadOption for a device that is not there."""
        network = built(bundle.architecture, bundle.settings) if bundle.is_classifier and not bundle.members else None
        if not isinstance(network, ClassifierNet):
            raise BadModel(f"model {bundle.name} is no single classifier, which embedding takes. Give one's bundle.")
        network.load_state_dict(dict(bundle.weights))
        self.device = placed(device, None)
        self.network = network.to(self.device).eval()
        self.mpp, self.patch_px = bundle.mpp, network.patch_px
        self.normalised = Normaliser(bundle.normalisation.mean, bundle.normalisation.std, self.device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, d) of patches uint8 (n, 3, patch_px, patch_px), as the network now stands."""
        found: torch.Tensor = self.network.encoder(self.normalised(images))
        return found

    def embed(self, images: torch.Tensor) -> NDArray[np.float32]:
        """float32 (n, d), each of length 1: of the middles of crops uint8 (n, 3, s, s), s at least patch_px.

        The mean over the eight flips and turns, for the same cell may lie either way.
        """
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for batch in torch.split(centred(images, self.patch_px), _BATCH):
                views = [self.features(view) for view in _eight(batch)]
                parts.append(F.normalize(torch.stack(views).mean(0), dim=1).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def readable(crops: pa.Table, mpp: float, side_px: int, least_px: int) -> tuple[pa.Table, torch.Tensor, dict[str, str]]:
    """The crops that can be read, their images uint8 (n, 3, s, s) at `mpp` µm/px, and why others cannot, by crop_id.

    s is `side_px`, or less where a crop is smaller, but at least `least_px`.
    """
    images, kept, failed = [], [], dict[str, str]()
    for number, crop_id in enumerate(crops["crop_id"].to_pylist()):
        try:
            images.append(crop_images(crops.slice(number, 1), mpp, side_px, least_px))
            kept.append(number)
        except BadLabels as error:
            failed[str(crop_id)] = str(error)
    if not images:
        return crops.slice(0, 0), torch.empty(0, 3, side_px, side_px, dtype=torch.uint8), failed
    side = min(image.shape[-1] for image in images)
    return crops.take(pa.array(kept)), torch.cat([centred(image, side) for image in images]), failed


def _eight(images: torch.Tensor) -> Iterator[torch.Tensor]:
    for flipped in (images, images.flip(-1)):
        for turns in range(4):
            yield torch.rot90(flipped, turns, (-2, -1)).contiguous()
