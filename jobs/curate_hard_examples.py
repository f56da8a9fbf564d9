"""Split an ambiguous class of labels into likely figures, look-alikes and the rest (Bertram et al. 2019: HEAEL).

    python jobs/curate_hard_examples.py propose --kind ambiguous --classifier mitoray-c --manifest slides.csv \
        --labels labels.parquet --output hard
    python jobs/curate_hard_examples.py third (the same options) --first a.sqlite --second b.sqlite
    python jobs/curate_hard_examples.py import (the same options) --first a.sqlite --second b.sqlite --third c.sqlite

propose: a classifier scores the labels of the kind; likely figures go to two experts, blinded. third: what they
disagree on, for a third. import: the majority, and the others as look-alikes, as a new version of the labels. Exit
status: 0 done, 2 bad arguments or input (nothing was written), 3 some slides could not be read (each is named), 1
anything else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.curation.crops import CROP_PX
from mitoray.curation.hard_examples import Split, changes, of_kind, split_by_score
from mitoray.curation.missed import score_groups
from mitoray.curation.review import review_set
from mitoray.curation.versions import describe, labels_digest, with_changed, write_version
from mitoray.curation_jobs import (
    BAD_INPUT,
    PROPOSAL_FILE,
    THIRD_FOLDER,
    Panel,
    checked_parent,
    classifier_digest,
    classifier_scores,
    handed_out,
    kept_review,
    proposal_of,
    recorded,
    settled,
    third_review,
    told_added,
)
from mitoray.errors import BadOption
from mitoray.labels import read_labels
from mitoray.labels.schema import KINDS
from mitoray.models.sources import without_secrets
from mitoray.report.text import as_text
from mitoray.scoring.tasks import ray_for_job
from mitoray.training_jobs import Material, claimed, prepare


@dataclass(frozen=True)
class Hard:
    """What is split, and where the results go.

    Args:
        command: propose, third or import.
        output: folder for experts' folders and the new labels. Belongs to one configuration.
        kind: of the labels to split, as the label table calls it.
        classifier: bundle that scores them.
        likely: score, 0 to 1, from which a label is a likely figure, for experts to look at.
        look_alike: score, 0 to 1, from which another one becomes an imposter; below, it stays what it is.
        crop_px: side of experts' crops, px at 0.25 µm/px.
        review_seed: of the random orders in which candidates are shown.
        version: name of the new label table in the output, a .parquet file.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    command: Literal["propose", "third", "import"]
    output: Path
    kind: str
    classifier: str = "mitoray-c"
    likely: float = 0.5
    look_alike: float = 0.0
    crop_px: int = CROP_PX
    review_seed: int = 0
    version: str = "labels.parquet"
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not 0 <= self.look_alike <= self.likely <= 1:
            raise BadOption("look_alike and likely must lie between 0 and 1, in this order.")
        if self.kind == KINDS[0]:
            raise BadOption(f"kind {self.kind!r} is not ambiguous. Name another class of the labels.")
        if Path(self.version).name != self.version or not self.version.endswith(".parquet"):
            raise BadOption(f"version {self.version!r} must be the name of a .parquet file, without folders.")

    @property
    def choices(self) -> tuple[str, ...]:
        """What an expert may decide for."""
        return tuple(dict.fromkeys((*KINDS, self.kind)))


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=BAD_INPUT)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("curate_hard_examples", __doc__.partition("\n")[0])
    parser.add_argument("command", choices=["propose", "third", "import"], help="propose, third or import")
    parser.add_class_arguments(Hard, skip={"command"})
    for group in (Panel, Material):
        parser.add_class_arguments(group)
    job, panel, material = parser.parsed(argv, Hard, Panel, Material)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    if job.command == "propose":
        return propose(job, material)
    proposal = proposal_of(job.output)
    return third(job, panel, material) if job.command == "third" else take(job, panel, material, proposal)


