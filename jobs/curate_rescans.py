"""Carry labels over to rescanned slides, and mask figures that a rescan does not show (Fick et al. 2024, §2.2).

    python jobs/curate_rescans.py --manifest slides.csv --labels labels.parquet --output rescans

The manifest's column original_id names, for each rescan, the slide whose labels it takes. Each rescan is registered to
its original, labels go where their cell lies on it, and an ensemble of classifiers looks at each figure there: those
under a conservative threshold (out of focus, cut by stitching, not there) become labels of the kind "uncertain", which
training paints over. The same command goes on where an interrupted one stopped. Exit status: 0 done, 2 bad arguments or
input (nothing was written), 3 some rescans could not be registered (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.curation.registration_slides import Registering
from mitoray.curation.rescans import (
    FIGURE,
    check_pairs,
    domains_of,
    figures_there,
    kept_table,
    read_originals,
    rescan_labels,
    threshold_keeping,
    with_states,
)
from mitoray.curation.versions import describe, with_added, write_version
from mitoray.curation_jobs import BAD_INPUT, classifier_digest, recorded
from mitoray.errors import BadOption
from mitoray.labels import read_labels
from mitoray.models.sources import without_secrets
from mitoray.report.text import as_text
from mitoray.rescan_parts import all_carried, draw_examples, ensemble_scores, pairs_of, registered
from mitoray.scoring.manifest import read_manifest
from mitoray.scoring.tasks import ray_for_job
from mitoray.training_jobs import Material, Prepared, claimed, fetched, prepare

CARRIED_FILE = "carried.parquet"
TABLE_FILE = "kept.csv"


@dataclass(frozen=True)
class Rescans:
    """What filters the figures, and where the results go.

    Args:
        output: folder for the new labels, registrations and pictures. Belongs to one configuration.
        classifiers: bundles of the ensemble; the mean of their scores counts.
        kept_originals: share, above 0 to 1, of the originals' own figures that the threshold keeps.
        threshold: score, 0 to 1, under which figures are masked; none takes the one that kept_originals says.
        version: name of the new label table in the output, a .parquet file.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    output: Path
    classifiers: list[str] = field(default_factory=lambda: ["mitoray-c"])
    kept_originals: float = 0.95
    threshold: float | None = None
    version: str = "labels.parquet"
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not self.classifiers or len(set(self.classifiers)) < len(self.classifiers):
            raise BadOption("classifiers must name one bundle or more, each once.")
        if not 0 < self.kept_originals <= 1:
            raise BadOption(f"kept_originals must lie above 0, at most 1, not {self.kept_originals}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BadOption(f"threshold must lie between 0 and 1, not {self.threshold}.")
        if Path(self.version).name != self.version or not self.version.endswith(".parquet"):
            raise BadOption(f"version {self.version!r} must be the name of a .parquet file, without folders.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=BAD_INPUT)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("curate_rescans", __doc__.partition("\n")[0])
    for group in (Rescans, Registering, Material):
        parser.add_class_arguments(group)
    job, how, material = parser.parsed(argv, Rescans, Registering, Material)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    options = material.storage_options
    originals = read_originals(fetched(material.manifest, options))
    labels = read_labels(fetched(material.labels, options))
    cases = {row.slide_id: row.case_id or row.slide_id for row in read_manifest(material.manifest, options)}
    check_pairs(originals, cases, labels["slide_id"].to_pylist())
    classifiers = {uri: classifier_digest(uri, options) for uri in job.classifiers}
    prepared = prepare(material)
    settings = {"classifiers": sorted(classifiers.values()), "registering": asdict(how), "originals": originals}
    folder = claimed(str(job.output), options, {"curation": settings, "data": prepared.digests})
    pairs = list(pairs_of(prepared.corpus.slides, originals))
    with ray_for_job():
        found, refused = registered(pairs, labels, how, folder, options)
        failed = {**prepared.corpus.failed, **refused}
        if not found:
            return told(failed, len(originals))
        pairs = [pair for pair in pairs if pair[1].slide_id in found]
        carried = all_carried(pairs, labels, found)
        there = figures_there(carried)
        own = figures_of(labels, {original.slide_id for original, _ in pairs})
        names = ["slide_id", "x_px", "y_px"]
        places = pa.concat_tables([own.select(names), there.select(names)])
        scores, unread = ensemble_scores(places, prepared.corpus.slides, classifiers, folder, options)
        threshold = job.threshold
        if threshold is None:
            values = [scores[row] for row in range(len(own)) if row in scores]
            threshold = threshold_keeping(np.array(values), job.kept_originals)
        keys = list(zip(there["slide_id"].to_pylist(), there["label"].to_pylist(), strict=True))
        by_label = {key: scores[len(own) + n] for n, key in enumerate(keys) if len(own) + n in scores}
        table = with_states(carried, by_label, threshold)
        failed |= unread | draw_examples(pairs, table, folder, options)
    folder.write_table(CARRIED_FILE, table)
    rows = write_results(job, material, prepared, labels, table, classifiers, threshold)
    folder.write_csv(TABLE_FILE, pa.Table.from_pylist(rows))
    print(f"Figures kept of those on the originals ({prepared.data}), at a score of {threshold:.3f} or more")
    print(as_text(rows))
    print(as_text([registration_row(name, one) for name, one in sorted(found.items())]))
    print(f"New version: {job.output / job.version}; pictures: {job.output / 'pictures'}")
    counts = {f"{row['scan']}/{row['domain']}/{name}": row[name] for row in rows for name in row if name[0] in "fa"}
    recorded("curate_rescans", job.mlflow, {**settings, "threshold": threshold}, {**counts, "failed": len(failed)})
    return told(failed, len(originals))


def figures_of(labels: pa.Table, slide_ids: set[str]) -> pa.Table:
    """The figures on these slides."""
    own = pc.is_in(labels["slide_id"], value_set=pa.array(sorted(slide_ids), pa.string()))
    return labels.filter(pc.and_(own, pc.equal(labels["kind"], FIGURE)))


def write_results(
    job: Rescans,
    material: Material,
    prepared: Prepared,
    labels: pa.Table,
    table: pa.Table,
    classifiers: Mapping[str, str],
    threshold: float,
) -> list[dict[str, Any]]:
    """The new version of the labels, and the table of what was kept."""
    domains = domains_of(prepared.corpus.slides)
    ensemble = ", ".join(without_secrets(uri) for uri in classifiers)
    after = with_added(labels, rescan_labels(labels, table, domains, f"ensemble of {ensemble}"))
    version = describe(
        labels,
        after,
        step="rescans",
        raters=[f"ensemble of {ensemble}"],
        review_set="",
        parent_file=Path(material.labels),
        notes={
            "threshold": threshold,
            "classifiers": {without_secrets(uri): digest for uri, digest in classifiers.items()},
        },
    )
    write_version(after, version, job.output / job.version)
    return kept_table(table, labels, sorted(set(table["original_id"].to_pylist())), domains)


def registration_row(slide_id: str, found: Any) -> dict[str, Any]:
    """What a person wants to know of a registration."""
    quality, angle = round(found.quality, 2), round(found.angle_degrees, 1)
    return {"rescan": slide_id, "quality": quality, "features": found.inliers, "turned by °": angle}


def told(failed: Mapping[str, str], rescans: int) -> int:
    """Name what failed; the exit status."""
    for name, error in failed.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} slides of {rescans} rescans and their originals failed; the others are done.",
            file=sys.stderr,
        )
    return PARTLY_FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())
