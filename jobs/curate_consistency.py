"""Make labels consistent: embed the cells, rank labels at odds with their neighbours, relabel on a map (CODAEL).

    python jobs/curate_consistency.py embed --manifest slides.csv --labels labels.parquet --output consistent
    python jobs/curate_consistency.py rank --output consistent
    python jobs/curate_consistency.py map --output consistent
    python jobs/curate_consistency.py changes --output consistent --first consistent/map/cells.sqlite
    python jobs/curate_consistency.py third --output consistent --first a.sqlite --second b.sqlite
    python jobs/curate_consistency.py import --output consistent --labels labels.parquet --version 2 \
        --first a.sqlite --second b.sqlite --third c.sqlite

After Aubreville et al. 2020. changes: what the first expert changed on the map, for the second, blinded. third: what
they disagree on. import: the majority, as a new version of the labels. Each has its own --help. The same command goes
on where it ended. Exit status: 0 done, 2 bad arguments or input (nothing was started), 3 some crops or slides could not
be read (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.consistency_options import Embedding, Experts, Picture, Ranking, Versions, Where
from mitoray.consistency_parts import FACTS, MAP, changed_by_first, cut_crops, embedded, of_second
from mitoray.curation.cell_folder import CellFolder, crops_as_png
from mitoray.curation.cell_grid import Layout, closeness, grid_of, projected
from mitoray.curation.cells import checked_classes, class_names, codes_of, embeddings_of
from mitoray.curation.changed_cells import first_decisions, label_changes
from mitoray.curation.contact_sheet import contact_sheet
from mitoray.curation.contrastive import Contrast
from mitoray.curation.decisions import read_decisions
from mitoray.curation.embedding import Embedder
from mitoray.curation.map_files import write_geojson, write_sliderunner
from mitoray.curation.map_image import CellStore, tile_rows, write_map
from mitoray.curation.map_layout import CellMap, read_cell_map, write_cell_map
from mitoray.curation.map_overview import overview
from mitoray.curation.neighbours import Neighbours, oddness, ranked
from mitoray.curation.review import write_review_set
from mitoray.curation.review_files import write_review
from mitoray.curation.versions import describe, with_changed, write_version
from mitoray.curation.votes import disagreed, for_third, settle
from mitoray.curation_jobs import BAD_INPUT, recorded
from mitoray.labels import read_labels
from mitoray.models import load_bundle
from mitoray.slide import redact
from mitoray.storage import Folder
from mitoray.training.augment import Augmentation
from mitoray.training.fit import Scaling
from mitoray.training_crops import CropMaterial
from mitoray.training_jobs import Material, claimed, prepare

RANKED = "inconsistent.csv"
SHEET = "inconsistent.png"


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=BAD_INPUT)


def run(argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in COMMANDS:
        print((__doc__ or "").strip(), file=sys.stdout if given[:1] in (["--help"], ["-h"]) else sys.stderr)
        return DONE if given[:1] in (["--help"], ["-h"]) else 2
    command, groups = COMMANDS[given[0]]
    parser = JobParser(f"curate_consistency {given[0]}", (__doc__ or "").partition("\n")[0])
    for group in (Where, *groups):
        parser.add_class_arguments(group)
    where, *parts = parser.parsed(given[1:], Where, *groups)
    logging.getLogger("mitoray").setLevel(where.log_level.upper())
    return command(where, *parts)


def embed(
    where: Where,
    how: Embedding,
    material: CropMaterial,
    contrast: Contrast,
    augmentation: Augmentation,
    scaling: Scaling,
) -> int:
    """Keep the cells' crops, train the network on where asked, and embed the cells."""
    bundle = load_bundle(how.model, material.storage_options)
    embedder = Embedder(bundle, how.place)
    settings: dict[str, Any] = {"classes": how.classes, "margin_px": how.margin_px, "model": bundle.digest}
    identity = {"consistency": settings, "contrast": asdict(contrast)}
    if contrast.epochs:
        identity["augmentation"] = asdict(augmentation)
    tables, failed, data = list(material.crops), dict[str, str](), "crops as given"
    names = [redact(uri) for uri in tables]
    if material.manifest and material.labels:
        prepared = prepare(Material(material.manifest, material.labels, material.licence, material.storage_options))
        identity["data"] = {**prepared.digests, "crops": names}
        folder = claimed(str(where.output), None, identity)
        cut, failed = cut_crops(folder, prepared, embedder, how, material, scaling)
        tables, data, failed = [*cut, *tables], prepared.data, {**prepared.corpus.failed, **failed}
    else:
        identity["data"] = {"crops": names}
        folder = claimed(str(where.output), None, identity)
    source = CellFolder(folder)
    with tqdm(total=len(tables), desc="reading crops", unit="table", disable=None) as bar:
        failed |= source.keep_crops(tables, embedder, how.margin_px, material.storage_options, bar.update)
    if contrast.epochs:
        with tqdm(total=contrast.epochs, desc="contrast", unit="epoch", disable=None) as bar:
            source.train(embedder, how.classes, how.margin_px, contrast, augmentation, bar.update)
    with tqdm(total=source.count(), desc="embedding", unit="cell", disable=None) as bar:
        source.embed(embedder, bar.update)
    cells = source.cells()
    classes = checked_classes(class_names(cells, how.classes))
    folder.write_json(FACTS, {"classes": how.classes, "data": data, "model": bundle.name, "cells": len(cells)})
    print(f"{len(cells)} cells of the classes {', '.join(classes)} ({data}), embedded by {bundle.name}.")
    recorded("curate_consistency embed", where.mlflow, settings, {"cells": len(cells), "skipped": len(failed)})
    for name, error in failed.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


