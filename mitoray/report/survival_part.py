"""The report's part on survival: a run's counts beside a clinical table, analysed as jobs/survival.py does."""

from collections.abc import Mapping
from typing import Any

from mitoray.report.cohort_summary import Summary
from mitoray.report.survival_files import report_part
from mitoray.report.survival_style import Cohort
from mitoray.slide import redact
from mitoray.storage import Folder
from mitoray.survival.analysis import Settings, analyse
from mitoray.survival.clinical import read_clinical
from mitoray.survival.columns import Columns
from mitoray.survival.cut_points import PUBLISHED_CUT
from mitoray.survival.followed import ratios_of
from mitoray.survival.joining import join
from mitoray.survival.scored import CASES

COUNT = "mitotic_count"


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
    slides = folder.read_table("slides/slides.parquet")
    scored = folder.read_table(CASES) if folder.exists(CASES) else slides
    told = [name for name in ratios_of(scored.column_names) if scored[name].null_count < scored.num_rows]
    values = [COUNT, *told]
    joined = join(scored, read_clinical(clinical, columns), values)
    # The published cut is one of counts in 2 mm²: it says nothing about ratios.
    analyses = [
        analyse(joined, value, settings or Settings(), PUBLISHED_CUT if value == COUNT else None) for value in values
    ]
    if cohort is None:
        cohort = "phantom" if Summary.of(slides.to_pylist()).all_phantoms else "real slides"
    return {"title": redact(clinical).rpartition("/")[2], **report_part(joined, analyses, cohort=cohort)}
