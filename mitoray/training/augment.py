"""Random changes of a batch that other scanners, stains and file formats would make."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mitoray.errors import BadOption
from mitoray.training.augment_colour import ColourChange, recoloured
from mitoray.training.augment_exchange import exchange_gains, mean_density
from mitoray.training.augment_geometry import affine, followed, resized, turned, warped
from mitoray.training.augment_jpeg import compressed
from mitoray.training.augment_quality import at_low_resolution, blurred, fringed, noisy, sharpened
from mitoray.training.dice import Span, chosen, uniform_or
from mitoray.training.patches import Patches
from mitoray.training.randaugment import MAX_MAGNITUDE, SMOOTH_SIGMA_PX, draw_policy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Augmentation:
    """How often and how strongly an image is changed. Spans are uniform; px are of the resulting image.

    Args:
        turn_probability: of one of the eight flips and turns by 90°, exact.
        affine_probability: of rotation, scale and shear, in one bilinear resampling.
        rotation_degrees: to either side, on top of the turns (fastai's default, as MIDOG++ trains; Aubreville 2023).
        scale: size of the figures after by before (fastai's default). Above 1, nothing but rotation needs a margin.
        shear_degrees: to either side, along x and along y.
        exchange_probability: of being stained as another image of the batch, so that no colour goes with a class: for
            training sets in which a class comes from few slides.
        exchange_strength: how far, 1 for the other image's mean optical density.
        stain_probability: of jitter of the amounts of haematoxylin, eosin and DAB (Tellez et al. 2018).
        stain_scale: factor of each stain's amount; a little wider than HED-strong, 0.8 to 1.2, of Tellez et al. 2019.
        stain_shift: of each stain's amount, to either side, in units of natural optical density.
        density_probability: of staining, or scanning, the whole image darker or lighter.
        density: factor of all optical densities. Above 1.5 as dark as old scanners show it.
        saturation_probability: of stronger or weaker colours.
        saturation: factor.
        crosstalk_probability: of other colour filters.
        crosstalk: most that each channel takes from or gives to another, as a share; grey stays grey.
        gamma_probability: of another tone curve for each channel.
        gamma: power of the light of each channel.
        contrast_probability: of stretching around the mean grey.
        contrast: factor (fastai's max_lighting of 0.2, as MIDOG++ trains).
        brightness_probability: of making the image lighter or darker.
        brightness: grey values of 255 added or taken.
        tint_probability: of another white balance.
        tint: grey values added to or taken from each channel.
        randaugment_ops: random operations per image, after the above of the same kind (Faryna et al. 2021); 0 is none.
        randaugment_magnitude: their greatest strength, up to 10.
        blur_probability: of a blur, as out of focus.
        blur_sigma_px: of the Gaussian.
        fringe_probability: of colour fringes: red and blue a pixel aside, as lenses and line scanners leave them.
        noise_probability: of noise of the sensor, independent in each px and channel.
        noise_std: grey values.
        sharpen_probability: of an unsharp mask, as scanners sharpen, early ones strongly.
        sharpen_sigma_px: of the blurred image that it is made from.
        sharpen_amount: times the difference from the blurred image; 1 shows halos.
        low_resolution_probability: of being scanned more coarsely and brought back, sharpened and compressed there with
            the probabilities of `sharpen` and `jpeg`.
        low_resolution_factor: resolution after by before; 0.4 of 0.25 µm/px are 0.625 µm/px.
        half_resolution_share: of those images, the ones at exactly half, as a 20× objective beside a 40× one.
        jpeg_probability: of the losses of JPEG.
        jpeg_quality: on libjpeg's scale, whole numbers, both ends included.
        jpeg_subsampled_share: of those images, the ones with colour at half the resolution (4:2:0).

    Errors: BadOption for a probability outside 0 to 1, a span upside down, or a value out of its range.
    """

    turn_probability: float = 1.0
    affine_probability: float = 0.25
    rotation_degrees: float = 10.0
    scale: Span = (1.0, 1.1)
    shear_degrees: float = 5.0
    exchange_probability: float = 0.0
    exchange_strength: Span = (0.5, 1.2)
    stain_probability: float = 1.0
    stain_scale: Span = (0.75, 1.3)
    stain_shift: float = 0.03
    density_probability: float = 0.0
    density: Span = (0.6, 2.2)
    saturation_probability: float = 0.0
    saturation: Span = (0.5, 1.8)
    crosstalk_probability: float = 0.0
    crosstalk: float = 0.18
    gamma_probability: float = 0.2
    gamma: Span = (0.9, 1.1)
    contrast_probability: float = 1.0
    contrast: Span = (0.8, 1.25)
    brightness_probability: float = 1.0
    brightness: float = 18.0
    tint_probability: float = 1.0
    tint: float = 8.0
    randaugment_ops: int = 0
    randaugment_magnitude: float = 5.0
    blur_probability: float = 0.25
    blur_sigma_px: Span = (0.5, 1.5)
    fringe_probability: float = 0.0
    noise_probability: float = 0.1
    noise_std: Span = (1.0, 5.0)
    sharpen_probability: float = 0.1
    sharpen_sigma_px: Span = (0.5, 1.5)
    sharpen_amount: Span = (0.3, 1.5)
    low_resolution_probability: float = 0.3
    low_resolution_factor: Span = (0.4, 0.9)
    half_resolution_share: float = 0.5
    jpeg_probability: float = 0.3
    jpeg_quality: tuple[int, int] = (40, 95)
    jpeg_subsampled_share: float = 0.5

    def __post_init__(self) -> None:
        ranges: dict[str, Span] = {
            "rotation_degrees": (0, 180),
            "scale": (0.25, 4),
            "shear_degrees": (0, 45),
            "exchange_strength": (0, 2),
            "stain_scale": (0, 4),
            "stain_shift": (0, 1),
            "density": (0.1, 4),
            "saturation": (0, 4),
            "gamma": (0.1, 10),
            "contrast": (0, 4),
            "brightness": (0, 255),
            "tint": (0, 255),
            "randaugment_ops": (0, 20),
            "randaugment_magnitude": (0, MAX_MAGNITUDE),
            "blur_sigma_px": (0.1, 20),
            "noise_std": (0, 255),
            "sharpen_sigma_px": (0.1, 20),
            "sharpen_amount": (0, 10),
            "low_resolution_factor": (0.1, 1),
            "jpeg_quality": (1, 100),
        }
        for field in fields(self):
            low, high = ranges.get(field.name, (0, 1))
            value = getattr(self, field.name)
            ends = value if isinstance(value, tuple) else (value, value)
            if not low <= ends[0] <= ends[1] <= high:
                raise BadOption(f"{field.name} must lie between {low:g} and {high:g}, lower end first, not {value}.")

    @classmethod
    def none(cls, **settings: float | Span) -> "Augmentation":
        """Nothing but what `settings` ask for: all other probabilities are 0."""
        never = {field.name: 0.0 for field in fields(cls) if field.name.endswith("_probability")}
        return cls(**(never | settings))  # type: ignore[arg-type]


DEFAULT: Final = Augmentation()


def augment(
    batch: Patches, rng: np.random.Generator, how: Augmentation = DEFAULT, *, output_px: int | None = None
) -> Patches:
    """The batch changed as other laboratories and scanners would have it, each image on its own dice.

    The order is that of the light's way: tissue, stain, optics, sensor, firmware, file. All pixels are worked on where
    `batch.images` lies, and the input is left as it is. Deterministic given `rng`, on the same device. Same dtypes, and
    the same shapes but for `output_px`: the side of the resulting images, the same views at another resolution.
    Errors: BadOption for `output_px` below 8.
    """
    if output_px is not None and output_px < 8:
        raise BadOption(f"output_px must be at least 8, not {output_px}.")
    n = len(batch.images)
    turns = np.where(rng.random(n) < how.turn_probability, rng.integers(8, size=n), 0)
    images, centres_px = turned(batch.images, batch.centres_px, turns)
    policy = draw_policy(rng, n, how.randaugment_ops, how.randaugment_magnitude)
    x, centres_px = warped(images.float(), centres_px, followed(_geometry(rng, n, how), policy.geometry))
    x, centres_px = resized(x, centres_px, output_px or images.shape[-1])
    x = recoloured(x, _exchange(x, rng, how).followed_by(_colour(rng, n, how)).followed_by(policy.colour))
    x = _sharpened_as_drawn(x, np.full(n, SMOOTH_SIGMA_PX), policy.sharpness)
    x = _on(x, chosen(rng, n, how.blur_probability), lambda some: _blurred(some, rng, how))
    x = _on(
        x, chosen(rng, n, how.fringe_probability), lambda some: fringed(some, rng.integers(-1, 2, (len(some), 2, 2)))
    )
    x = _on(x, chosen(rng, n, how.noise_probability), lambda some: _noisy(some, rng, how))
    x = _sharpened(x, rng, how)
    x = _on(x, chosen(rng, n, how.low_resolution_probability), lambda some: _coarser(some, rng, how))
    x = _compressed(x, rng, how)
    return Patches(x.round().clamp_(0, 255).to(torch.uint8), centres_px, batch.targets)


def _geometry(rng: np.random.Generator, n: int, how: Augmentation) -> Floats:
    hit = (rng.random(n) < how.affine_probability)[:, None]
    turn = rng.uniform(-how.rotation_degrees, how.rotation_degrees, (n, 1))
    scale = rng.uniform(*how.scale, (n, 1))
    shear = np.tan(np.radians(rng.uniform(-how.shear_degrees, how.shear_degrees, (n, 2))))
    return affine(np.where(hit, turn, 0)[:, 0], np.where(hit, scale, 1)[:, 0], np.where(hit, shear, 0))


def _exchange(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> ColourChange:
    unchanged = ColourChange.none(len(x))
    if not how.exchange_probability:
        return unchanged
    gains = exchange_gains(*mean_density(x), rng, how.exchange_probability, how.exchange_strength)
    return unchanged.gamma(gains)


def _colour(rng: np.random.Generator, n: int, how: Augmentation) -> ColourChange:
    def either_side(probability: float, most: float, columns: int) -> Floats:
        return uniform_or(0, rng, n, probability, (-most, most), columns)

    stained = rng.random((n, 1)) < how.stain_probability
    scale = np.where(stained, rng.uniform(*how.stain_scale, (n, 3)), 1)
    shift = np.where(stained, rng.uniform(-how.stain_shift, how.stain_shift, (n, 3)), 0)
    crossed = rng.random((n, 1, 1)) < how.crosstalk_probability
    crosstalk = np.where(crossed, rng.uniform(-how.crosstalk, how.crosstalk, (n, 3, 3)), 0)
    return (
        ColourChange.none(n)
        .stain(scale, shift)
        .gamma(uniform_or(1, rng, n, how.density_probability, how.density))
        .saturation(uniform_or(1, rng, n, how.saturation_probability, how.saturation))
        .crosstalk(crosstalk)
        .gamma(uniform_or(1, rng, n, how.gamma_probability, how.gamma, 3))
        .contrast(uniform_or(1, rng, n, how.contrast_probability, how.contrast))
        .tint(either_side(how.brightness_probability, how.brightness, 1))
        .tint(either_side(how.tint_probability, how.tint, 3))
    )


def _blurred(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> torch.Tensor:
    return blurred(x, rng.uniform(*how.blur_sigma_px, len(x)))


def _noisy(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> torch.Tensor:
    return noisy(x, rng.uniform(*how.noise_std, len(x)), int(rng.integers(2**62)))


def _sharpened(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> torch.Tensor:
    amount = uniform_or(0, rng, len(x), how.sharpen_probability, how.sharpen_amount)[:, 0]
    return _sharpened_as_drawn(x, rng.uniform(*how.sharpen_sigma_px, len(x)), amount)


def _sharpened_as_drawn(x: torch.Tensor, sigma_px: Floats, amount: Floats) -> torch.Tensor:
    rows = np.flatnonzero(amount)
    return _on(x, rows, lambda some: sharpened(some, sigma_px[rows], amount[rows]))


def _coarser(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> torch.Tensor:
    n = len(x)
    factor = np.where(rng.random(n) < how.half_resolution_share, 0.5, rng.uniform(*how.low_resolution_factor, n))
    return at_low_resolution(x, factor, lambda small: _compressed(_sharpened(small, rng, how), rng, how))


def _compressed(x: torch.Tensor, rng: np.random.Generator, how: Augmentation) -> torch.Tensor:
    rows = chosen(rng, len(x), how.jpeg_probability)
    quality = rng.integers(how.jpeg_quality[0], how.jpeg_quality[1] + 1, len(rows))
    subsampled = rng.random(len(rows)) < how.jpeg_subsampled_share
    return _on(x, rows, lambda some: compressed(some, quality, subsampled))


def _on(x: torch.Tensor, rows: NDArray[np.int64], change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`x` itself, with those rows changed in place."""
    if not len(rows):
        return x
    here = torch.from_numpy(rows).to(x.device)
    return x.index_copy_(0, here, change(x.index_select(0, here)))