def rank(where: Where, how: Neighbours, ranking: Ranking) -> int:
    """The labels by how much they are at odds with their neighbours': a table, and a contact sheet."""
    source, facts, cells, names, classes = embedded(where)
    codes = codes_of(names, classes)
    slides = np.unique(np.array(cells["slide_id"].to_pylist(), object), return_inverse=True)[1]
    with tqdm(total=len(cells), desc="comparing", unit="cell", disable=None) as bar:
        scores = oddness(embeddings_of(cells), codes, how, slides, bar.update)
    order = ranked(scores)
    columns = ["cell_id", "crop_id", "slide_id", "x_px", "y_px", "kind", "subtype"]
    table = cells.select(columns).take(pa.array(order))
    table = table.add_column(0, "rank", pa.array(range(1, len(order) + 1), pa.int64()))
    source.folder.write_csv(RANKED, table.append_column("score", pa.array(scores[order])))
    top = order[: ranking.top]
    ids = [cells["cell_id"][int(n)].as_py() for n in top]
    images = dict(source.images(0.25, 128, ids))
    captions = [f"{place}. {names[n]} ({scores[n]:.2f})" for place, n in enumerate(top.tolist(), start=1)]
    title = f"The {len(top)} of {len(cells)} labels most at odds with their neighbours ({facts['data']})"
    source.folder.write_bytes(SHEET, contact_sheet([images[one] for one in ids], captions, title))
    print(f"{title}: {where.output / RANKED}, {where.output / SHEET}")
    recorded("curate_consistency rank", where.mlflow, asdict(how), {"cells": len(cells)})
    return DONE


def draw(where: Where, layout: Layout, picture: Picture) -> int:
    """The map as a TIFF, its rectangles for SlideRunner and QuPath, and a small picture of it."""
    source, facts, cells, names, classes = embedded(where)
    folder = where.output / MAP
    identity = {"layout": asdict(layout), "picture": {"cell_px": picture.cell_px, "map_mpp": picture.map_mpp}}
    claimed(str(folder), None, {**identity, "cells": {"ids": sorted(cells["cell_id"].to_pylist())}})
    places, tiff = folder / "cells.parquet", folder / "cells.tif"
    if not places.exists():
        print(f"UMAP of {len(cells)} cells …", file=sys.stderr)
        plane = projected(embeddings_of(cells), layout)
        with tqdm(total=len(cells), desc="laying out", unit="cell", disable=None) as bar:
            grid = grid_of(plane, layout, bar.update)
        made = CellMap(grid, tuple(cells["cell_id"].to_pylist()), tuple(names), classes, picture.cell_px)
        write_cell_map(made, places)
    made = read_cell_map(places)
    if not tiff.exists():
        with CellStore(picture.cell_px, folder) as store:
            with tqdm(total=len(cells), desc="crops", unit="cell", disable=None) as bar:
                number = {one: n for n, one in enumerate(made.ids)}
                order = []
                for cell_id, image in source.images(picture.map_mpp, picture.cell_px):
                    store.add(image[None])
                    order.append(number[cell_id])
                    bar.update()
            drawn = replace(made.grid, places=made.grid.places[np.array(order)])
            with tqdm(total=tile_rows(drawn, picture.cell_px), desc="drawing", unit="row", disable=None) as bar:
                write_map(tiff, drawn, store, picture.map_mpp, bar.update)
    for path, write in (
        (folder / "cells.sqlite", lambda path: write_sliderunner(made, path, tiff.name)),
        (folder / "cells.geojson", lambda path: write_geojson(made, path)),
    ):
        if not path.exists():  # an expert may have worked in it
            write(path)
    Folder.at(str(folder)).write_bytes("overview.png", overview(tiff, made))
    close = closeness(made.grid, codes_of(list(made.names), made.classes), permutations=picture.permutations)
    print(f"{len(cells)} cells ({facts['data']}) on {made.grid.columns} × {made.grid.rows} places: {tiff}")
    print(
        f"Of a cell's neighbours on the map, {close['share']:.3f} are of its class; by chance {close['by_chance']:.3f} "
        f"(p = {close['p']:.3g}, {picture.permutations} permutations)."
    )
    recorded("curate_consistency map", where.mlflow, asdict(layout), close)
    return DONE


