"""The embedded demo: a few phantom slides, and what was drawn on them beside what was found."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitoray.counting.hotspot import densest_circle
from mitoray.evaluation.matching import f1_score, match
from mitoray.phantom import DOMAINS, draw_slide, plan_cohort
from mitoray.scoring.manifest import ManifestRow
from mitoray.storage import Folder

N_SLIDES: Final = 6
SEED: Final = 2026
SIDE_UM: Final = 1200.0
MATCH_RADIUS_UM: Final = 6.25
"""25 px at 0.25 µm/px (Aubreville et al. 2020)."""


def rows(folder: Path) -> list[ManifestRow]:
    """The demo cohort: one slide each of the first domains, to be drawn in the folder."""
    manifest = plan_cohort(folder.resolve() / "slides", n_slides=N_SLIDES, seed=SEED, domains=list(DOMAINS)[:N_SLIDES])
    return [ManifestRow(**row) for row in manifest.to_pylist()]


def draw(row: ManifestRow, index: int) -> None:
    """Draw one slide of the cohort, its labels beside it, unless an earlier run did."""
    slide = Path(row.uri)
    labels = _labels_of(row.uri)
    if labels.exists():
        return
    slide.parent.mkdir(parents=True, exist_ok=True)
    domain = DOMAINS[str(row.domain)]
    side_px = round(SIDE_UM / domain.mpp)
    identity = {"slide_id": row.slide_id, "uri": row.uri, "domain": domain.name}
    drawn = draw_slide(identity, seed=SEED + index, width_px=side_px, height_px=side_px)
    pq.write_table(drawn, labels)


def labels(slides: pa.Table) -> pa.Table:
    """What was drawn on the slides of a SLIDES table: LABELS rows."""
    return pa.concat_tables(pq.read_table(_labels_of(uri)) for uri in slides["uri"].to_pylist())


def compare(slides: pa.Table, folder: Folder) -> list[dict[str, Any]]:
    """What was drawn beside what was found, slide by slide and in all; matched one to one within `MATCH_RADIUS_UM`."""
    table: list[dict[str, Any]] = []
    for slide in slides.to_pylist():
        labels = pq.read_table(_labels_of(slide["uri"]))
        drawn_um = _points_um(labels.filter(pc.equal(labels["kind"], "mitotic_figure")), slide["mpp"])
        detections = folder.read_table(slide["detections_file"])
        found_um, scores = _points_um(detections, slide["mpp"]), detections["score"].to_numpy()
        hotspot = densest_circle(drawn_um)
        table.append(
            {
                "phantom slide": slide["slide_id"],
                "tissue mm²": slide["tissue_mm2"],
                "figures drawn": len(drawn_um),
                "found": len(found_um),
                "true": len(match(found_um, scores, drawn_um, MATCH_RADIUS_UM).true_scores),
                "drawn in 2 mm²": hotspot.count if hotspot else 0,
                "mitotic count": slide["mitotic_count"],
            }
        )
    names = list(table[0])[1:]
    table.append({"phantom slide": "all"} | {name: sum(row[name] for row in table) for name in names})
    for row in table:
        row["F1"] = f1_score(row["true"], row["found"] - row["true"], row["figures drawn"] - row["true"])
    return table


def _labels_of(slide_uri: str) -> Path:
    return Path(slide_uri).with_suffix(".labels.parquet")


def _points_um(table: pa.Table, mpp: float) -> np.ndarray:
    return np.column_stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()]) * mpp