def propose(job: Hard, material: Material) -> int:
    """The class's scores, and the experts' folders."""
    options = material.storage_options
    labels = read_labels(material.labels)
    numbers = of_kind(labels, job.kind)
    digest = classifier_digest(job.classifier, options)
    prepared = prepare(material)
    slides = prepared.corpus.slides
    names = ("kind", "likely", "look_alike", "crop_px", "review_seed")
    settings = {**{name: getattr(job, name) for name in names}, "classifier": digest}
    folder = claimed(str(job.output), None, {"curation": settings, "data": prepared.digests})
    places = labels.take(pa.array(numbers))
    with ray_for_job():
        scores, failed = classifier_scores(places, slides, job.classifier, digest, options)
    scored = sorted(scores)
    values = np.array([scores[i] for i in scored], np.float64)
    split = split_by_score([numbers[i] for i in scored], values, likely=job.likely, look_alike=job.look_alike)
    failed |= prepared.corpus.failed
    print(f"{len(numbers)} labels of the kind {job.kind!r} ({prepared.data}): {len(split.likely)} likely figures, ")
    print(f"{len(split.look_alikes)} look-alikes, {len(split.others)} stay, {len(numbers) - len(scored)} not scored.")
    proposal = {
        "parent": labels_digest(labels),
        "labels": without_secrets(material.labels),
        "scored_by": without_secrets(job.classifier),
        "likely": len(split.likely),
        "look_alikes": split.look_alikes,
    }
    folder.write_json(PROPOSAL_FILE, proposal)
    if split.likely:
        likely = labels.take(pa.array(split.likely)).select(["slide_id", "x_px", "y_px"])
        score_of = dict(zip([numbers[i] for i in scored], score_groups(values).tolist(), strict=True))
        likely = likely.append_column("group", pa.array([score_of[number] for number in split.likely], pa.int64()))
        review = review_set(likely, seed=job.review_seed, choices=job.choices, what=f"likely figures among {job.kind}")
        seeds = {"for-expert-1": job.review_seed + 1, "for-expert-2": job.review_seed + 2}
        handed_out(kept_review(review, job.output), job.output, seeds, slides, options, job.crop_px)
        print(f"To review, blinded: {', '.join(str(job.output / name) for name in seeds)}")
    else:
        print("No label is a likely figure: there is nothing to review. Import the look-alikes, or lower --likely.")
    counts = {"likely": len(split.likely), "look_alikes": len(split.look_alikes), "others": len(split.others)}
    recorded("curate_hard_examples propose", job.mlflow, settings, counts)
    for name, error in failed.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


def third(job: Hard, panel: Panel, material: Material) -> int:
    """The third expert's folder."""
    review = third_review(job.output, panel, job.review_seed + 3)
    if not len(review):
        print("The two agree on every candidate. Import their decisions.")
        return DONE
    slides, folders = prepare(material).corpus.slides, {THIRD_FOLDER: job.review_seed + 4}
    handed_out(review, job.output, folders, slides, material.storage_options, job.crop_px)
    print(f"The two disagree on {len(review)} candidates, for a third expert: {job.output / THIRD_FOLDER}")
    recorded("curate_hard_examples third", job.mlflow, {"kind": job.kind}, {"disagreed": len(review)})
    return DONE


def take(job: Hard, panel: Panel, material: Material, proposal: dict[str, Any]) -> int:
    """The new version of the labels, and what it changes."""
    before = checked_parent(read_labels(material.labels), proposal)
    decided: dict[int, dict[str, Any]] = {}
    raters: list[str] = []
    digest, undecided = "", 0
    if proposal.get("likely", True):  # older proposals were kept only where there was something to review
        review, raters, found = settled(job.output, panel, job.review_seed + 3, None)
        decided, digest, undecided = decisions(job.kind, before, found.table), review.digest, len(found.undecided)
    split = Split((), tuple(proposal["look_alikes"]), ())
    after = with_changed(before, changes(split, decided))
    version = describe(
        before,
        after,
        step=f"hard examples of {job.kind}",
        raters=raters,
        review_set=digest,
        parent_file=Path(material.labels),
        notes={"scored_by": proposal["scored_by"], "undecided": undecided},
    )
    write_version(after, version, job.output / job.version)
    table = told_added(job.output, before, after)
    print(as_text(table))
    print(f"New version: {job.output / job.version}; changed: {dict(version.changed)}")
    total = {name: value for name, value in table[-1].items() if name != "slide_id"}
    recorded("curate_hard_examples import", job.mlflow, {"raters": raters, "parent": version.parent}, total)
    return DONE


def decisions(kind: str, labels: pa.Table, settled: pa.Table) -> dict[int, dict[str, Any]]:
    """By the label's number: what the experts made of it, their votes behind those that it had."""
    rows = labels.to_pylist()
    place = {(row["slide_id"], row["x_px"], row["y_px"]): n for n, row in enumerate(rows) if row["kind"] == kind}
    decided = {}
    for row in settled.to_pylist():
        number = place[row["slide_id"], row["x_px"], row["y_px"]]
        decided[number] = {"kind": row["kind"], "votes": [*(rows[number]["votes"] or []), *row["votes"]]}
    return decided


if __name__ == "__main__":
    sys.exit(main())
