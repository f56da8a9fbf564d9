"""What networks see of images: their channels, normalised, where the network stands."""

from collections.abc import Sequence

import torch


class Normaliser:
    """Takes off the mean of each channel and divides by its standard deviation."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`mean` and `std` of R, G, B are in units of 0 to 255. dtype: that the network takes."""
        self._device, self._dtype = device, dtype
        self._mean = torch.tensor(mean, device=device, dtype=dtype).view(3, 1, 1)
        self._std = torch.tensor(std, device=device, dtype=dtype).view(3, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w), channels last, on the device, of images uint8 (n, 3, h, w).

        From pinned memory the copy does not wait for what the device does.
        """
        x = images.to(self._device, non_blocking=True).to(self._dtype, memory_format=torch.channels_last)
        return x.sub_(self._mean).div_(self._std)
