"""How many flipped labels are among those most at odds with their neighbours, against a random order.

python tests/benchmarks/label_consistency.py --data ../shared/data

Prints for 3 % of labels flipped, mean of several draws of flips: the share of all flips found among the top 3 %, 5 %
and 10 % of the ranking, and the lift over a random order (which finds 3 %, 5 %, 10 %). Materials: PHANTOMS (figures and
imposters of all phantom domains, which say nothing about real slides); REAL CROPS of normal and atypical figures
(AMi-Br, AtNorM-BR, AtNorM-MD); REAL CROPS of figures against crops of real tissue without figures. The shipped
mitoray-c was trained on AtNorM crops and on the tissue, so AMi-Br alone is foreign to it; each line says so. Beside
them: all labels of the rarer class first, in random order, which finds much where classes are unequal, for most wrong
labels then are of the rarer class. Only what is found beyond that is due to the looks of the cells.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mitoray.curation.cells import Classes, checked_classes, class_names, codes_of
from mitoray.curation.contrastive import Contrast, train_on
from mitoray.curation.embedding import Embedder, readable
from mitoray.curation.neighbours import Neighbours, oddness, ranked
from mitoray.models import load_bundle
from mitoray.phantom import DOMAINS, draw_patches
from mitoray.training.augment import Augmentation
from mitoray.training.crops import CROPS, png, read_crop_table
from mitoray.training.material import read_real
from mitoray.training.patches import Tissue

FLIPPED = 0.03
TOPS = (0.03, 0.05, 0.10)
CROP_PX = 128
MPP = 0.25
REAL = ("amibr-midog21", "atnorm-br", "atnorm-md")


def phantom_crops(patches: int, seed: int) -> pa.Table:
    """Crops of drawn figures and imposters, of every phantom domain."""
    rows = []
    for name, domain in DOMAINS.items():
        images, labels = draw_patches(name, n=patches, size_px=512, seed=seed)
        side = round(32 / domain.mpp)
        for number, row in enumerate(labels.to_pylist()):
            left, top = (round(row[axis] - (side - 1) / 2) for axis in ("x_px", "y_px"))
            crop = images[row["patch"]][max(top, 0) : top + side, max(left, 0) : left + side]
            if crop.shape == (side, side, 3) and row["kind"] in ("mitotic_figure", "imposter"):
                patch = f"{name}-{row['patch']}"
                of = {"crop_id": f"{name}-{number}", "slide_id": patch, "case_id": patch, "domain": name}
                rows.append({**of, "kind": row["kind"], "mpp": domain.mpp, "image": png(crop)})
    return pa.Table.from_pylist(rows, schema=CROPS)


def tissue_crops(data: Path, n: int, seed: int) -> pa.Table:
    """Crops of 32 µm of real tissue without figures, anywhere in it, as kind "random"."""
    image = read_real(data).tissue
    tissue = Tissue(image, MPP)
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < n:
        for x, y in np.round(tissue.places(n, rng)).astype(int).tolist():
            crop = image[:, y - CROP_PX // 2 : y + CROP_PX // 2, x - CROP_PX // 2 : x + CROP_PX // 2]
            if min(x, y) >= CROP_PX // 2 and crop.shape == (3, CROP_PX, CROP_PX):
                of = {"crop_id": f"tissue-{len(rows)}", "slide_id": "tissue", "case_id": "tissue", "domain": "tissue"}
                rows.append({**of, "kind": "random", "mpp": MPP, "image": png(crop.permute(1, 2, 0).numpy())})
    return pa.Table.from_pylist(rows[:n], schema=CROPS)


def lifts(embeddings: np.ndarray, codes: np.ndarray, how: Neighbours | None, draws: int) -> np.ndarray:
    """Share of flips among the top shares of the ranking, mean of `draws` draws of flips, by `TOPS`.

    how: None ranks the rarer class first, in random order.
    """
    found = []
    for seed in range(draws):
        flipped, wrong = with_flips(codes, seed)
        if how is None:
            rare = np.argmin(np.bincount(wrong))
            order = ranked((wrong == rare) + np.random.default_rng(seed + draws).random(len(wrong)) / 2)
        else:
            order = ranked(oddness(embeddings, wrong, how))
        found.append([np.isin(flipped, order[: round(top * len(codes))]).mean() for top in TOPS])
    return np.mean(found, axis=0)


def with_flips(codes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells whose label is flipped, and all labels with those."""
    rng = np.random.default_rng(seed)
    flipped = rng.choice(len(codes), round(FLIPPED * len(codes)), replace=False)
    wrong = codes.copy()
    wrong[flipped] = 1 - wrong[flipped]
    return flipped, wrong


