"""RetinaNet and FCOS, torchvision's, set up for cells of one size; and the detector around them."""

from collections import OrderedDict
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from mitoray.errors import BadOption
from mitoray.models.bands import bands
from mitoray.models.detector import SUPPRESSION_RADIUS_UM, Points, checked_images, suppress
from mitoray.models.inputs import Normaliser
from mitoray.models.layers import fold_norms
from mitoray.models.passes import PassSize

BOX_PX: Final = 50
BOX_MPP: Final = 0.25
"""Side of a labelled box, and the µm/px that it is stated at (Aubreville et al. 2023, Methods)."""

_MULTIPLE_PX: Final = 32
"""Images are padded to whole cells of the coarsest features, so that each cell lies where its anchors are."""
_CONTEXT_PX: Final = 160
"""Within which all but 1.4 % of what an anchor sees lies, at level 4; scores there differ by less than 0.002."""
_ROWS_PX: Final = {"cpu": 2**21, "cuda": 2**25}
"""Pixels in one forward pass: about 1 GiB of float32 activations on a CPU."""
_BYTES_PER_PX: Final = 256
"""What a pass takes of a GPU's memory."""


def retinanet(level: int = 4, channels: int = 256, box_px: int = BOX_PX) -> "BoxNet":
    """RetinaNet (Lin et al. 2017) as MIDOG++ sets it up (Aubreville et al. 2023, Technical Validation).

    ResNet-18, one pyramid level of stride 2**level px (level 4: 32 by 32 cells for 512 px), three scales a third of an
    octave apart around `box_px`, one aspect ratio, focal loss and smooth L1. Batch norm in the heads lets it train from
    scratch; group norm, usual there, would let all of an image have a say in each score, glass as well.
    """
    _check(channels, box_px)
    backbone = _OneLevel(level, channels)
    scales = tuple(round(box_px * 2 ** (third / 3)) for third in (-1, 0, 1))
    head = RetinaNetHead(channels, num_anchors=len(scales), num_classes=1, norm_layer=nn.BatchNorm2d)
    head.regression_head._loss_type = "smooth_l1"
    anchors = AnchorGenerator(sizes=(scales,), aspect_ratios=((1.0,),))
    return BoxNet(RetinaNet(backbone, num_classes=1, anchor_generator=anchors, head=head), box_px)


def fcos(level: int = 4, channels: int = 256, box_px: int = BOX_PX) -> "BoxNet":
    """FCOS (Tian et al. 2019) on ResNet-18 with one pyramid level of stride 2**level px: no anchors, a centre-ness.

    Batch norm in the heads, as in `retinanet`.
    """
    _check(channels, box_px)
    backbone = _OneLevel(level, channels)
    anchors = AnchorGenerator(sizes=((2**level,),), aspect_ratios=((1.0,),))  # one a cell: places, not shapes
    head = FCOSHead(channels, num_anchors=1, num_classes=1)
    head.classification_head = FCOSClassificationHead(channels, 1, num_classes=1, norm_layer=nn.BatchNorm2d)
    head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=nn.BatchNorm2d)
    return BoxNet(FCOS(backbone, num_classes=1, anchor_generator=anchors, head=head), box_px)


def _check(channels: int, box_px: int) -> None:
    if not 32 <= channels <= 1024 or channels % 32:
        raise BadOption(f"channels {channels} must be a multiple of 32, from 32 to 1024")
    if not 8 <= box_px <= 512:
        raise BadOption(f"box_px {box_px} lies outside 8 to 512 px")


class _OneLevel(nn.Module):
    """ResNet-18 and the top-down path of a feature pyramid (Lin et al. 2017) down to one level."""

    def __init__(self, level: int, channels: int) -> None:
        super().__init__()
        if level not in (3, 4, 5):
            raise BadOption(f"level {level} is not offered; use 3, 4 or 5: cells of 8, 16 or 32 px")
        body = resnet18(weights=None)
        self.stem = nn.Sequential(OrderedDict(conv1=body.conv1, bn1=body.bn1, relu=body.relu, maxpool=body.maxpool))
        self.layers = nn.ModuleList([body.layer1, body.layer2, body.layer3, body.layer4])
        self.lateral = nn.ModuleList([nn.Conv2d(64 * 2 ** (i - 2), channels, 1) for i in range(level, 6)])
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.level = level
        self.out_channels = channels

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        wanted = features[self.level - 2 :]
        top = self.lateral[-1](wanted[-1])
        for lateral, feature in zip(list(self.lateral)[-2::-1], wanted[-2::-1], strict=True):
            top = lateral(feature) + F.interpolate(top, size=feature.shape[-2:], mode="nearest")
        return {"0": self.smooth(top)}