def changes(where: Where, experts: Experts) -> int:
    """What the first expert changed, as a table, and blinded for the second."""
    source, review, changed, first = changed_by_first(where, experts)
    if review is None:
        print(f"{first.rater} changed no class.")
        return DONE
    source.folder.write_csv("changes.csv", changed)
    write_review_set(review, where.output / "changes.parquet")
    write_review(review, where.output / "for-expert-2", crops_as_png(source, 0.25, experts.crop_px))
    print(f"{first.rater} changed {len(changed)} cells. To review, blinded: {where.output / 'for-expert-2'}")
    recorded("curate_consistency changes", where.mlflow, {"rater": first.rater}, {"changed": len(changed)})
    return DONE


def third(where: Where, experts: Experts) -> int:
    """What the first two disagree on, for the third."""
    source, review, _, first = changed_by_first(where, experts)
    if review is None:
        print(f"{first.rater} changed no class.")
        return DONE
    second = of_second(experts, review)
    left = for_third(review, first_decisions(first), second, seed=experts.review_seed + 1)
    if not len(left):
        print("The two agree on every change. Import their decisions.")
        return DONE
    write_review(left, where.output / "for-expert-3", crops_as_png(source, 0.25, experts.crop_px))
    print(f"The two disagree on {len(left)} of {len(review)} changes: {where.output / 'for-expert-3'}")
    return DONE


def take(where: Where, experts: Experts, versions: Versions) -> int:
    """The new version of the labels."""
    _, review, _, first = changed_by_first(where, experts)
    if review is None:
        print(f"{first.rater} changed no class: the labels stay as they are.")
        return DONE
    decided = [first_decisions(first), of_second(experts, review)]
    overruled = disagreed(review, *decided)
    if overruled and experts.third:
        left = for_third(review, *decided, seed=experts.review_seed + 1)
        decided.append(read_decisions(experts.third, left, experts.name(2)))
    found = settle(review, decided)
    before = read_labels(versions.labels)
    rows, absent = label_changes(before, found.table)
    after = with_changed(before, rows)
    raters = [one.rater for one in decided]
    version = describe(
        before,
        after,
        step="consistency on a map of cells",
        raters=raters,
        review_set=review.digest,
        parent_file=versions.labels,
        notes={"disagreed": len(overruled), "without_label": absent},
    )
    write_version(after, version, versions.version)
    print(f"{len(review)} changes reviewed, {len(overruled)} disagreed on; changed: {dict(version.changed)}.")
    if absent:
        print(f"{absent} cells have no label in {versions.labels.name}; nothing was changed for them.", file=sys.stderr)
    print(f"New version: {versions.version}")
    recorded("curate_consistency import", where.mlflow, {"raters": raters}, {"changed": len(rows)})
    return DONE


COMMANDS: dict[str, tuple[Callable[..., int], tuple[type[Any], ...]]] = {
    "embed": (embed, (Embedding, CropMaterial, Contrast, Augmentation, Scaling)),
    "rank": (rank, (Neighbours, Ranking)),
    "map": (draw, (Layout, Picture)),
    "changes": (changes, (Experts,)),
    "third": (third, (Experts,)),
    "import": (take, (Experts, Versions)),
}


if __name__ == "__main__":
    sys.exit(main())
