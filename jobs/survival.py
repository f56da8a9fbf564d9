"""Survival by mitotic count: a scored cohort beside its clinical table.

    python jobs/survival.py --run out --clinical tcga_cdr_brca.csv --endpoint OS --output survival
    python jobs/survival.py --slides-table cases.csv --clinical cohort.tsv --patient case --time months \\
        --time-unit months --event died --age age --stage ajcc --output survival

Writes survival.json, the joined and the left out patients and slides as CSV, hazard ratios, survival curves and cut
points as CSV, and figures. Exit status: 0 done, 2 bad arguments or input (nothing was written), 3 something is
undefined in these data (each is named), 1 anything else.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from mitoray import __version__
from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadClinicalTable, BadManifest, BadOption
from mitoray.report.survival_files import told, write_survival
from mitoray.report.survival_style import Cohort
from mitoray.slide import redact
from mitoray.storage import Folder
from mitoray.survival.analysis import Settings, ValueAnalysis, analyse_all, as_json
from mitoray.survival.clinical import read_clinical
from mitoray.survival.columns import ClinicalTable
from mitoray.survival.cut_points import MIN_SHARE, PUBLISHED_CUT
from mitoray.survival.followed import values_of
from mitoray.survival.joining import Combination, JoinedCohort, join
from mitoray.survival.scored import counts_of_run, read_scored_table


@dataclass(frozen=True)
class Survival:
    """What to join, and what to ask.

    Args:
        clinical: CSV or TSV of patients, by default with the columns of TCGA-CDR.
        output: folder or URI for tables, figures and survival.json.
        run: folder or URI that score_cohort wrote; its cases are taken where it has them, its slides otherwise.
        slides_table: instead of a run, a CSV or Parquet table with slide_id or case_id and the values.
        values: columns of the scored table to look at; none takes mitotic_count and every atypical ratio.
        combine: what several slides of a patient become: max, mean or sum.
        published_cut: mitotic count from which a patient is high, set beforehand (11 in 2 mm²: Fick et al. 2024).
        censor_years: follow-up ends here, years.
        min_share: share of patients on the smaller side of a cut at least, 0 to 0.5.
        permutations: of the values for the honest p of the best cut; 0 leaves it out.
        repeats: bootstrap draws of patients for the interval of the best cut; 0 leaves it out.
        n_knots: of the spline: 3, 4 or 5.
        seed: of permutations and bootstrap.
        cohort: whom the figures are of, said below each: simulated, phantom, or real slides.
    """

    clinical: str
    output: str
    run: str | None = None
    slides_table: str | None = None
    values: list[str] | None = None
    combine: Combination = "max"
    published_cut: float | None = PUBLISHED_CUT
    censor_years: float = 10.0
    min_share: float = MIN_SHARE
    permutations: int = 1000
    repeats: int = 1000
    n_knots: int = 4
    seed: int = 0
    cohort: Cohort = "real slides"

    def __post_init__(self) -> None:
        if (self.run is None) == (self.slides_table is None):
            raise BadOption("Give either --run or --slides-table.")

    @property
    def settings(self) -> Settings:
        """How values are looked at."""
        return Settings(self.censor_years, self.min_share, self.permutations, self.repeats, self.n_knots, self.seed)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadClinicalTable, BadManifest, BadOption))


def run(argv: Sequence[str] | None) -> int:
    """Join, analyse, write, tell."""
    parser = JobParser("survival", __doc__.partition("\n")[0])
    parser.add_class_arguments(Survival)
    parser.add_class_arguments(ClinicalTable)
    options, layout = parser.parsed(argv, Survival, ClinicalTable)
    table, source = _scored(options)
    values = options.values or values_of(table)
    joined = join(table, read_clinical(options.clinical, layout.columns), values, combine=options.combine)
    analyses = analyse_all(joined, values, options.settings, options.published_cut)
    folder = Folder.at(options.output)
    files = write_survival(folder, joined, analyses, cohort=options.cohort)
    folder.write_json("survival.json", _document({**asdict(options), **asdict(layout)}, source, joined, analyses))
    _tell(joined, analyses)
    print(f"survival.json and {len(files)} tables and figures: {folder.shown}")
    return PARTLY_FAILED if any(analysis.all_undefined for analysis in analyses) else DONE


def _scored(options: Survival) -> tuple[pa.Table, str]:
    if options.run is not None:
        return counts_of_run(Folder.at(options.run))
    return read_scored_table(str(options.slides_table)), redact(str(options.slides_table))


def _document(
    options: Mapping[str, object], source: str, joined: JoinedCohort, analyses: Sequence[ValueAnalysis]
) -> dict[str, object]:
    return {
        "mitoray": __version__,
        "options": {name: redact(v) if isinstance(v, str) else v for name, v in options.items()},
        "scored_table": source,
        "clinical_rows": joined.clinical.n_rows,
        "excluded_patients": joined.clinical.reasons,
        "left_out": joined.reasons,
        "joined_patients": joined.patients.num_rows,
        "joined_events": joined.patients["event"].to_pylist().count(True),
        "slides_scored_in_part": joined.n_partial,
        "values": {analysis.patients.name: _results(analysis) for analysis in analyses},
    }


def _results(analysis: ValueAnalysis) -> dict[str, object]:
    best, uncut = analysis.best, analysis.continuous
    search = best.search if best else None
    return {
        "patients": len(analysis.patients.value),
        "events": int(analysis.patients.event.sum()),
        "at_published_cut": as_json(analysis.published),
        "best_cut": None
        if best is None or search is None
        else {
            "cut": search.cut,
            "naive_p": search.best_naive_p,
            "lausen_schumacher_1992_p": search.p_1992,
            "lausen_schumacher_1994_p": search.p_1994,
            "permutation_p": as_json(search.permutation_p),
            "bootstrap": as_json(best.bootstrap),
            "comparison": as_json(best.comparison),
        },
        "uncut": as_json(uncut),
        "undefined": analysis.all_undefined,
    }


def _tell(joined: JoinedCohort, analyses: Sequence[ValueAnalysis]) -> None:
    clinical = joined.clinical
    print(f"{clinical.n_rows:,} patients in {clinical.source}, {joined.patients.num_rows:,} with a scored slide.")
    for side, reasons in {"excluded": clinical.reasons, **joined.reasons}.items():
        for reason, n in reasons.items():
            print(f"  left out, {side}: {n:,}, {reason}")
    if joined.n_partial:
        print(f"  counted although some of their tissue could not be scored: {joined.n_partial:,} slides")
    for analysis in analyses:
        for name in ("published_cut", "best_cut", "cut_search", "hazard_curve", "hazard_ratios"):
            if text := told(analysis, name):
                print(text)
        for name, why in analysis.all_undefined.items():
            print(f"Undefined, {analysis.patients.name} {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
