"""Describe a label table: cases, mitotic figures and imposters per domain, and how far the experts agree.

    python jobs/describe_dataset.py --labels MIDOG++.json --cases datasets_xvalidation.csv --by tumor,scanner,laboratory
    python jobs/describe_dataset.py --labels labels.parquet --figure counts.png

Exit status: 0 described, 2 bad arguments or input, 1 anything else.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mitoray.commandline import DONE, FAILED, JobParser, run_job
from mitoray.errors import BadOption, MitorayError
from mitoray.labels import Dialect, read_labels
from mitoray.labels.agreement import expert_agreement
from mitoray.labels.cases import read_cases, with_domains
from mitoray.labels.figures import draw_counts_per_case
from mitoray.labels.statistics import COUNTS, counts_per_case, describe
from mitoray.report.text import as_text


@dataclass(frozen=True)
class Describe:
    """What to describe.

    Args:
        labels: annotation file, path or URI: MIDOG or COCO JSON, SlideRunner SQLite, QuPath GeoJSON (or a folder of
            it), CSV, Parquet.
        dialect: what the annotation file is; none tells it from the content.
        cases: CSV or Parquet table of the cases, with slide_id and optionally case_id, domain, tumor, scanner,
            laboratory, species, split; also a manifest, or datasets_xvalidation.csv of MIDOG++. None takes every
            labelled slide as a case, of the domain that the annotation file states.
        by: columns of the case table that make a group, separated by commas.
        figure: image file (.png, .pdf, .svg) for the histograms of mitotic figures per case; none draws nothing.
    """

    labels: str
    dialect: Dialect | None = None
    cases: str | None = None
    by: str = "domain"
    figure: Path | None = None

    def __post_init__(self) -> None:
        known = [name for name in COUNTS.names if pa.types.is_string(COUNTS.field(name).type)]
        if unknown := [name for name in self.by.split(",") if name not in known]:
            raise BadOption(f"--by cannot group by {', '.join(unknown)}. Known are {', '.join(known)}.")
        if self.by != "domain" and not self.cases:
            raise BadOption(f"--by {self.by} needs --cases: an annotation file knows at most the domain.")
        if self.figure and self.figure.suffix not in (".png", ".pdf", ".svg"):
            raise BadOption(f"--figure {self.figure} must end in .png, .pdf or .svg.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(MitorayError,))


def run(argv: Sequence[str] | None) -> int:
    """Print the tables and draw the figure."""
    parser = JobParser("describe_dataset", __doc__.partition("\n")[0])
    parser.add_class_arguments(Describe)
    (options,) = parser.parsed(argv, Describe)
    labels = read_labels(options.labels, options.dialect)
    cases = None
    if options.cases:
        cases = read_cases(options.cases)
        labels = with_domains(labels, cases)
    counts = counts_per_case(labels, cases)
    print(table(describe(counts, options.by.split(","))))
    if any(votes and len(votes) > 1 for votes in labels["votes"].to_pylist()):
        print("\nAgreement of two experts, the third where they disagree, and the final kind; shares of labels:\n")
        print(table(expert_agreement(labels)))
    if options.figure:
        try:
            draw_counts_per_case(counts, options.by.partition(",")[0]).savefig(options.figure, dpi=150)
        except OSError as error:
            print(f"The figure could not be written: {error}", file=sys.stderr)
            return FAILED
    return DONE


def table(described: pa.Table) -> str:
    medians = {name: 1 for name in described.column_names if name.endswith("_median")}
    return as_text(described.to_pylist(), digits=4, **medians)


if __name__ == "__main__":
    sys.exit(main())
