"""Describe a label table: cases, mitotic figures and imposters per domain, and how far the experts agree.

    python jobs/describe_dataset.py --labels MIDOG++.json --cases datasets_xvalidation.csv --by tumor,scanner,laboratory
    python jobs/describe_dataset.py --labels labels.parquet --figure counts.png

Exit status: 0 described, 2 bad arguments or input, 1 anything else.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from jsonargparse import ArgumentParser

from mitoray.errors import BadOption, MitorayError
from mitoray.labels import Dialect, read_labels
from mitoray.labels.agreement import expert_agreement
from mitoray.labels.cases import read_cases, with_domains
from mitoray.labels.figures import draw_counts_per_case
from mitoray.labels.statistics import COUNTS, counts_per_case, describe


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
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    parser = ArgumentParser(prog="describe_dataset", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_class_arguments(Describe)
    try:
        config = parser.parse_args(argv)
        config.pop("config")
        run(Describe(**config.as_dict()))
    except SystemExit as end:
        return int(end.code or 0)
    except MitorayError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The figure could not be written: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: Describe) -> None:
    """Print the tables and draw the figure."""
    labels = read_labels(options.labels, options.dialect)
    cases = None
    if options.cases:
        cases = read_cases(options.cases)
        labels = with_domains(labels, cases)
    counts = counts_per_case(labels, cases)
    print(as_text(describe(counts, options.by.split(","))))
    if any(votes and len(votes) > 1 for votes in labels["votes"].to_pylist()):
        print("\nAgreement of two experts, the third where they disagree, and the final kind; shares of labels:\n")
        print(as_text(expert_agreement(labels)))
    if options.figure:
        draw_counts_per_case(counts, options.by.partition(",")[0]).savefig(options.figure, dpi=150)


def as_text(table: pa.Table) -> str:
    """A table in aligned columns: text to the left, numbers to the right, shares with four digits."""
    columns = []
    for name in table.column_names:
        floats = pa.types.is_floating(table[name].type)
        digits = 1 if name.endswith("_median") else 4
        cells = [
            name,
            *("" if v is None else f"{v:,.{digits}f}" if floats else f"{v}" for v in table[name].to_pylist()),
        ]
        width = max(map(len, cells))
        numeric = not pa.types.is_string(table[name].type)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


if __name__ == "__main__":
    sys.exit(main())
