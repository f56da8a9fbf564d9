"""Hold detections against labels: F1, average precision and thresholds, by domain and in all.

    python jobs/evaluate.py --detections run/detections --labels labels.parquet --manifest run/slides --output report
    python jobs/evaluate.py --detections found.parquet --labels MIDOG++.json --mpp 0.25 --radius-um 7.5 --output report

Writes evaluation.json, precision_recall.png and, where areas are known, froc.png. Exit status: 0 done, 2 bad arguments
or input, 1 anything else.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mitoray import __version__
from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadDetections, BadLabels, BadManifest, BadOption
from mitoray.evaluation.cohort import MatchedCohort, Rule, match_cohort
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.figures import froc_figure, pr_figure
from mitoray.evaluation.inputs import check_overlap, read_detections, read_slides, slides_of
from mitoray.evaluation.matching import RADIUS_UM, FloatArray
from mitoray.evaluation.tables import ALL, as_text, domain_table
from mitoray.evaluation.thresholds import best_threshold
from mitoray.labels import read_labels
from mitoray.slide import redact
from mitoray.tracking import record_run


@dataclass(frozen=True)
class Evaluate:
    """What to compare, and how.

    Args:
        detections: Parquet file, or folder of them, with slide_id, x_px, y_px (level-0 px) and score (0 to 1).
        labels: annotation file of any dialect that mitoray reads, such as Parquet, CSV, COCO or SlideRunner.
        output: folder for evaluation.json and the figures; made if missing.
        manifest: CSV or Parquet of the slides to judge, or a run's slides table: slide_id, and where known mpp (µm/px),
            domain, area_mm2 or tissue_mm2 (mm²). None takes every slide that has a label or a detection.
        mpp: µm per px of slides for which the manifest gives none, 0.1 to 2.
        radius_um: distance in µm within which a detection stands for a label. 6.25 in CCMCT, CMC and TUPAC (25 px at
            0.25 µm/px), 7.5 in MIDOG.
        rule: one_to_one, best score first; or linked, many to one, as CMC and TUPAC were published.
        nms_um: distance in µm within which the better of two detections suppresses the other before; none suppresses
            nothing.
        threshold: a detection counts if its score is above, 0 to 1; none takes the one with the best pooled F1, which
            flatters unless chosen on other slides.
        grid: start, stop and step of the only thresholds to try, such as [0.5, 1.0, 0.01] in MIDOG++; none tries all.
        repeats: bootstrap draws of slides for the 95 % intervals; 0 leaves them out.
        seed: of the bootstrap.
        mlflow: tracking server or database to record the run in, such as sqlite:///mlruns.db; none records nothing.
    """

    detections: str
    labels: str
    output: Path
    manifest: str | None = None
    mpp: float | None = None
    radius_um: float = RADIUS_UM
    rule: Rule = "one_to_one"
    nms_um: float | None = None
    threshold: float | None = None
    grid: list[float] | None = None
    repeats: int = 1000
    seed: int = 0
    mlflow: str | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BadOption(f"--threshold must lie between 0 and 1, not {self.threshold}.")
        if self.grid is not None and not (len(self.grid) == 3 and self.grid[0] < self.grid[1] and self.grid[2] > 0):
            raise BadOption(f"--grid must be start, stop and a positive step, not {self.grid}.")
        if self.repeats < 0:
            raise BadOption(f"--repeats must be 0 or more, not {self.repeats}.")

    @property
    def thresholds(self) -> FloatArray | None:
        """The grid, spelled out."""
        return None if self.grid is None else np.arange(*self.grid)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadDetections, BadLabels, BadManifest, BadOption))


def run(argv: Sequence[str] | None) -> int:
    """Read, match, tell, write, and record where asked."""
    parser = JobParser("evaluate", __doc__.partition("\n")[0])
    parser.add_class_arguments(Evaluate)
    (options,) = parser.parsed(argv, Evaluate)
    cohort = matched(options)
    best = best_threshold(sweep(cohort.matchings), options.thresholds)
    if best is None:
        raise BadDetections("There is not one detection on the slides to judge. Check --detections and slide_id.")
    threshold = best.threshold if options.threshold is None else options.threshold
    rows = domain_table(cohort, threshold, repeats=options.repeats, seed=options.seed, grid=options.thresholds)
    origin = "best on these slides, which flatters" if options.threshold is None else "given"
    print(as_text(rows))
    print(f"Score > {threshold:.6g} ({origin}); {options.rule} within {options.radius_um} µm.")

    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "mitoray": __version__,
        "options": {k: redact(str(v)) if isinstance(v, Path | str) else v for k, v in asdict(options).items()},
        "threshold": threshold,
        "threshold_origin": "best" if options.threshold is None else "given",
        "rows": [row.as_json() for row in rows],
    }
    (options.output / "evaluation.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    draw(cohort, options.output)
    if options.mlflow:
        metrics = {f"f1/{row.domain}": row.f1_pooled for row in rows} | {
            f"ap/{row.domain}": row.average_precision for row in rows
        }
        run_id = record_run("evaluate", document["options"], metrics, options.output, options.mlflow)
        print(f"Recorded as MLflow run {run_id} in {redact(options.mlflow)}.")
    return DONE


def matched(options: Evaluate) -> MatchedCohort:
    detections, labels = read_detections(options.detections), read_labels(options.labels)
    if options.manifest is None:
        slides = slides_of(detections, labels, options.mpp)
    else:
        slides = read_slides(options.manifest, options.mpp)
    check_overlap(detections, labels, slides)
    return match_cohort(
        detections, labels, slides, radius_um=options.radius_um, rule=options.rule, nms_um=options.nms_um
    )


def draw(cohort: MatchedCohort, folder: Path) -> None:
    parts = {domain: cohort.of_domain(domain) for domain in cohort.domains} | {ALL: cohort}
    sweeps = {name: sweep(part.matchings) for name, part in parts.items()}
    pr_figure(sweeps).savefig(folder / "precision_recall.png", dpi=150)
    if areas := {name: part.area_mm2 for name, part in parts.items() if part.area_mm2}:
        froc_figure(sweeps, areas).savefig(folder / "froc.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
