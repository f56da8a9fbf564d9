"""Run folders as score_cohort leaves them, made from labels instead of a model's scores, and without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import tifffile

from mitoray.models import load_bundle
from mitoray.phantom import draw_phantom, write_slide
from mitoray.report.cards import keep_cards
from mitoray.scoring.config import Identity, Method
from mitoray.scoring.manifest import ManifestRow, checked
from mitoray.scoring.plan import named, plan_slide
from mitoray.scoring.reduce import failed_slide, reduce_slide
from mitoray.scoring.results import write_cohort
from mitoray.scoring.results import write_slide as write_results
from mitoray.scoring.run import RECORD
from mitoray.scoring.schema import PLAN, SCORES, SLIDES
from mitoray.scoring.work import PLANS
from mitoray.storage import Folder


def draw(path: Path, domain: str = "phantom-breast-a", seed: int = 1, width_px: int = 1200, height_px: int = 1000):
    """A slide file, and the figures drawn on it: (n, 2) level-0 px."""
    phantom = draw_phantom(domain, seed=seed, width_px=width_px, height_px=height_px, slide_id=path.stem)
    write_slide(phantom, path)
    rows = [row for row in phantom.labels.to_pylist() if row["kind"] == "mitotic_figure"]
    return np.array([(row["x_px"], row["y_px"]) for row in rows], float).reshape(-1, 2)


def corrupt_tiles(path: Path, tiles: range) -> None:
    """Overwrite the bytes of those level-0 tiles with what no decoder takes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        spans = [(page.dataoffsets[tile], page.databytecounts[tile]) for tile in tiles]
    with path.open("r+b") as file:
        for offset, size in spans:
            file.seek(offset)
            file.write(b"\x55" * size)


def make_run(folder: Folder, rows: list[ManifestRow], points: dict[str, np.ndarray]) -> pa.Table:
    """Write a run with figures at `points` by slide_id, scored from 0.05 to 0.95 in their order; its SLIDES table."""
    method = Method(candidate_threshold=0.05, threshold=0.5)
    plans, slides = [], []
    for row in checked(rows):
        plan = plan_slide(row, region_um=512, halo_um=32)
        plans.append(plan)
        if row.error or plan["status"] == "failed":
            slides.append(failed_slide(row, named(row.error) if row.error else plan["error"]))
            continue
        scores = _scores(row.slide_id, plan, points.get(row.slide_id, np.empty((0, 2))))
        slides.append(write_results(folder, plan, reduce_slide(row, plan, scores, method, 0.5)))
    folder.write_table(f"{PLANS}/000000.parquet", pa.Table.from_pylist(plans, schema=PLAN))
    table = pa.Table.from_pylist(slides, schema=SLIDES)
    write_cohort(folder, table)
    bundle = load_bundle("mitoray-s")
    identity = Identity("mitoray-s", bundle.digest, "0" * 64, len(rows), method)
    folder.write_json(RECORD, {"status": "complete", "identity": identity.record(), "code": {"mitoray": "0.1.0"}})
    keep_cards(folder, {"model": bundle})
    return table


def _scores(slide_id, plan, points):
    scored = np.linspace(0.05, 0.95, len(points)).round(3)
    candidates = [
        {"x_px": x, "y_px": y, "detector_score": s, "classifier_score": None, "score": s, "atypical_probability": 1 - s}
        for (x, y), s in zip(points, scored, strict=True)
    ]
    regions = [
        {**core, "region_id": f"{slide_id}/{i}", "slide_id": slide_id, "status": "scored", "error": None}
        for i, core in enumerate(plan["cores"])
    ]
    for i, region in enumerate(regions):
        region["candidates"] = candidates if i == 0 else []
    return pa.Table.from_pylist(regions, schema=SCORES)
