"""The report's part on survival: a run's counts beside a clinical table, analysed as jobs/survival.py does."""

from collections.abc import Mapping
from typing import Any

from mitoray.report.cohort_summary import Summary
from mitoray.report.survival_files import report_part
from mitoray.report.survival_style import Cohort
from mitoray.scoring.results import SLIDES_TABLE
from mitoray.slide import redact
from mitoray.storage import Folder
from mitoray.survival.analysis import Settings, analyse_all
from mitoray.survival.clinical import read_clinical
from mitoray.survival.columns import Columns
from mitoray.survival.followed import values_of
from mitoray.survival.joining import join
from mitoray.survival.scored import counts_of_run


def survival_part(
    folder: Folder,
    clinical: str,
    columns: Columns | None = None,
    settings: Settings | None = None,
    *,
    cohort: Cohort | None = None,
) -> Mapping[str, Any]:
    """What `write_report` takes of one clinical table: title, notes, and figures with what they show in words.

    Looks at the mitotic count and at each atypical ratio that the run has: of its cases where it has them, of its
    slides otherwise. columns: of the clinical table, by default those of TCGA-CDR. cohort: whom the figures are of, as
    said below each; None takes phantoms where all slides are, else real slides. Raises BadClinicalTable, and
    BadManifest where no slide has a patient.
    """
    scored, _ = counts_of_run(folder)
    values = values_of(scored)
    joined = join(scored, read_clinical(clinical, columns), values)
    analyses = analyse_all(joined, values, settings)
    if cohort is None:
        slides = folder.read_table(SLIDES_TABLE)
        cohort = "phantom" if Summary.of(slides.to_pylist()).all_phantoms else "real slides"
    return {"title": redact(clinical).rpartition("/")[2], **report_part(joined, analyses, cohort=cohort)}
