"""What augmentation costs: python tests/benchmarks/augmentation.py [n] [side_px] [threads] [cpu | cuda] [other.py].

Each operation alone on all images of a batch, against what does the same to one image after another (PIL, SciPy,
scikit-image); then whole batches. `other.py` is another module with a function `augment(batch, rng)`, such as an older
version of this one, timed in turns with ours. Times are the least of many rounds, in ms per batch.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage.color import hed2rgb, rgb2hed

from mitoray.phantom import draw_patches
from mitoray.training.augment import Augmentation, augment
from mitoray.training.augment_colour import ColourChange, recoloured
from mitoray.training.augment_geometry import affine, resized, warped
from mitoray.training.augment_jpeg import compressed
from mitoray.training.augment_quality import at_low_resolution, blurred, noisy, sharpened
from mitoray.training.patches import Patches

ROUNDS = 25


def milliseconds(*functions: Callable[[], object]) -> list[float]:
    """Of each function, run in turns, the least time of many: other work on the machine only adds."""
    times = np.empty((ROUNDS + 2, len(functions)))
    for row in times:
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            row[i] = time.perf_counter() - start
    return [float(ms) for ms in times[2:].min(axis=0) * 1000]


def through_jpeg(image: np.ndarray, subsampling: int = 2) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75, subsampling=subsampling)
    return np.asarray(Image.open(file))


def halved(image: np.ndarray) -> np.ndarray:
    side = len(image)
    small = Image.fromarray(image).resize((side // 2, side // 2), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def main() -> None:
    n, side_px, threads = (int(given) for given in [*sys.argv[1:4], *("64", "96", "2")[len(sys.argv[1:4]) :]])
    device = sys.argv[4] if len(sys.argv) > 4 else "cpu"
    torch.set_num_threads(threads)
    drawn, _ = draw_patches("phantom-breast-a", n=n, size_px=side_px, seed=1)
    batch = Patches(torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous().to(device), torch.full((n, 1, 2), 48.0))
    x, rng = batch.images.float(), np.random.default_rng(0)
    ones = np.ones(n)
    turn, stain = affine(10 * ones, ones), ColourChange.none(n).stain(np.full((n, 3), 1.1), np.full((n, 3), 0.01))
    operations: dict[str, tuple[Callable[[], object], Callable[[np.ndarray], object]]] = {
        "affine": (
            lambda: warped(x, batch.centres_px, turn),
            lambda image: Image.fromarray(image).rotate(10, Image.Resampling.BILINEAR),
        ),
        "half size": (
            lambda: resized(x, batch.centres_px, side_px // 2),
            lambda image: Image.fromarray(image).resize((side_px // 2,) * 2, Image.Resampling.BILINEAR),
        ),
        "stain": (lambda: recoloured(x, stain), lambda image: hed2rgb(rgb2hed(image) * 1.1)),
        "blur": (lambda: blurred(x, ones), lambda image: ndimage.gaussian_filter(image, (1, 1, 0))),
        "sharpening": (
            lambda: sharpened(x, ones, ones),
            lambda image: 2.0 * image - ndimage.gaussian_filter(image, (1, 1, 0)),
        ),
        "noise": (lambda: noisy(x, ones, 0), lambda image: image + rng.normal(size=image.shape)),
        "low resolution": (lambda: at_low_resolution(x, ones / 2), halved),
        "JPEG 4:2:0": (lambda: compressed(x, np.full(n, 75), ones > 0), through_jpeg),
        "JPEG 4:4:4": (
            lambda: compressed(x, np.full(n, 75), ones == 0),
            lambda image: through_jpeg(image, subsampling=0),
        ),
    }
    print(f"{n} images of {side_px} px on {device}, {torch.get_num_threads()} threads")
    print(f"{'operation on all images':24} {'ms':>7} {'one by one':>11} {'ratio':>6}")
    for name, (ours, theirs) in operations.items():
        row = milliseconds(ours, lambda theirs=theirs: [theirs(image) for image in drawn])
        print(f"{name:24} {row[0]:7.2f} {row[1]:11.2f} {row[0] / row[1]:6.2f}")
    whole = {
        "default": Augmentation(),
        "nothing": Augmentation.none(),
        "RandAugment, 3": Augmentation.none(turn_probability=1.0, randaugment_ops=3),
    }
    functions = [lambda how=how: augment(batch, rng, how) for how in whole.values()]
    functions.append(lambda: augment(batch, rng, output_px=side_px // 2))
    names = [*whole, "default, half size"]
    if len(sys.argv) > 5:
        spec = importlib.util.spec_from_file_location("other", Path(sys.argv[5]))
        other = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(other)
        functions.append(lambda: other.augment(batch, rng))
        names.append(sys.argv[5])
    row = milliseconds(*functions)
    print(f"{'whole batches':24} {'ms':>7} {'ratio to the last':>18}")
    for name, ms in zip(names, row, strict=True):
        print(f"{name:24} {ms:7.2f} {ms / row[-1]:18.2f}")


if __name__ == "__main__":
    main()
