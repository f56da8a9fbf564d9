"""What the jobs of curation have in common: experts' folders out, their decisions in, a new version of the labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from tqdm import tqdm

from mitoray.curation.crops import CROP_PX, classified, expert_crops
from mitoray.curation.decisions import Decisions, read_decisions
from mitoray.curation.missed import added_table
from mitoray.curation.review import Review, read_review_set, write_review_set
from mitoray.curation.review_files import write_review
from mitoray.curation.versions import labels_digest
from mitoray.curation.votes import Settled, for_third, settle
from mitoray.errors import (
    BadDecisions,
    BadLabels,
    BadManifest,
    BadModel,
    BadOption,
    ExpertsDisagree,
    OutputBelongsToAnotherRun,
    SlideError,
    TooFewCells,
)
from mitoray.labels.source import short_name
from mitoray.models import load_bundle
from mitoray.scoring.tasks import in_tasks
from mitoray.storage import Folder
from mitoray.tracking import TrackedRun
from mitoray.training.slides import TrainingSlide

BAD_INPUT: Final = (
    *(BadDecisions, BadLabels, BadManifest, BadModel, BadOption),
    *(ExpertsDisagree, OutputBelongsToAnotherRun, TooFewCells),
)
"""What a person can put right: nothing was written."""

REVIEW_FILE: Final = "review.parquet"
THIRD_FILE: Final = "review-third.parquet"
THIRD_FOLDER: Final = "for-third-expert"
PROPOSAL_FILE: Final = "proposal.json"
TABLE_FILE: Final = "added.csv"


@dataclass(frozen=True)
class Panel:
    """The experts, and what they decided.

    Args:
        first: the first expert's file: the SlideRunner database, the QuPath folder, the table, or the whole folder.
        second: the second expert's.
        third: the third expert's, on what the two disagree about; needed where they do.
        names: of the experts, in this order; a SlideRunner database says its person's name itself.
        partly: whether candidates may be left without a decision; they do not get into the labels.
    """

    first: str | None = None
    second: str | None = None
    third: str | None = None
    names: list[str] = field(default_factory=list)
    partly: bool = False

    def two(self, review: Review) -> list[Decisions]:
        """The decisions of the first two experts. Raises BadOption, BadDecisions."""
        if not (self.first and self.second):
            raise BadOption("Two experts decide: give first and second, the files that they worked in.")
        return [self._read(0, self.first, review), self._read(1, self.second, review)]

    def all(self, review: Review, third: Review) -> list[Decisions]:
        """Those, and the third expert's on `third`, where given."""
        return [*self.two(review), *([self._read(2, self.third, third)] if self.third else [])]

    def _read(self, place: int, path: str, review: Review) -> Decisions:
        name = self.names[place] if place < len(self.names) else None
        return read_decisions(Path(path), review, name, partly=self.partly)


def kept_review(review: Review, output: Path) -> Review:
    """The review set that was proposed here before, for experts may be at work on it; else this one, now kept."""
    if (output / REVIEW_FILE).exists():
        return read_review_set(output / REVIEW_FILE)
    write_review_set(review, output / REVIEW_FILE)
    return review


def handed_out(
    review: Review,
    output: Path,
    folders: Mapping[str, int],
    slides: Sequence[TrainingSlide],
    storage_options: Mapping[str, Any] | None,
    crop_px: int = CROP_PX,
) -> None:
    """Write the review set into folders for experts, each in an order of its own by its seed; those there stay."""
    files = {slide.slide_id: short_name(slide.uri) for slide in slides}
    for name, seed in folders.items():
        with tqdm(total=len(review), desc=name, unit="crop", disable=None) as bar:
            crops = partial(
                expert_crops, slides=slides, storage_options=storage_options, side_px=crop_px, done=bar.update
            )
            write_review(review.reordered(seed), output / name, crops, files)


def third_review(output: Path, panel: Panel, seed: int) -> Review:
    """What the third expert decides on; kept as `THIRD_FILE`. Raises BadDecisions."""
    review = read_review_set(output / REVIEW_FILE)
    third = for_third(review, *panel.two(review), seed=seed)
    write_review_set(third, output / THIRD_FILE)
    return third