def trained_on(embedder: Embedder, images: torch.Tensor, codes: np.ndarray, epochs: int) -> np.ndarray:
    """Embeddings after training on by contrast, on labels of which some are flipped."""
    train_on(embedder, images, codes, Contrast(epochs=epochs), Augmentation())
    return embedder.embed(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with crops/ and negative_tissue/")
    parser.add_argument("--model", default="mitoray-c", help="bundle of the classifier")
    parser.add_argument("--draws", type=int, default=10, help="draws of flips")
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=0, help="of contrast, on the flipped labels of one draw; 0 none")
    parser.add_argument("--patches", type=int, default=40, help="phantom patches per domain")
    arguments = parser.parse_args()
    tables = {name: read_crop_table(str(arguments.data / "crops" / f"{name}.parquet")) for name in REAL}
    tissue = tissue_crops(arguments.data, 1500, 0)
    materials: list[tuple[str, pa.Table, Classes]] = [
        ("PHANTOMS: figures, imposters", phantom_crops(arguments.patches, 1000), "kind"),
        ("REAL CROPS AMi-Br, foreign: normal, atypical", tables[REAL[0]], "subtype"),
        ("REAL CROPS AtNorM-BR, trained on: normal, atypical", tables[REAL[1]], "subtype"),
        ("REAL CROPS AtNorM-MD, trained on: normal, atypical", tables[REAL[2]], "subtype"),
        ("REAL CROPS AMi-Br figures, tissue trained on", pa.concat_tables([tables[REAL[0]], tissue]), "kind"),
    ]
    print(f"{arguments.model}, {arguments.neighbours} neighbours, {FLIPPED:.0%} flipped, {arguments.draws} draws")
    for name, crops, classes in materials:
        embedder = Embedder(load_bundle(arguments.model))
        side = embedder.patch_px + 16
        kept, images, _ = readable(crops, embedder.mpp, side, embedder.patch_px)
        names = class_names(kept, classes)
        codes = codes_of(names, checked_classes(names))
        embeddings = embedder.embed(images)
        print(f"\n{name}: {len(codes)} cells, {int(0.5 + FLIPPED * len(codes))} flipped; classes {np.bincount(codes)}")
        told("rarer class first, at random", lifts(embeddings, codes, None, arguments.draws))
        for score in ("likelihood", "share"):
            how = Neighbours(neighbours=arguments.neighbours, score=score)
            told(f"{score}, as shipped", lifts(embeddings, codes, how, arguments.draws))
        if arguments.epochs:
            flipped, wrong = with_flips(codes, 0)
            after = trained_on(embedder, images, wrong, arguments.epochs)
            for what, seen in (("before", embeddings), ("after", after)):
                order = ranked(oddness(seen, wrong, Neighbours(neighbours=arguments.neighbours)))
                found = np.array([np.isin(flipped, order[: round(top * len(codes))]).mean() for top in TOPS])
                told(f"likelihood, draw 0, {what} {arguments.epochs} epochs of contrast", found)


def told(name: str, found: np.ndarray) -> None:
    """One line."""
    cells = "  ".join(
        f"top {top:.0%}: {share:.3f} ({share / top:.1f} x)" for top, share in zip(TOPS, found, strict=True)
    )
    print(f"  {name:45s} {cells}", flush=True)


if __name__ == "__main__":
    main()
