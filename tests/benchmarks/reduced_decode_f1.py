"""Does a detector find as much in tiles that the codec halved while decoding as in tiles decoded whole and averaged?

python tests/benchmarks/reduced_decode_f1.py --data-dir data

Real crops (AMi-Br, 0.25 µm/px) are written as scanners would, by JPEG and JPEG2000, and read for a model at 0.5 µm/px
both ways. Prints F1 at the bundle's threshold by scanner, with the crops' only known figure as the only positive.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from PIL import Image

from mitoray.models import load_bundle
from mitoray.slide.window import FILTER
from mitoray.training.material import read_evaluation
from mitoray.training.patches import Patches
from mitoray.training.quality import crop_matchings, f1_at, sensitivity_above

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", default="mitoray-s", help="URI of a bundle at 0.5 µm/px")
parser.add_argument("--data-dir", type=Path, required=True, help="folder with crops/, negative_tissue/ and slides/")
parser.add_argument("--crops", type=int, default=100_000, help="most crops of each scanner (default: all)")
parser.add_argument("--threads", type=int, default=1, help="CPU threads")
arguments = parser.parse_args()
Decode = Callable[[bytes], np.ndarray]


def averaged(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), FILTER))


def jpeg(image: np.ndarray, quality: int, subsampling: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def jpeg_halved(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (image.size[0] // 2, image.size[1] // 2))
    return np.asarray(image)


def jpeg2000_halved(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.reduce = 1
    image.load()
    return np.asarray(image)


def jpeg2000(image: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(image, level=38, codecformat="j2k", reversible=False)


ways: dict[str, tuple[Callable[[np.ndarray], bytes], Decode, Decode]] = {
    "JPEG, quality 90": (lambda i: jpeg(i, 90, 0), lambda d: averaged(imagecodecs.jpeg8_decode(d)), jpeg_halved),
    "JPEG, quality 75, 4:2:0": (lambda i: jpeg(i, 75, 2), lambda d: averaged(imagecodecs.jpeg8_decode(d)), jpeg_halved),
    "JPEG2000, 38 dB": (jpeg2000, lambda d: averaged(imagecodecs.jpeg2k_decode(d)), jpeg2000_halved),
}
bundle = load_bundle(arguments.model)
detector = bundle.detector("cpu", arguments.threads)
print(f"real crops; F1 (sensitivity) at {bundle.threshold:g}")
print(
    f"{'scanner':16} {'crops':>5}  {'codec':24} {'whole, averaged':>18} {'halved by the codec':>20} {'F1 differs':>10}"
)
for scanner, crops in read_evaluation(arguments.data_dir).crops.items():
    images = [np.ascontiguousarray(image) for image in crops.images[: arguments.crops].permute(0, 2, 3, 1).numpy()]
    centres = (crops.centres_px[: len(images)] + 0.5) / 2 - 0.5
    for codec, (encode, *decodes) in ways.items():
        stored = [encode(image) for image in images]
        found = []
        for decode in decodes:
            pixels = torch.from_numpy(np.stack([decode(data) for data in stored])).permute(0, 3, 1, 2)
            matchings = crop_matchings(detector, Patches(pixels, centres))
            found.append((f1_at(matchings, bundle.threshold), sensitivity_above(matchings, bundle.threshold)))
        cells = [f"{f1:.4f} ({sensitivity:.4f})" for f1, sensitivity in found]
        difference = found[1][0] - found[0][0]
        print(f"{scanner:16} {len(images):5}  {codec:24} {cells[0]:>18} {cells[1]:>20} {difference:+10.4f}")
