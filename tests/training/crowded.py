"""Small drawn slides with many figures on each."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mitoray.phantom import DOMAINS, draw_phantom
from mitoray.phantom.writing import write_slide


def draw_crowded(
    folder: Path, names: list[str], *, n_slides: int, seed: int, side_px: int
) -> tuple[pa.Table, pa.Table]:
    """Manifest and labels, also written as manifest.csv and labels.parquet; domains in turn, 200 figures per mm²."""
    rows, labels = [], []
    for i in range(n_slides):
        domain = DOMAINS[names[i % len(names)]]
        domain = replace(domain, tumour=replace(domain.tumour, figures_per_mm2=200, imposters_per_mm2=100))
        slide_id = f"{domain.name}-{seed + i}"
        phantom = draw_phantom(domain, seed=seed + i, width_px=side_px, height_px=side_px, slide_id=slide_id)
        write_slide(phantom, folder / f"{slide_id}.svs")
        rows.append(
            {"slide_id": slide_id, "uri": str(folder / f"{slide_id}.svs"), "case_id": slide_id, "domain": domain.name}
        )
        labels.append(phantom.labels)
    manifest, table = pa.Table.from_pylist(rows), pa.concat_tables(labels)
    pyarrow.csv.write_csv(manifest, folder / "manifest.csv")
    pq.write_table(table, folder / "labels.parquet")
    return manifest, table
