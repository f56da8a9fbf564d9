"""The report's part on survival: the counts of a run beside a clinical table."""

import numpy as np
import pyarrow as pa
import pytest

from mitoray.errors import BadClinicalTable
from mitoray.report.cohort_report import ReportSource, report_of
from mitoray.report.survival_part import survival_part
from mitoray.scoring.results import write_cohort
from mitoray.scoring.schema import SLIDES
from mitoray.storage import Folder
from mitoray.survival.analysis import Settings
from mitoray.survival.columns import Columns

COLUMNS = Columns("patient", "months", "dead", "months", endpoint="overall survival")
QUICK = Settings(permutations=20, repeats=20)


@pytest.fixture
def run(tmp_path):
    """A run of 60 slides, whose files are gone, and a table of their patients: high counts die sooner."""
    rng = np.random.default_rng(4)
    counts = rng.poisson(rng.gamma(1.5, 8, 60))
    months = np.minimum(rng.exponential(np.where(counts >= 11, 30, 90)), 120).round(1)
    rows = [
        dict.fromkeys(SLIDES.names)
        | {"slide_id": f"p{i}-slide", "case_id": f"p{i}", "status": "scored", "mpp": 0.25, "uri": "/gone.svs"}
        | {"mitotic_count": int(count), "n_detections": int(count), "threshold": 0.5}
        for i, count in enumerate(counts)
    ]
    folder = Folder.at(str(tmp_path / "run"))
    write_cohort(folder, pa.Table.from_pylist(rows, schema=SLIDES))
    folder.write_json("run.json", {"status": "complete", "identity": {"model": "python:somewhere:model"}})
    lines = [f"p{i},{time},{int(time < 120)}" for i, time in enumerate(months)]
    clinical = tmp_path / "<b>clinical.csv"
    clinical.write_text("\n".join(["patient,months,dead", *lines]))
    return folder, str(clinical), int((months < 120).sum())


def test_the_part_tells_patients_events_and_what_each_figure_shows(run):
    folder, clinical, n_events = run
    part = survival_part(folder, clinical, COLUMNS, QUICK, cohort="simulated")
    assert part["title"] == "<b>clinical.csv"
    assert part["notes"][0].startswith(f"60 patients with a scored slide, {n_events} with the event")
    assert len(part["figures"]) >= 4
    for figure in part["figures"]:
        assert figure["src"].startswith("data:image/png;base64,")
        assert figure["told"]


def test_the_report_shows_it_with_words_for_those_who_cannot_see_it(run, ray_session):
    folder, clinical, _ = run
    part = survival_part(folder, clinical, COLUMNS, QUICK, cohort="simulated")
    html = report_of(ReportSource(folder), folder, survival=[part], progress=False)
    assert html.index('id="domains"') < html.index('id="survival"') < html.index('id="slides"')
    assert "<h3>&lt;b&gt;clinical.csv</h3>" in html
    assert html.count('<img src="data:image/png;base64,') == len(part["figures"])
    assert 'alt=""' not in html
    assert 'id="survival"' not in report_of(ReportSource(folder), folder, progress=False)


def test_a_clinical_table_that_is_none_is_refused_by_name(run, tmp_path):
    with pytest.raises(BadClinicalTable):
        survival_part(run[0], str(tmp_path / "none.csv"), COLUMNS, QUICK)
