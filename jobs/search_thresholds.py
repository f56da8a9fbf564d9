"""Find thresholds by domain, and an ensemble's weights and calibration, on candidates that a run has scored already.

    python jobs/score_cohort.py --classifier models/three --candidate-threshold 0.01 --manifest slides.csv --output run
    python jobs/search_thresholds.py --model models/three --detections run/detections --labels labels.csv \
        --manifest slides.csv --calibration isotonic --output search
    python jobs/search_thresholds.py --model mitoray-s --detections run/detections --labels labels.csv \
        --manifest slides.csv --test-share 0.3 --output search

Writes bundle/ (the same weights of the networks, new thresholds), search.json, thresholds.csv and reliability.png. No
network is run. Exit status: 0 done, 2 bad arguments or input (nothing was started), 1 anything else.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which shows every trial, whatever it is asked

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from mitoray import __version__
from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadDetections, BadLabels, BadManifest, BadModel, BadOption
from mitoray.evaluation import outcome
from mitoray.evaluation.calibration import Method
from mitoray.evaluation.candidate_cache import CandidateCache, candidate_cache, read_cache
from mitoray.evaluation.ensembles import check_searchable, combination_of
from mitoray.evaluation.inputs import check_overlap, read_slides
from mitoray.evaluation.matching import RADIUS_UM
from mitoray.evaluation.outcome import SEARCHED, TEST, Data, Decision
from mitoray.evaluation.search_parts import SEARCHED as SEARCHED_SPLITS
from mitoray.evaluation.search_parts import search_parts
from mitoray.labels import read_labels
from mitoray.labels.cases import read_cases
from mitoray.models import Bundle, load_bundle, save_bundle
from mitoray.models.ensemble import ensemble_of
from mitoray.ray_address import ray_address
from mitoray.report.reliability_figure import reliability_figure
from mitoray.report.text import as_text
from mitoray.slide import redact
from mitoray.tracking import TrackedRun, register_bundle
from mitoray.tracking.promotion import promote
from mitoray.training.experiments_weights import Found, WeightSearch, search_weights
from mitoray.training.fit_session import connected

F1_TAG = "f1_searched"
LISTS = {
    "members": (
        (),
        "bundles of classifiers to make a new ensemble of, not --model; their scores cached in this order",
    ),
    "score_columns": ((), "columns of the cache with the members' scores; none takes its column member_scores"),
    "searched": (SEARCHED_SPLITS, "parts of the column split to search; default: train validation"),
}


@dataclass(frozen=True)
class SearchThresholds:
    """What to search on, and where the result goes.

    Args:
        detections: the cache: folder detections/ of a run with a low --candidate-threshold, or a Parquet file.
        labels: annotation file of any dialect that mitoray reads.
        manifest: CSV or Parquet file of the slides: slide_id, and where known mpp (µm/px), domain, case_id and split
            (train, validation, test).
        output: folder for bundle/, search.json, thresholds.csv and reliability.png; made if missing.
        model: bundle whose scores are cached: a classifier, an ensemble, or of a single-stage run the detector.
        members: bundles of classifiers to make a new ensemble of, instead of --model; the cache holds their scores in
            this order.
        name: of the new bundle; None keeps the model's name.
        score_columns: columns of the cache with the members' scores; none takes its column member_scores.
        mpp: µm per px of slides for which the manifest gives none, 0.1 to 2.
        radius_um: distance in µm within which a candidate stands for a label (6.25 in CCMCT, CMC and TUPAC; MIDOG 7.5).
        searched: parts of the column split to search. Scores of slides that the networks were trained on flatter: name
            validation alone where there are figures enough.
        test_share: share of the cases, drawn at random, that judges instead of the part "test", 0 to 1.
        calibration: none, temperature (with a bias; Guo 2017), or isotonic: so that scores are probabilities.
        min_figures: mitotic figures that a domain must have in the searched part for a threshold of its own.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        register: name of a registered model that the bundle becomes a version of; needs --mlflow.
        alias: such as champion: moved to the new version if its F1 on the searched part is above that of the version
            which has it; needs --register.
        storage_options: of the object storage that holds bundles, as fsspec takes them, JSON or YAML.
        log_level: how much mitoray tells of what it does.
    """

    detections: str
    labels: str
    manifest: str
    output: Path
    model: str | None = None
    members: list[str] = field(default_factory=list)
    name: str | None = None
    score_columns: list[str] = field(default_factory=list)
    mpp: float | None = None
    radius_um: float = RADIUS_UM
    searched: list[str] = field(default_factory=lambda: list(SEARCHED_SPLITS))
    test_share: float | None = None
    calibration: Method = "none"
    min_figures: int = 20
    mlflow: str | None = None
    register: str | None = None
    alias: str | None = None
    storage_options: dict[str, Any] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.members):
            raise BadOption("Give either --model or --members.")
        if self.register and not self.mlflow:
            raise BadOption("--register needs --mlflow, the tracking server that holds the registry.")
        if self.alias and not self.register:
            raise BadOption("--alias needs --register, the name of the registered model.")
        if self.min_figures < 1:
            raise BadOption(f"--min-figures must be 1 or more, not {self.min_figures}.")
        if "test" in self.searched and self.test_share is None:
            raise BadOption("The part test judges; it cannot be searched.")


@dataclass(frozen=True)
class Result:
    """All that the search gives, to be told, written and recorded."""

    bundle: Bundle
    found: Found | None
    decision: Decision
    reasons: dict[str, str]
    rows: list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadDetections, BadLabels, BadManifest, BadModel, BadOption))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("search_thresholds", __doc__.partition("\n")[0])
    for name, (default, shown) in LISTS.items():
        parser.add_argument(f"--{name}", nargs="+", default=list(default), help=shown)
    parser.add_class_arguments(SearchThresholds, skip=set(LISTS))
    parser.add_class_arguments(WeightSearch)
    options, search = parser.parsed(argv, SearchThresholds, WeightSearch)
    logging.getLogger("mitoray").setLevel(options.log_level.upper())
    present = bundle_of(options)
    parts, data = parts_of(options, search.seed)
    before = outcome.decision_of(present)
    check_searchable(parts[SEARCHED])
    parts[SEARCHED].scores(before.combination)  # raises where the cache is of another model
    result = searched(options, search, present, before, parts, data)
    tell(result, parts)
    write(options, search, result, parts, data)
    return DONE


def bundle_of(options: SearchThresholds) -> Bundle:
    """The model given, or the new ensemble of the members, at equal weights and 0.5."""
    if options.model:
        bundle = load_bundle(options.model, options.storage_options)
        if options.calibration != "none" and not bundle.is_classifier:
            raise BadOption(f"{bundle.name} is a detector; only classifiers keep one. Leave out --calibration.")
        return bundle
    members = [load_bundle(uri, options.storage_options) for uri in options.members]
    return ensemble_of(members, name=options.name or "ensemble", threshold=0.5)[0]


def parts_of(options: SearchThresholds, seed: int) -> tuple[dict[str, CandidateCache], Data]:
    """The candidates of the slides to search and, where there are any, of those that judge; and of what images."""
    table, labels = read_cache(options.detections, options.score_columns), read_labels(options.labels)
    slides = read_slides(options.manifest, options.mpp)
    cases = read_cases(options.manifest)
    domains = dict(zip(cases["slide_id"].to_pylist(), cases["domain"].to_pylist(), strict=True))
    slides = [replace(slide, domain=slide.domain or domains.get(slide.slide_id)) for slide in slides]
    check_overlap(table, labels, slides)
    known = {slide.slide_id for slide in slides}
    ids = search_parts(cases, options.searched, options.test_share, seed)
    parts = {
        name: candidate_cache(table, labels, [s for s in slides if s.slide_id in own], options.radius_um)
        for name, own in zip((SEARCHED, TEST), ids, strict=True)
        if name == SEARCHED or own & known
    }
    return parts, "phantom" if pc.unique(labels["dataset"]).to_pylist() == ["phantom"] else "real slides"


def searched(
    options: SearchThresholds,
    search: WeightSearch,
    present: Bundle,
    before: Decision,
    parts: dict[str, CandidateCache],
    data: Data,
) -> Result:
    """Weights, then calibration and thresholds on them, as a new bundle."""
    found, combination = None, None
    if present.is_classifier:
        several = parts[SEARCHED].n_members + search.use_detector > 1
        with connected(ray_address()) if several else nullcontext():
            found = search_weights(parts[SEARCHED], search)
        combination = combination_of(found.best.weights, search.use_detector)
    decision, reasons = outcome.decided(parts[SEARCHED], combination, options.calibration, options.min_figures)
    bundle = outcome.renewed(present, decision, parts, data, options.name or present.name)
    return Result(bundle, found, decision, reasons, outcome.compared(parts, before, decision))


def tell(result: Result, parts: dict[str, CandidateCache]) -> None:
    """The table, the weights, and what to be wary of."""
    print(as_text(result.rows, digits=3, threshold=4))
    if found := result.found:
        shown = ", ".join(f"{weight:.3f}" for weight in found.best.weights)
        print(f"Weights {shown}: {found.n_evaluated} weightings in {found.duration_s:.1f} s.")
    for caution in outcome.cautions(parts, result.decision, result.reasons):
        print(caution, file=sys.stderr)


def write(
    options: SearchThresholds,
    search: WeightSearch,
    result: Result,
    parts: dict[str, CandidateCache],
    data: Data,
) -> None:
    """The new bundle and the record of how it came to be, in files and in MLflow."""
    digest = save_bundle(result.bundle, result.bundle.weights, options.output / "bundle")
    part = TEST if TEST in parts and len(parts[TEST]) else SEARCHED
    raw, fitted = outcome.reliabilities(parts[part], result.decision.combination)
    shown = "on slides not searched" if part == TEST else "on the slides searched"
    figure = reliability_figure(raw, fitted, data=data, part=shown)
    figure.savefig(options.output / "reliability.png", dpi=150)
    pacsv.write_csv(pa.Table.from_pylist(result.rows), options.output / "thresholds.csv")
    document = {
        "mitoray": __version__,
        "options": {k: redact(str(v)) if isinstance(v, Path | str) else v for k, v in asdict(options).items()}
        | {"storage_options": None, "members": [redact(uri) for uri in options.members], **asdict(search)},
        "bundle": {"name": result.bundle.name, "digest": digest},
        "data": data,
        "slides": {name: [s.slide.slide_id for s in cache.slides] for name, cache in parts.items()},
        "combination": result.decision.combination and result.decision.combination.model_dump(mode="json"),
        "thresholds": asdict(result.decision.thresholds),
        "without_own_threshold": result.reasons,
        "search": result.found and asdict(result.found),
        "calibration_error": {"part": part, "before": raw.error, "after": fitted and fitted.error},
        "rows": [{k: None if v != v else v for k, v in row.items()} for row in result.rows],
    }
    if options.mlflow:
        document["alias"] = record(options, document, result, parts, figure)
    (options.output / "search.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print(f"{options.output / 'bundle'}: {result.bundle.name}, sha256 {digest}")


def record(
    options: SearchThresholds, document: dict[str, Any], result: Result, parts: dict[str, CandidateCache], figure: Any
) -> str | None:
    """A run with F1 by domain, the registered version, and the alias where it is better; why it moved or not."""
    error, honest = document["calibration_error"], TEST if TEST in parts else SEARCHED
    metrics = {f"f1/{row['domain']}": row["F1 after"] for row in result.rows if row["part"] == honest}
    metrics |= {f"f1_searched/{row['domain']}": row["F1 after"] for row in result.rows if row["part"] == SEARCHED}
    metrics |= {"ece": error["before"] if error["after"] is None else error["after"], "ece_raw": error["before"]}
    with TrackedRun.start("search_thresholds", tracking_uri=options.mlflow) as run:
        run.log_parameters(document["options"])
        run.log_metrics(metrics)
        run.log_figure(figure, "reliability.png")
        run.log_json(document, "search.json")
        print(f"Recorded as {run.ref}.")
        if not options.register:
            return None
        value = outcome.f1_of(parts[SEARCHED], result.decision)
        named = {SEARCHED: F1_TAG, TEST: "f1_test"}
        tags = {named[part]: repr(outcome.f1_of(cache, result.decision)) for part, cache in parts.items()}
        uri = register_bundle(options.output / "bundle", options.register, run=run.ref, tags=tags)
        print(f"Registered as {uri}.")
        if not options.alias:
            return None

        def judge(folder: Path) -> float | None:
            rival = load_bundle(str(folder))
            alike = outcome.same_networks(rival, result.bundle)
            return outcome.f1_of(parts[SEARCHED], outcome.decision_of(rival)) if alike else None

        version = uri.rpartition("/")[2]
        where = {"tag": F1_TAG, "tracking_uri": options.mlflow}
        promotion = promote(options.register, options.alias, version, value, judge, **where)
        print(promotion.reason)
        return promotion.reason


if __name__ == "__main__":
    sys.exit(main())