def settled(
    output: Path, panel: Panel, seed: int, proposer: tuple[str, str] | None
) -> tuple[Review, list[str], Settled]:
    """The review set, the raters, and the majority. Raises BadDecisions, ExpertsDisagree."""
    review = read_review_set(output / REVIEW_FILE)
    third = for_third(review, *panel.two(review), seed=seed)
    experts = panel.all(review, third)
    return review, [expert.rater for expert in experts], settle(review, experts, proposer)


def checked_parent(labels: pa.Table, proposal: Mapping[str, Any]) -> pa.Table:
    """The labels that were proposed for. Raises BadLabels for others."""
    if labels_digest(labels) != proposal["parent"]:
        raise BadLabels("These labels are not those that candidates were proposed for. Give the same file as then.")
    return labels


def proposal_of(output: Path) -> dict[str, Any]:
    """What was proposed here. Raises BadDecisions where nothing was."""
    try:
        found: dict[str, Any] = Folder.at(str(output)).read_json(PROPOSAL_FILE)
    except (FileNotFoundError, ValueError):
        raise BadDecisions(f"{output.name} holds no proposal. Propose candidates into it first.") from None
    return found


def classifier_digest(uri: str, storage_options: Mapping[str, Any] | None) -> str:
    """The digest of a classifier's bundle. Raises BadModel for what is none."""
    bundle = load_bundle(uri, storage_options)
    if not bundle.is_classifier:
        raise BadModel(f"{bundle.name} is no classifier of candidates. Give one, such as mitoray-c.")
    return bundle.digest


def classifier_scores(
    places: pa.Table,
    slides: Iterable[TrainingSlide],
    classifier: str,
    digest: str,
    storage_options: Mapping[str, Any] | None,
) -> tuple[dict[int, float], dict[str, str]]:
    """A classifier's score by row number of `places`, slides in Ray tasks, and why slides could not be read."""
    scores: dict[int, float] = {}
    failed: dict[str, str] = {}
    for slide_id, found, error in slide_scores(places, slides, classifier, digest, storage_options):
        if error:
            failed[slide_id] = error
        scores |= found
    return scores, failed


def slide_scores(
    places: pa.Table,
    slides: Iterable[TrainingSlide],
    classifier: str,
    digest: str,
    storage_options: Mapping[str, Any] | None,
) -> Iterator[tuple[str, dict[int, float], str | None]]:
    """slide_id, scores by row number of `places`, and why it could not be read: slide by slide, as Ray tasks end."""
    rows: dict[str, list[int]] = {}
    for number, slide_id in enumerate(places["slide_id"].to_pylist()):
        rows.setdefault(slide_id, []).append(number)
    work = [(slide, places.take(pa.array(rows[slide.slide_id]))) for slide in slides if slide.slide_id in rows]
    one = partial(_scored, classifier=classifier, digest=digest, storage_options=storage_options)
    with tqdm(total=len(work), desc="classifying", unit="slide", disable=None) as bar:
        for slide_id, found, error in in_tasks(one, work):
            bar.update()
            yield slide_id, dict(zip(rows[slide_id], found, strict=not error)), error


def _scored(
    work: tuple[TrainingSlide, pa.Table], classifier: str, digest: str, storage_options: Mapping[str, Any] | None
) -> tuple[str, list[float], str | None]:
    try:
        return work[0].slide_id, classified(work, classifier, digest, storage_options), None
    except SlideError as error:
        return work[0].slide_id, [], f"{type(error).__name__}: {error}"


def told_added(output: Path, before: pa.Table, after: pa.Table) -> list[dict[str, Any]]:
    """Write and print what was added, per slide and in total; gives the rows."""
    rows = added_table(before, after)
    Folder.at(str(output)).write_csv(TABLE_FILE, pa.Table.from_pylist(rows))
    return rows


def recorded(step: str, tracking: str | None, settings: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
    """Record a step of curation as a run of its own, where a tracking server is given, and say where."""
    if not tracking:
        return
    with TrackedRun.start(step, tracking_uri=tracking) as tracked:
        tracked.log_parameters(settings)
        tracked.log_metrics(metrics)
        print(f"Recorded as {tracked.ref}.")