class BoxNet(nn.Module):
    """One of torchvision's single-stage detectors: normalised images to scored centres, or to a loss."""

    _model: RetinaNet | FCOS

    def __init__(self, model: RetinaNet | FCOS, box_px: int) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.box_px = box_px
        object.__setattr__(
            self, "_model", model
        )  # its parts are ours already: not a second child with the same weights

    @property
    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """From the body to the head: what learns slowly, and what learns fast."""
        layers = list(self.backbone.layers)
        return (
            (self.backbone.stem, *layers[:2]),
            tuple(layers[2:]),
            (self.backbone.lateral, self.backbone.smooth, self.head),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Centres (n, a, 2), px as (x, y), and scores (n, a) in [0, 1], float32, of each anchor."""
        outputs, anchors, _ = self._heads(_padded(x))
        scores = outputs["cls_logits"].float().sigmoid()[..., 0]
        regression = outputs["bbox_regression"].float()
        if isinstance(self._model, FCOS):
            scores = (scores * outputs["bbox_ctrness"].float().sigmoid()[..., 0]).sqrt()
            boxes = torch.stack([self._model.box_coder.decode(r, a) for r, a in zip(regression, anchors, strict=True)])
        else:
            boxes = torch.stack(
                [self._model.box_coder.decode_single(r, a) for r, a in zip(regression, anchors, strict=True)]
            )
        return (boxes[..., :2] + boxes[..., 2:]) / 2 - 0.5, scores

    def loss(self, x: torch.Tensor, centres_px: torch.Tensor) -> torch.Tensor:
        """Sum of the losses of class, box and centre-ness. centres_px: (n, k, 2), NaN for none."""
        height, width = x.shape[-2:]
        outputs, anchors, n_cells = self._heads(_padded(x))
        outputs = {name: value.float() for name, value in outputs.items()}
        targets = []
        for points in centres_px:
            inside = ((points >= 0) & (points <= points.new_tensor([width - 1, height - 1]))).all(-1)
            middle = points[inside] + 0.5
            boxes = torch.cat([middle - self.box_px / 2, middle + self.box_px / 2], dim=1)
            targets.append({"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64, device=x.device)})
        rest = ([n_cells],) if isinstance(self._model, FCOS) else ()
        losses: dict[str, torch.Tensor] = self._model.compute_loss(targets, outputs, anchors, *rest)
        return torch.stack(list(losses.values())).sum()

    def _heads(self, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], int]:
        features = list(self.backbone(x).values())
        images = ImageList(x, [(x.shape[-2], x.shape[-1])] * len(x))
        # Anchors have their features' precision: in 16 bits a place would be met to a few px only.
        anchors = self._model.anchor_generator(images, [feature.float() for feature in features])
        return self.head(features), anchors, features[0].shape[-2:].numel()


def _padded(x: torch.Tensor) -> torch.Tensor:
    bottom, right = (-size % _MULTIPLE_PX for size in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom))


class BoxDetector:
    """A trained `BoxNet` as a detector: uint8 images in, points out."""

    def __init__(
        self,
        network: BoxNet,
        *,
        mpp: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
    ) -> None:
        """`mean` and `std` of the channels are in units of 0 to 255; the network is fused in place."""
        self.mpp = mpp
        self.halo_um = _CONTEXT_PX * mpp
        self.device = device
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        fold_norms(network.eval().requires_grad_(False))
        self._network = network.to(device, dtype).to(memory_format=torch.channels_last)
        self._normalised = Normaliser(mean, std, device, dtype)
        self._pass = PassSize(device, _ROWS_PX[device.type], _BYTES_PER_PX)

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:
        """Points that score at least `threshold`: see `Detector.detect`."""
        checked_images(images, threshold)
        return [self._pass.run(partial(self._detect_one, image[None], threshold)) for image in images]

    def _detect_one(self, image: torch.Tensor, threshold: float, pixels: int) -> Points:
        found = []
        for band in bands(image.shape[2], image.shape[3], pixels, _MULTIPLE_PX, _CONTEXT_PX):
            with torch.inference_mode():
                centres, scores = self._network(self._normalised(image[:, :, band.start : band.stop]))
                kept = scores[0] >= threshold
                xy_px, scores = centres[0][kept].cpu().numpy(), scores[0][kept].cpu().numpy()
            xy_px[:, 1] += band.start
            across, down = xy_px.T
            owned = (band.top - 0.5 <= down) & (down < band.bottom - 0.5)
            owned &= (across >= -0.5) & (across < image.shape[3] - 0.5)  # what was padded gives answers too
            found.append((xy_px[owned], scores[owned]))
        xy_px, scores = (np.concatenate(parts).astype(np.float32) for parts in zip(*found, strict=True))
        return suppress(xy_px, scores, SUPPRESSION_RADIUS_UM / self.mpp)
