"""Write the report of a scored cohort: one HTML file in which to look at its slides, without a network.

    python jobs/report.py --run out
    python jobs/report.py --run s3://bucket/out --clinical tcga_cdr_brca.csv --output report.html

jobs/score_cohort.py writes it too. Pictures of slides are taken once and kept in the run's folder; a slide that cannot
be read any more has a panel that says so. Exit status: 0 written, 2 bad arguments or no scored run there, 1 anything
else.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadClinicalTable, BadManifest, BadOption, NotARun
from mitoray.report.cohort_report import REPORT, ReportSource, read_run, write_report
from mitoray.report.panels import TOTAL
from mitoray.report.survival_part import survival_part
from mitoray.report.survival_style import Cohort
from mitoray.scoring.manifest import read_manifest
from mitoray.scoring.tasks import ray_for_job
from mitoray.storage import Folder
from mitoray.survival.columns import ClinicalTable


@dataclass(frozen=True)
class Report:
    """Which run to report on, and where to.

    Args:
        run: folder or URI that score_cohort wrote.
        output: file (….html), or folder or URI for report.html; None takes the run's folder.
        clinical: CSV or TSV of patients, one or several, for survival by count; by default with TCGA-CDR's columns.
        cohort: whom the survival figures are of, said below each: simulated, phantom, or real slides; None takes
            phantom where all slides are, else real slides.
        manifest: the run's manifest, where its slides' URIs hold signatures, which the run does not keep.
        megabytes: the most that all slides' pictures may take together, MB; they get smaller and fewer to fit.
        storage_options: of the object storage as fsspec takes them, JSON or YAML, such as
            '{"endpoint_url": "http://minio:9000"}'. Credentials are better left to the environment or ~/.aws.
    """

    run: str
    output: str | None = None
    clinical: list[str] | None = None
    cohort: Cohort | None = None
    manifest: str | None = None
    megabytes: float = TOTAL / 1e6
    storage_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.megabytes <= 500:
            raise BadOption(f"--megabytes must lie between 1 and 500, not {self.megabytes}.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadClinicalTable, BadManifest, BadOption, NotARun))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("report", __doc__.partition("\n")[0])
    parser.add_argument("--clinical", nargs="+", metavar="CSV", help="patients, for survival by count")
    parser.add_class_arguments(Report, skip={"clinical"})
    parser.add_class_arguments(ClinicalTable)
    options, layout = parser.parsed(argv, Report, ClinicalTable)
    folder = Folder.at(options.run, options.storage_options)
    read_run(folder)
    rows = read_manifest(options.manifest, options.storage_options) if options.manifest else []
    uris = {row.slide_id: row.uri for row in rows}
    survival = [survival_part(folder, table, layout.columns, cohort=options.cohort) for table in options.clinical or []]
    output, name = _place(options, folder)
    with ray_for_job():
        source = ReportSource(folder, options.storage_options, uris, int(options.megabytes * 1e6))
        size = write_report(source, output, name, survival=survival)
    print(f"Report: {output.shown}/{name} ({size / 1e6:.1f} MB)")
    return DONE


def _place(options: Report, folder: Folder) -> tuple[Folder, str]:
    """The folder and the name of the file to write."""
    if options.output is None:
        return folder, REPORT
    if not options.output.lower().endswith((".html", ".htm")):
        return Folder.at(options.output, options.storage_options), REPORT
    parent, _, name = options.output.rpartition("/")
    return Folder.at(parent or str(PurePosixPath(".")), options.storage_options), name


if __name__ == "__main__":
    sys.exit(main())
