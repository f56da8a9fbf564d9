"""A small fully convolutional network that draws a heat-map of figure centres, and the detector around it."""

from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mitoray.errors import BadOption
from mitoray.models.bands import bands
from mitoray.models.cpu_inference import IntegerHeatmapNet, integer_network
from mitoray.models.detector import SUPPRESSION_RADIUS_UM, Points, checked_images, suppress
from mitoray.models.inputs import Normaliser
from mitoray.models.layers import ConvNorm, Residual, fused
from mitoray.models.passes import PassSize
from mitoray.models.placement import inference_dtype

_COARSEST_STRIDE: Final = 4
"""Stride of the coarsest features in cells of the heat-map."""
_CONTEXT: Final = 28
"""No pixel further than this many cells from a cell reaches it, in whole steps of the coarsest stride."""

_BAND_PX: Final = {"cpu": 5 * 2**20, "cuda": 2**26}
"""Pixels in one forward pass: about 0.3 GiB of float32 activations on a CPU, 3 GiB of float16 on a GPU. On a CPU more
go into one where activations are smaller, since what bands must see of each other is computed twice."""
_BYTES_PER_PX: Final = 48
"""What a pass takes of a GPU's memory."""


class HeatmapNet(nn.Module):
    """Centre heat-map from features at one, two and four times its stride. After Zhou et al. 2019, §3, without offsets:
    at stride 4 and 0.25 µm/px a cell is 1 µm wide, a sixth of the radius in which a detection matches a label.

    Cell (i, j) of the heat-map is centred on image pixel (x, y) = (stride j, stride i).
    """

    def __init__(self, width: float = 1.0, stride: int = 4, sigma_cells: float = 1.5) -> None:
        """`width` multiplies the channels, 24 to 96 of them; `stride` is 2 or 4 px.

        sigma_cells: of the bump that training draws around a figure.
        """
        if stride not in (2, 4):
            raise BadOption(f"stride {stride} is not offered; use 2 or 4")
        if not 0.25 <= sigma_cells <= 8:
            raise BadOption(f"sigma_cells {sigma_cells} lies outside 0.25 to 8")
        if not 0.25 <= width <= 4:
            raise BadOption(f"width {width} lies outside 0.25 to 4")
        super().__init__()
        self.stride_px = stride
        self.sigma_cells = sigma_cells
        stem, fine, middle, coarse = (max(8, round(n * width / 8) * 8) for n in (24, 48, 72, 96))
        self.fine = nn.Sequential(ConvNorm(3, stem, stride=stride // 2), ConvNorm(stem, fine, stride=2), Residual(fine))
        self.middle = nn.Sequential(ConvNorm(fine, middle, stride=2), Residual(middle))
        self.coarse = nn.Sequential(ConvNorm(middle, coarse, stride=2), Residual(coarse))
        self.lateral_middle = nn.Conv2d(middle, fine, 1)
        self.lateral_coarse = nn.Conv2d(coarse, fine, 1)
        self.smooth_middle = ConvNorm(fine, fine)
        self.smooth_fine = ConvNorm(fine, fine)
        self.centre = nn.Conv2d(fine, 1, 1)
        with torch.no_grad():  # a prior of 1 %: the many empty cells must not drown the first steps
            self.centre.bias.fill_(-4.6)  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 1, ceil(h / stride), ceil(w / stride)) of normalised images (n, 3, h, w)."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.smooth_middle(_add_coarser(self.lateral_middle(middle), self.lateral_coarse(coarse)))
        features = self.smooth_fine(_add_coarser(fine, middle))
        logits: torch.Tensor = self.centre(features.to(self.centre.weight.dtype))
        return logits

    def loss(self, x: torch.Tensor, centres_px: torch.Tensor) -> torch.Tensor:
        """Focal loss of the heat-map. centres_px: (n, k, 2), px as (x, y), NaN for none."""
        logits = self(x)[:, 0].float()
        cells = logits.shape[1], logits.shape[2]
        return focal_loss(logits, centre_targets(centres_px, cells, self.stride_px, self.sigma_cells))

    @property
    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """From the body to the head: what learns slowly, and what learns fast."""
        head = (self.lateral_middle, self.lateral_coarse, self.smooth_middle, self.smooth_fine, self.centre)
        return (self.fine,), (self.middle, self.coarse), head

    def for_inference(self, dtype: torch.dtype) -> "HeatmapNet":
        """Fold the batch norms into their convolutions, and take `dtype` for all but the logits, in place.

        Logits of few bits would give flat tops, on which a peak has no place.
        """
        fused(self)
        self.to(dtype)
        self.centre.to(torch.float32)
        return self


def _add_coarser(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    height, width = fine.shape[-2:]
    return fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest")[..., :height, :width]


def centre_targets(
    centres_px: torch.Tensor, cells: tuple[int, int], stride_px: int, sigma_cells: float
) -> torch.Tensor:
    """Heat-maps (n, rows, columns) with a Gaussian bump, 1 at its cell, for each figure whose cell is in the view.

    centres_px: float32 (n, k, 2), NaN for none. Bumps of figures just beyond the view reach into it.
    """
    peak = (centres_px / stride_px).round()
    row, column = (torch.arange(n, dtype=torch.float32, device=peak.device) for n in cells)
    dx, dy = column - peak[..., 0, None], row - peak[..., 1, None]
    bumps = torch.exp(-(dy[..., :, None] ** 2 + dx[..., None, :] ** 2) / (2 * sigma_cells**2))
    return bumps.nan_to_num(0.0).amax(dim=1)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Penalty-reduced focal loss per figure (Zhou et al. 2019, eq. 1; alpha 2, beta 4). Shapes (n, rows, columns)."""
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    at_peak = targets == 1
    loss = torch.where(at_peak, log_q.exp() ** 2 * log_p, (1 - targets) ** 4 * log_p.exp() ** 2 * log_q)
    return -loss.sum() / at_peak.sum().clamp(min=1)


class HeatmapDetector:
    """A trained heat-map network as a detector: uint8 images in, points out.

    Where the CPU multiplies 8-bit integers the network runs in those, where only bfloat16 in that, else in float32:
    see `cpu_inference` for how far scores then lie from those of float32. On a GPU it runs in float16.
    """

    def __init__(
        self,
        network: HeatmapNet,
        *,
        mpp: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        integers: bool = True,
    ) -> None:
        """`mean` and `std` of the channels are in units of 0 to 255; the network is fused in place.

        integers: whether a CPU may run it in 8-bit integers.
        """
        self.mpp = mpp
        self.halo_um = 16 * network.stride_px * mpp
        self.device = device
        self._stride_px = network.stride_px
        network = network.for_inference(torch.float32).requires_grad_(False)
        self._dtype = inference_dtype(device)
        self._network = (integer_network(network, mean, std) if integers and device.type == "cpu" else None) or (
            network.for_inference(self._dtype).to(device).to(memory_format=torch.channels_last)
        )
        # In bfloat16 a mean would be off by up to half a grey level; float16 is eight times as fine.
        self._normalised = Normaliser(mean, std, device, torch.float16 if device.type == "cuda" else torch.float32)
        self._pass = PassSize(device, self._most_px, _BYTES_PER_PX)

    def detect(self, images: torch.Tensor, threshold: float) -> list[Points]:
        """Points that score at least `threshold`: see `Detector.detect`."""
        checked_images(images, threshold)
        if len(images) == 0:
            return []
        return self._pass.run(lambda pixels: self._detect_all(images, threshold, pixels))

    def _detect_all(self, images: torch.Tensor, threshold: float, pixels: int) -> list[Points]:
        size = max(1, pixels // (images.shape[2] * images.shape[3]))
        return [p for batch in torch.split(images, size) for p in self._detect_batch(batch, threshold, pixels)]

    def heatmap(self, images: torch.Tensor) -> torch.Tensor:
        """Scores in [0, 1], float32 (n, ceil(h / stride), ceil(w / stride)), of images uint8 (n, 3, h, w)."""
        return self._pass.run(lambda pixels: self._heatmap(images, pixels))

    def _heatmap(self, images: torch.Tensor, pixels: int) -> torch.Tensor:
        stride, n, (height, width) = self._stride_px, len(images), images.shape[2:]
        with torch.inference_mode():
            rows = [
                self._logits(images[:, :, band.start : band.stop])[
                    :, (band.top - band.start) // stride : -(-(band.bottom - band.start) // stride)
                ]
                for band in bands(height, width, pixels // n, _COARSEST_STRIDE * stride, _CONTEXT * stride)
            ]
            return torch.cat(rows, dim=1).sigmoid_()

    @property
    def _most_px(self) -> int:
        pixels = _BAND_PX[self.device.type]
        if self.device.type == "cuda":
            return pixels
        return pixels * 4 // (1 if isinstance(self._network, IntegerHeatmapNet) else self._dtype.itemsize)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        of_integers = isinstance(self._network, IntegerHeatmapNet)
        x = images.to(self.device) if of_integers else self._normalised(images).to(self._dtype)
        logits: torch.Tensor = self._network(x)
        return logits[:, 0].float()

    def _detect_batch(self, images: torch.Tensor, threshold: float, pixels: int) -> list[Points]:
        with torch.inference_mode():
            heat = self._heatmap(images, pixels)
            peaks = (heat == F.max_pool2d(heat[:, None], 3, stride=1, padding=1)[:, 0]) & (heat >= threshold)
            where = peaks.nonzero()  # the device is waited for here, and once more for all that is known of the peaks
            found = torch.column_stack([where, heat[where.unbind(1)]]).cpu().numpy()
            image, row, column, scores = found.T
        xy_px = np.stack([column, row], axis=1).astype(np.float32) * self._stride_px
        radius_px = SUPPRESSION_RADIUS_UM / self.mpp
        return [suppress(xy_px[image == i], scores[image == i], radius_px) for i in range(len(images))]
