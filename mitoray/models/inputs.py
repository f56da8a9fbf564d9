"""What networks see of images: their channels, normalised, where the network stands."""

from collections.abc import Sequence

import torch


class Normaliser:
    """Takes off the mean of each channel and divides by its standard deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        """`mean` and `std` of R, G, B are in units of 0 to 255."""
        self._device = device
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, device=device).view(3, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3, h, w), channels last, on the device, of images uint8 (n, 3, h, w)."""
        x = images.to(self._device).to(torch.float32, memory_format=torch.channels_last)
        return x.sub_(self._mean).div_(self._std)
