"""Random fields: the raw material of tissue outlines, fibres and chromatin."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

Field = NDArray[np.float32]


def periodic_noise(rng: np.random.Generator, shape: tuple[int, int], sigma_px: tuple[float, float]) -> Field:
    """Gaussian noise (float32, mean 0, sd 1) smoothed by `sigma_px` = (down, across), which tiles without a seam."""
    noise = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    down, across = fft.fftfreq(shape[0])[:, None] * sigma_px[0], fft.rfftfreq(shape[1]) * sigma_px[1]
    noise = fft.irfft2(noise * np.exp(-2 * np.pi**2 * (down**2 + across**2)).astype(np.float32), shape)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def smooth_field(rng: np.random.Generator, extent_um: tuple[float, float], scale_um: float) -> Field:
    """Coarse noise over `extent_um` = (height, width), two samples per `scale_um`; mean about 0, sd about 1."""
    shape = [int(np.ceil(length / scale_um * 2)) + 8 for length in extent_um]
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.0)[4:-4, 4:-4]
    return np.asarray(noise / 0.28, dtype=np.float32)


def enlarge(field: Field, shape: tuple[int, int], rows: tuple[float, float] | None = None) -> Field:
    """The field stretched to `shape` = (height, width), smoothly; of a field's `rows` only if given."""
    height, width = field.shape
    top, bottom = rows or (0, height)
    image = Image.fromarray(np.asarray(field, dtype=np.float32))
    kind = Image.Resampling.BICUBIC if shape[1] > 4 * width else Image.Resampling.BILINEAR
    return np.asarray(image.resize((shape[1], shape[0]), kind, box=(0, top, width, bottom)), dtype=np.float32)


def sample(field: Field, xy_um: NDArray[np.float64], extent_um: tuple[float, float]) -> Field:
    """Values of the field, which covers `extent_um` = (height, width), at (n, 2) points in µm."""
    height, width = field.shape
    rows = np.clip((xy_um[:, 1] / extent_um[0] * height).astype(int), 0, height - 1)
    columns = np.clip((xy_um[:, 0] / extent_um[1] * width).astype(int), 0, width - 1)
    return np.asarray(field[rows, columns])
