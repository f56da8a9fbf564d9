"""What the steps of consistency share: the embedded cells, crops cut for them, and what experts changed on the map."""

from typing import Any, Final

import pyarrow as pa
from tqdm import tqdm

from mitoray.consistency_options import Embedding, Experts, Where
from mitoray.curation.cell_folder import CellFolder
from mitoray.curation.cells import CELLS, checked_classes, class_names
from mitoray.curation.changed_cells import changed_table, changes_review
from mitoray.curation.decisions import Decisions, read_decisions
from mitoray.curation.embedding import Embedder
from mitoray.curation.map_files import Changes, read_changes
from mitoray.curation.map_layout import read_cell_map
from mitoray.curation.review import Review
from mitoray.errors import BadLabels, BadOption
from mitoray.ray_address import ray_address
from mitoray.storage import Folder
from mitoray.training.crop_extraction import Extraction
from mitoray.training.fit import Scaling
from mitoray.training_crops import CropMaterial
from mitoray.training_jobs import Prepared

FACTS: Final = "cells.json"
MAP: Final = "map"


def embedded(where: Where) -> tuple[CellFolder, dict[str, Any], pa.Table, list[str], tuple[str, ...]]:
    """The cells, what is known of them all, their table, each one's class, and the classes."""
    folder = Folder.at(str(where.output))
    try:
        facts: dict[str, Any] = folder.read_json(FACTS)
    except (FileNotFoundError, ValueError):
        raise BadLabels(f"{where.output.name} holds no embedded cells. Embed some into it first.") from None
    source = CellFolder(folder)
    cells = source.cells()
    names = class_names(cells, facts["classes"])
    return source, facts, cells, names, checked_classes(names)


def cut_crops(
    folder: Folder, prepared: Prepared, embedder: Embedder, how: Embedding, material: CropMaterial, scaling: Scaling
) -> tuple[list[str], dict[str, str]]:
    """Tables of crops around the slides' labels, cut on Ray where they were not before, and why slides gave none."""
    from mitoray.training.fit_crops import extract_crops
    from mitoray.training.fit_session import ray_here

    slides = prepared.corpus.slides
    with (
        ray_here(scaling, ray_address()) as placement,
        tqdm(total=len(slides), desc="cutting crops", unit="slide", disable=None) as bar,
    ):
        return extract_crops(
            folder,
            slides,
            prepared.corpus.labels,
            Extraction(margin_px=how.margin_px),
            placement,
            mpp=embedder.mpp,
            side_px=embedder.patch_px + how.margin_px,
            storage_options=material.storage_options,
            on_slide=bar.update,
        )


def changed_by_first(where: Where, experts: Experts) -> tuple[CellFolder, Review | None, pa.Table, Changes]:
    """The cells, the review set of the changes (None without any), the table of them, and the changes."""
    source, _, cells, _, _ = embedded(where)
    made = read_cell_map(where.output / MAP / "cells.parquet")
    first = read_changes(experts.first, made, experts.name(0))
    changed = changed_table(cells.select(CELLS.names), dict(zip(made.ids, made.names, strict=True)), first)
    review = changes_review(changed, made.classes, experts.review_seed) if len(changed) else None
    return source, review, changed, first


def of_second(experts: Experts, review: Review) -> Decisions:
    """The second expert's decisions."""
    if not experts.second:
        raise BadOption("second is missing: give the file or folder in which the second expert worked.")
    return read_decisions(experts.second, review, experts.name(1))
