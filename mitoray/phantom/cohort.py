"""Draw whole cohorts: slides, their manifest, their labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mitoray.errors import BadOption
from mitoray.phantom.domains import DOMAINS, domain_named
from mitoray.phantom.drawing import draw_phantom
from mitoray.phantom.writing import write_slide

MANIFEST: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("case_id", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("mpp", pa.float64()),
    ]
)
"""Columns of a cohort's manifest; `mpp` is µm per px."""


def draw_cohort(
    folder: Path | str,
    *,
    n_slides: int,
    seed: int,
    width_px: int = 6000,
    height_px: int = 6000,
    domains: Sequence[str] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Draw `n_slides` slides, the domains (all in `DOMAINS` if none are given) in turn, and write them to the folder.

    Returns the manifest (`MANIFEST`) and the labels (`LABELS`), and writes them as `manifest.csv` and `labels.parquet`
    beside the slides, whose URIs are absolute. `plan_cohort` and `draw_slide` do the same slide by slide, for several
    processes.
    """
    manifest = plan_cohort(folder, n_slides=n_slides, seed=seed, domains=domains)
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = manifest.to_pylist()
    labels = pa.concat_tables(
        draw_slide(row, seed=seed + index, width_px=width_px, height_px=height_px) for index, row in enumerate(rows)
    )
    pa.csv.write_csv(manifest, Path(folder) / "manifest.csv")
    pa.parquet.write_table(labels, Path(folder) / "labels.parquet")
    return manifest, labels


def plan_cohort(folder: Path | str, *, n_slides: int, seed: int, domains: Sequence[str] | None = None) -> pa.Table:
    """The manifest (`MANIFEST`) of a cohort yet to be drawn; slide `i` is drawn with the seed `seed + i`."""
    if n_slides < 1:
        raise BadOption(f"n_slides is {n_slides}; ask for at least one slide")
    names = list(DOMAINS) if domains is None else list(domains)
    if not names:
        raise BadOption("no domains are given; name at least one, or leave them out for all")
    rows = []
    for index in range(n_slides):
        domain = domain_named(names[index % len(names)])
        slide_id = f"{domain.name}-{seed + index}"
        rows.append(
            {
                "slide_id": slide_id,
                "uri": str(Path(folder).absolute() / f"{slide_id}.svs"),
                "case_id": f"case-{seed + index}",
                "domain": domain.name,
                "mpp": domain.mpp,
            }
        )
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def draw_slide(row: Mapping[str, Any], *, seed: int, width_px: int, height_px: int) -> pa.Table:
    """Draw the slide of one manifest row, write it to the row's `uri`, and return its labels."""
    phantom = draw_phantom(row["domain"], seed=seed, width_px=width_px, height_px=height_px, slide_id=row["slide_id"])
    write_slide(phantom, row["uri"])
    return phantom.labels
