"""Registers drawn rescans whose truth is known, carries the labels over, and filters the figures.

    PYTHONPATH=. python tests/benchmarks/rescans.py --side-px 4000

Prints how far labels lie from their true place (µm), what refuses rescans that are none, and how well the filter masks
figures that are out of focus, cut by stitching, or in a strip that was not scanned. All on phantoms: the figures say
nothing about real slides.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mitoray.curation.crops import classified
from mitoray.curation.registration_slides import register_files
from mitoray.curation.rescans import carried, figures_there, threshold_keeping
from mitoray.errors import RegistrationRefused
from mitoray.models import load_bundle
from mitoray.phantom import DOMAINS, draw_phantom, write_slide
from mitoray.phantom.rescan import Rescanning, draw_rescan
from mitoray.report.text import as_text
from mitoray.training.slides import open_training_slide

PER_MM2 = 100
RADIUS_UM = 6.25
SCANNERS = (("phantom-breast-a", "phantom-breast-b"), ("phantom-lymphoma-a", "phantom-melanoma-a"))
ANGLES = (0.0, 2.0, -5.0, 38.0, 90.0, 180.0)


def scored(slide, places, digest):
    return np.array(classified((slide, places), "mitoray-c", digest))


def figures_of(labels):
    return labels.filter(np.array(labels["kind"].to_pylist(), object) == "mitotic_figure")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side-px", type=int, default=4000, help="of the originals at 0.25 µm/px (default: 4000)")
    parser.add_argument("--seed", type=int, default=90_000)
    parser.add_argument("--keep", type=float, default=0.95, help="share of the originals' figures (default: 0.95)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    digest = load_bundle("mitoray-c").digest
    rows, own_scores, filtered, refused = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, angle in enumerate(ANGLES):
            first, second = (DOMAINS[name] for name in SCANNERS[number % 2])
            first = replace(first, tumour=replace(first.tumour, figures_per_mm2=PER_MM2, imposters_per_mm2=PER_MM2 / 2))
            phantom = draw_phantom(first, seed=given.seed + number, width_px=given.side_px, height_px=given.side_px)
            how = Rescanning(angle, (70.0, -50.0), 8.0, blurred=14, strip_um=40.0, seam_um=6.0)
            rescan = draw_rescan(phantom, second, how, seed=number, slide_id="rescan")
            mirrored = draw_rescan(phantom, second, replace(how, mirrored=True), seed=number)
            stranger = draw_phantom(
                DOMAINS[SCANNERS[number % 2][0]], seed=given.seed + 100 + number, width_px=3000, height_px=3000
            )
            files = {name: str(Path(folder, f"{name}.svs")) for name in ("original", "rescan", "mirrored", "stranger")}
            for name, one in zip(files, (phantom, rescan.phantom, mirrored.phantom, stranger), strict=True):
                write_slide(one, files[name])
            started = time.process_time()
            found = register_files(files["original"], files["rescan"])
            seconds = time.process_time() - started
            for name in ("mirrored", "stranger"):
                try:
                    register_files(files["original"], files[name])
                    refused.append((name, "REGISTERED"))
                except RegistrationRefused as error:
                    refused.append((name, type(error).__name__))
            table = carried(phantom.labels, phantom.slide_id, "rescan", found)
            states = np.array(rescan.states)
            off_um = np.linalg.norm(np.column_stack([table["x_px"], table["y_px"]]) - rescan.places_px, axis=1)
            off_um = off_um[states == "clear"] * second.mpp
            whole = given.side_px**2 * first.mpp**2 / 1e6
            rows.append(
                {
                    "turned by °": angle,
                    "µm/px": f"{first.mpp:g} to {second.mpp:g}",
                    "features": found.inliers,
                    "quality": round(found.quality, 2),
                    "labels in focus": len(off_um),
                    "median µm": round(float(np.median(off_um)), 2),
                    "95 % µm": round(float(np.percentile(off_um, 95)), 2),
                    "within 6.25 µm": round(float((off_um <= RADIUS_UM).mean()), 4),
                    "CPU s per mm²": round(seconds / whole, 1),
                }
            )
            print(as_text(rows[-1:]), flush=True)
            figures = figures_there(table)
            original = open_training_slide(phantom.slide_id, files["original"])
            own_scores += scored(original, figures_of(phantom.labels), digest).tolist()
            on_rescan = scored(open_training_slide("rescan", files["rescan"]), figures, digest)
            filtered += list(zip(states[figures["label"].to_numpy()].tolist(), on_rescan.tolist(), strict=True))
    print(f"\nregistration, all six\n{as_text(rows)}")
    print("\nwhat is no rescan: " + ", ".join(f"{n} {e}" for n, e in sorted(refused)))
    threshold = threshold_keeping(np.array(own_scores), given.keep)
    states, scores = (np.array(column) for column in zip(*filtered, strict=True))
    masked, lost = scores < threshold, states != "clear"
    print(f"\nfilter at {threshold:.3f}, which keeps {given.keep:.0%} of {len(own_scores)} figures of the originals")
    print(
        as_text(
            [
                {"on the rescan": state, "figures": int(own.sum()), "masked": int((masked & own).sum())}
                for state in sorted(set(states.tolist()))
                if (own := states == state).any()
            ]
        )
    )
    hits = int((masked & lost).sum())
    print(f"precision {hits / masked.sum():.3f}, recall {hits / lost.sum():.3f} of figures that are not clear")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
