"""Deletes a tenth of the figures of drawn slides from their labels, flips 3 % of the rest, and looks for the deleted.

    PYTHONPATH=. python tests/benchmarks/missed_candidates.py --slides 16 --side-px 2400

Prints, for the detector and the classifier that are shipped, the share of the deleted figures that are among the
candidates from a score up, and how many candidates an expert reviews for each figure recovered. Phantoms of other seeds
trained both, so that the figures say nothing about real slides.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from mitoray.curation.crops import classified
from mitoray.curation.missed import new_detections
from mitoray.evaluation.matching import RADIUS_UM, match
from mitoray.labels.schema import LABELS
from mitoray.models import load_bundle
from mitoray.phantom import DOMAINS, draw_phantom, write_slide
from mitoray.report.text import as_text
from mitoray.training.detection import detect_slide
from mitoray.training.slides import centres_px, open_training_slide

PER_MM2 = 100


def spoiled(labels: pa.Table, rng: np.random.Generator, deleted: float = 0.1, flipped: float = 0.03):
    """The labels without a share of the figures and with a share of the others flipped, and the figures deleted."""
    rows = labels.to_pylist()
    figures = [n for n, row in enumerate(rows) if row["kind"] == "mitotic_figure"]
    gone = set(rng.permutation(figures)[: round(deleted * len(figures))].tolist())
    kept = [n for n in range(len(rows)) if n not in gone]
    for n in rng.permutation(kept)[: round(flipped * len(kept))].tolist():
        rows[n]["kind"] = "imposter" if rows[n]["kind"] == "mitotic_figure" else "mitotic_figure"
        rows[n]["subtype"] = None
    tables = ([rows[n] for n in kept], [labels.to_pylist()[n] for n in sorted(gone)])
    return tuple(pa.Table.from_pylist(part, schema=LABELS) for part in tables)


def recovered(candidates: pa.Table, deleted: pa.Table, slides) -> np.ndarray:
    """Whether each candidate is a deleted figure, one to one."""
    true = np.zeros(len(candidates), bool)
    for slide in slides:
        own = np.array(candidates["slide_id"].to_pylist(), object) == slide.slide_id
        figures = centres_px(deleted.filter(pc.equal(deleted["slide_id"], slide.slide_id)))
        scores = candidates["score"].to_numpy()[own]
        found = match(centres_px(candidates)[own] * slide.mpp, scores, figures * slide.mpp, RADIUS_UM)
        true[own] = found.detection_label >= 0
    return true


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slides", type=int, default=16)
    parser.add_argument("--side-px", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=70_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    detector, classifier = load_bundle("mitoray-s").detector(), load_bundle("mitoray-c")
    with tempfile.TemporaryDirectory() as folder:
        slides, tables, found = [], [], []
        for i in tqdm(range(given.slides), desc="drawing and detecting", unit="slide"):
            domain = list(DOMAINS.values())[i % len(DOMAINS)]
            crowded = replace(domain.tumour, figures_per_mm2=PER_MM2, imposters_per_mm2=PER_MM2)
            domain = replace(domain, tumour=crowded)
            phantom = draw_phantom(domain, seed=given.seed + i, width_px=given.side_px, height_px=given.side_px)
            path = Path(folder) / f"{phantom.slide_id}.svs"
            write_slide(phantom, path)
            slides.append(open_training_slide(phantom.slide_id, str(path)))
            tables.append(phantom.labels)
            found.append(detect_slide(detector, slides[-1]))
        labels, deleted = spoiled(pa.concat_tables(tables), np.random.default_rng(given.seed))
        candidates = new_detections(pa.concat_tables(found), labels, slides)
        scores = np.empty(len(candidates))
        ids = np.array(candidates["slide_id"].to_pylist(), object)
        for slide in tqdm(slides, desc="classifying", unit="slide"):
            own = ids == slide.slide_id
            scores[own] = classified((slide, candidates.filter(pa.array(own))), "mitoray-c", classifier.digest)
    true = recovered(candidates, deleted, slides)
    area = sum(slide.area_mm2 for slide in slides)
    print(
        f"{len(slides)} phantoms, {area:.2f} mm²; {len(labels)} labels left, 3 % of them flipped; "
        f"{len(deleted)} figures deleted"
    )
    for name, of in (("detector mitoray-s", candidates["score"].to_numpy()), ("classifier mitoray-c", scores)):
        rows = []
        for least in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            shown = of >= least
            n, hits = int(shown.sum()), int((true & shown).sum())
            per = n / hits if hits else None
            share = hits / len(deleted)
            rows.append({"least score": least, "candidates": n, "recovered": hits, "share": share, "per figure": per})
        print(f"\nby the score of the {name} (phantom)\n{as_text(rows)}")


if __name__ == "__main__":
    main()
