"""The colours of tissue, which a network's input is normalised by."""

from collections.abc import Iterable

import torch

from mitoray.errors import BadOption
from mitoray.models import Normalisation
from mitoray.slide.segmentation import GLASS_BRIGHTNESS, GLASS_CHROMA


def tissue_statistics(images: Iterable[torch.Tensor]) -> Normalisation:
    """Mean and standard deviation of R, G, B over all tissue pixels of the training images, 0 to 255.

    images: uint8 (n, 3, h, w) each, of any size and device, looked at one after another. A pixel is glass if it is
    bright and has no colour; glass does not count. Exact, from histograms. MIDOG++ normalises by these (Aubreville et
    al. 2023, Methods).
    Errors: BadOption if there is no tissue, or all of it has one value in a channel.
    """
    histogram = torch.zeros(3, 256, dtype=torch.int64)
    for batch in images:
        darkest, brightest = batch.amin(dim=1), batch.amax(dim=1)
        tissue = (darkest <= GLASS_BRIGHTNESS) | (brightest - darkest >= GLASS_CHROMA)
        for channel in range(3):
            histogram[channel] += torch.bincount(batch[:, channel][tissue], minlength=256).cpu()
    if not (histogram > 0).sum(dim=1).gt(1).all():
        raise BadOption(
            f"{int(histogram[0].sum())} pixels of tissue, of one value in some channel, give no standard deviation to "
            "normalise by. Give training images that show stained tissue."
        )
    weight = histogram.double() / histogram.sum(dim=1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64)
    mean = weight @ value
    std = (weight * (value - mean[:, None]) ** 2).sum(dim=1).sqrt()
    (r, g, b), (r_std, g_std, b_std) = mean.tolist(), std.tolist()
    return Normalisation(mean=(r, g, b), std=(r_std, g_std, b_std))
