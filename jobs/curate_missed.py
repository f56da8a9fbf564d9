"""Find mitotic figures that the labels miss, and add what experts make of them (Bertram 2019, Aubreville 2020: ODAEL).

    python jobs/curate_missed.py propose --manifest slides.csv --labels labels.parquet --output missed
    python jobs/curate_missed.py third (the same options) --first a.sqlite --second b.sqlite
    python jobs/curate_missed.py import (the same options) --first a.sqlite --second b.sqlite --third c.sqlite

propose: the cases are parted in three; a detector trained on two parts looks at the third (or models given with
--models do), what lies far from every label becomes a candidate, a classifier scores it, and experts get it blinded.
third: what two experts disagree on, for a third. import: the majority as a new version of the labels. The same command
again goes on; a review set that was handed out stays. Exit status: 0 done, 2 bad arguments or input (nothing was
written), 3 some slides or trainings failed (each is named), 1 anything else.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.curation.crops import CROP_PX
from mitoray.curation.missed import GROUPS, case_parts, grouped, new_detections
from mitoray.curation.review import CANDIDATE, review_set
from mitoray.curation.versions import describe, labels_digest, with_added, write_version
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
from mitoray.curation_parts import kept_detections, part_trainings, trained
from mitoray.errors import BadOption
from mitoray.labels import read_labels
from mitoray.models import load_bundle
from mitoray.models.sources import without_secrets
from mitoray.ray_address import ray_address
from mitoray.report.text import as_text
from mitoray.training.adaptation import network_of
from mitoray.training.augment import Augmentation
from mitoray.training.experiments import BUNDLE_FOLDER
from mitoray.training.feed import Sampling
from mitoray.training.fit import Scaling
from mitoray.training.fit_session import ray_here
from mitoray.training.fitting import Fitting
from mitoray.training_jobs import Material, Model, claimed, parts_of, prepare

CANDIDATES_FILE = "candidates.parquet"


@dataclass(frozen=True)
class Missed:
    """What is looked for, and where the results go. The options of training are for propose without models.

    Args:
        command: propose, third or import.
        output: folder, on every node, for candidates, experts' folders, models and the new labels. Belongs to one
            configuration.
        parts: of the cases, each scored by what the others train.
        models: bundles of detectors that score instead: one for all parts, or one for each part in turn, which is to
            have been trained on the others; none trains.
        classifier: bundle that scores the candidates, such as mitoray-c; none takes the detector's score.
        least_score: of the detector, from which a detection is a candidate, 0.05 to 1.
        least_group: of ten score groups, from 0; candidates below it are not shown to experts.
        crop_px: side of experts' crops, px at 0.25 µm/px.
        validation_share: share of the training cases on which a training validates.
        at_once: trainings at a time.
        review_seed: of the random orders in which candidates are shown.
        version: name of the new label table in the output, a .parquet file.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    command: Literal["propose", "third", "import"]
    output: Path
    parts: int = 3
    models: list[str] = field(default_factory=list)
    classifier: str | None = None
    least_score: float = 0.1
    least_group: int = 0
    crop_px: int = CROP_PX
    validation_share: float = 0.2
    at_once: int = 1
    review_seed: int = 0
    version: str = "labels.parquet"
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if not 0.05 <= self.least_score <= 1:
            raise BadOption(f"least_score must lie between 0.05 and 1, not {self.least_score}.")
        if not 0 <= self.least_group < GROUPS:
            raise BadOption(f"least_group must lie between 0 and {GROUPS - 1}, not {self.least_group}.")
        if not 0 < self.validation_share < 1:
            raise BadOption(f"validation_share must lie between 0 and 1, not {self.validation_share}.")
        if self.parts < 2 or self.at_once < 1 or not 16 <= self.crop_px <= 1024:
            raise BadOption("parts must be 2 or more, at_once 1 or more, crop_px 16 to 1024.")
        if self.models and len(self.models) not in (1, self.parts):
            raise BadOption(f"Give one model, or one for each of {self.parts} parts, not {len(self.models)}.")
        if Path(self.version).name != self.version or not self.version.endswith(".parquet"):
            raise BadOption(f"version {self.version!r} must be the name of a .parquet file, without folders.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=BAD_INPUT)


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("curate_missed", __doc__.partition("\n")[0])
    parser.add_argument("command", choices=["propose", "third", "import"], help="propose, third or import")
    parser.add_class_arguments(Missed, skip={"command"})
    groups = (Panel, Material, Model, Sampling, Fitting, Augmentation, Scaling)
    for group in groups:
        parser.add_class_arguments(group)
    job, panel, material, *parts, scaling = parser.parsed(argv, Missed, *groups)
    logging.getLogger("mitoray").setLevel(job.log_level.upper())
    if job.command == "propose":
        return propose(job, material, parts, scaling)
    proposal = proposal_of(job.output)
    return third(job, panel, material) if job.command == "third" else take(job, panel, material, proposal)


def propose(job: Missed, material: Material, how: Sequence[Any], scaling: Scaling) -> int:
    """Candidates, and the experts' folders."""
    options = material.storage_options
    all_labels = read_labels(material.labels)
    prepared = prepare(material)
    corpus = prepared.corpus
    if len(job.models) == 1:
        parts = [corpus.slides]
    else:
        cases = case_parts(corpus.slides, corpus.figures(), job.parts, how[2].seed)
        parts = [corpus.of(ids) for ids in cases]
    digest = classifier_digest(job.classifier, options) if job.classifier else None
    made = [] if job.models else part_trainings(material, prepared, parts, how, scaling, job.validation_share)
    given = [load_bundle(uri, options) for uri in job.models]
    for bundle in given:
        network_of(bundle)
    settings: dict[str, Any] = {} if given else {part.__class__.__name__.lower(): asdict(part) for part in how}
    curation = {
        **{name: getattr(job, name) for name in ("least_score", "least_group", "crop_px", "review_seed")},
        "models": [bundle.digest for bundle in given],
        "classifier": digest,
    }
    held = parts_of(**{f"part-{i}": part for i, part in enumerate(parts)})
    folder = claimed(str(job.output), None, {**settings, "curation": curation, "data": prepared.digests, "parts": held})
    failed = dict(corpus.failed)
    with ray_here(scaling, ray_address(), job.at_once) as placement:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if made:
            failed |= trained(made, job.output, placement, job.at_once, scaling.max_failures, options)
        uris = job.models or [str(job.output / f"part-{number}" / BUNDLE_FOLDER) for number in range(len(parts))]
        with_models = [(uri, n, part) for n, (uri, part) in enumerate(zip(uris, parts, strict=True))]
        rows = []
        for uri, number, part in tqdm(with_models, desc="scoring", unit="part", disable=None):
            if f"part-{number}" in failed:
                continue
            detections, unread = kept_detections(folder, number, uri, part, placement, options)
            failed |= unread
            high = detections.filter(pc.greater_equal(detections["score"], job.least_score))
            rows += new_detections(high, all_labels, part).to_pylist()
        scores: dict[int, float] = {}
        if rows and job.classifier and digest:
            places = pa.Table.from_pylist(rows)
            scores, unread = classifier_scores(places, corpus.slides, job.classifier, digest, options)
            failed |= unread
    known = [
        {
            **{name: row[name] for name in ("slide_id", "x_px", "y_px")},
            "detector_score": min(1.0, row["score"]),
            "classifier_score": scores.get(number),
        }
        for number, row in enumerate(rows)
        if row["slide_id"] not in failed
    ]
    candidates = grouped(known)
    shown = candidates.filter(pc.greater_equal(candidates["group"], job.least_group))
    if not len(shown):
        print("No candidate lies far from every label. There is nothing to review.")
        return PARTLY_FAILED if failed else DONE
    names = [bundle.name for bundle in given] or [f"detectors of {job.parts} parts"]
    proposer = f"model {' and '.join(dict.fromkeys(names))}"
    folder.write_json(
        PROPOSAL_FILE,
        {
            "parent": labels_digest(all_labels),
            "labels": without_secrets(material.labels),
            "proposer": proposer,
            "scored_by": job.classifier and without_secrets(job.classifier),
            "domains": {slide.slide_id: slide.domain for slide in corpus.slides},
        },
    )
    folder.write_table(CANDIDATES_FILE, candidates)
    review = kept_review(review_set(shown, seed=job.review_seed, what="missed candidates"), job.output)
    seeds = {"for-expert-1": job.review_seed + 1, "for-expert-2": job.review_seed + 2}
    handed_out(review, job.output, seeds, corpus.slides, options, job.crop_px)
    by = "the classifier" if job.classifier else "the detector (no classifier was given)"
    print(
        f"{len(candidates)} candidates on {len(corpus.slides)} slides ({prepared.data}); groups by the score of {by}."
    )
    counted = candidates["group"].to_pylist()
    print(as_text([{"group": group, "candidates": counted.count(group)} for group in range(GROUPS)]))
    print(f"{len(review)} to review, blinded: {', '.join(str(job.output / name) for name in seeds)}")
    recorded("curate_missed propose", job.mlflow, curation, {"candidates": len(candidates), "to_review": len(review)})
    return told(failed)


def third(job: Missed, panel: Panel, material: Material) -> int:
    """The third expert's folder."""
    review = third_review(job.output, panel, job.review_seed + 3)
    if not len(review):
        print("The two agree on every candidate. Import their decisions.")
        return DONE
    prepared = prepare(material)
    handed_out(
        review,
        job.output,
        {THIRD_FOLDER: job.review_seed + 4},
        prepared.corpus.slides,
        material.storage_options,
        job.crop_px,
    )
    print(f"The two disagree on {len(review)} candidates, for a third expert: {job.output / THIRD_FOLDER}")
    recorded("curate_missed third", job.mlflow, {"review_seed": job.review_seed}, {"disagreed": len(review)})
    return DONE


def take(job: Missed, panel: Panel, material: Material, proposal: dict[str, Any]) -> int:
    """The new version of the labels, and what it adds."""
    before = checked_parent(read_labels(material.labels), proposal)
    review, raters, found = settled(job.output, panel, job.review_seed + 3, (proposal["proposer"], CANDIDATE))
    datasets = dict(zip(before["slide_id"].to_pylist(), before["dataset"].to_pylist(), strict=True))
    only = next(iter(set(datasets.values()))) if len(set(datasets.values())) == 1 else None
    rows = [
        {
            **{name: row[name] for name in ("slide_id", "x_px", "y_px", "kind", "votes")},
            "dataset": datasets.get(row["slide_id"], only),
            "domain": proposal["domains"].get(row["slide_id"]),
        }
        for row in found.table.to_pylist()
    ]
    after = with_added(before, rows)
    notes = {name: proposal[name] for name in ("proposer", "scored_by")}
    version = describe(
        before,
        after,
        step="missed candidates",
        raters=raters,
        review_set=review.digest,
        parent_file=Path(material.labels),
        notes={**notes, "undecided": len(found.undecided)},
    )
    write_version(after, version, job.output / job.version)
    table = told_added(job.output, before, after)
    print(as_text(table))
    print(f"{len(rows)} labels added by {', '.join(raters)}; {len(found.undecided)} candidates are without decision.")
    print(f"New version: {job.output / job.version}")
    total = {name: value for name, value in table[-1].items() if name != "slide_id"}
    recorded("curate_missed import", job.mlflow, {"raters": raters, "parent": version.parent}, total)
    return DONE


def told(failed: dict[str, str]) -> int:
    """Name what failed, and give the exit status."""
    for name, error in failed.items():
        print(f"failed: {name!r}: {error}", file=sys.stderr)
    return PARTLY_FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())
