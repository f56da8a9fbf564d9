"""The real TCGA-CDR table, and an invented one like it, beside lifelines on the raw file."""

from pathlib import Path

import pandas as pd
import pytest

from mitoray.survival.clinical import read_clinical

CDR = Path(__file__).parents[2] / "../shared/data/tcga_brca/tcga_cdr_brca.csv"

needs_cdr = pytest.mark.skipif(not CDR.is_file(), reason="needs the public TCGA-CDR table in ../shared/data/tcga_brca")


@pytest.fixture(scope="module")
def reference(benchmark_of):
    return benchmark_of("survival_tcga_brca")


@needs_cdr
def test_of_1097_patients_and_151_deaths_fourteen_are_excluded_for_their_time():
    cohort = read_clinical(str(CDR))
    assert cohort.n_rows == 1097
    assert cohort.reasons == {"time ≤ 0": 13, "missing time": 1}
    assert cohort.patients["event"].to_pylist().count(True) == 151
    assert pd.read_csv(CDR)["OS"].sum() == 151


@needs_cdr
def test_the_real_table_gives_what_lifelines_gives_on_the_raw_file(reference):
    found = reference.differences(read_clinical(str(CDR)), reference.raw(str(CDR)))
    assert len(found) == 6
    assert {name: value for name, value in found.items() if not value <= 1e-9} == {}


def test_an_invented_table_gives_what_lifelines_gives_on_the_raw_file(reference, simulated_folder):
    path = str(simulated_folder / "clinical.csv")
    table = reference.raw(path)
    cohort = read_clinical(path)
    assert cohort.patients.num_rows == len(table) == 490
    found = reference.differences(cohort, table)
    assert {name: value for name, value in found.items() if not value <= 1e-9} == {}
