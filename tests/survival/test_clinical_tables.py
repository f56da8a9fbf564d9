import pytest

from mitoray.errors import BadClinicalTable, BadOption
from mitoray.survival.clinical import PATIENTS, read_clinical, stage_group
from mitoray.survival.columns import Columns, tcga_cdr

GENERIC = Columns("case", "months", "died", "months", age="age", stage="stage")

CDR_HEADER = (
    "bcr_patient_barcode,age_at_initial_pathologic_diagnosis,ajcc_pathologic_tumor_stage,OS,OS.time,PFI,PFI.time"
)


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="clinical.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return to_file


def test_every_row_that_cannot_be_used_is_listed_with_its_reason(write):
    rows = [
        "TCGA-AA-0001,55.0,Stage IIA,1.0,100.0,0,90",
        "TCGA-AA-0002,55.0,Stage IIA,0.0,0.0,0,0",
        "TCGA-AA-0003,55.0,Stage IIA,0.0,-5,0,0",
        "TCGA-AA-0004,55.0,Stage IIA,0.0,,0,0",
        "TCGA-AA-0005,55.0,Stage IIA,[Not Available],100,0,0",
        "TCGA-AA-0006,55.0,Stage IIA,2,100,0,0",
        "TCGA-AA-0007,55.0,Stage IIA,1,soon,0,0",
        "TCGA-AA-0008,,Stage X,0,100,0,0",
        "TCGA-AA-0008,,Stage X,0,100,0,0",
        ",55.0,Stage IIA,1.0,100.0,0,90",
        "TCGA-AA-0009,[Not Available],[Discrepancy],0,#N/A,0,inf",
    ]
    cohort = read_clinical(write("\n".join([CDR_HEADER, *rows])))
    assert cohort.patients.to_pylist() == [
        {"patient": "TCGA-AA-0001", "time_days": 100.0, "event": True, "age_years": 55.0, "stage": "II"}
    ]
    assert cohort.patients.schema == PATIENTS
    assert [(row["row"], row["reason"]) for row in cohort.excluded.to_pylist()] == [
        (2, "time ≤ 0"),
        (3, "time ≤ 0"),
        (4, "missing time"),
        (5, "missing event"),
        (6, "event is neither 0 nor 1"),
        (7, "time is not a number"),
        (8, "patient stands in several rows"),
        (9, "patient stands in several rows"),
        (10, "no patient"),
        (11, "time is not a number"),
    ]
    assert cohort.n_rows == len(rows)
    assert cohort.reasons["time ≤ 0"] == 2


def test_another_endpoint_has_its_own_times_and_events(write):
    path = write(CDR_HEADER + "\nTCGA-AA-0001,55,Stage I,1,100,0,90\n")
    (row,) = read_clinical(path, tcga_cdr("PFI")).patients.to_pylist()
    assert (row["time_days"], row["event"]) == (90.0, False)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_generic_tables_name_their_columns_and_unit(write, delimiter):
    lines = [
        ("case", "months", "died", "age", "stage"),
        ("7", "12", "Dead", "60", "3"),
        ("8", "24.0", "0:LIVING", "", "IVB"),
    ]
    path = write("\ufeff" + "\r\n".join(delimiter.join(line) for line in lines) + "\r\n", "cohort.txt")
    assert read_clinical(path, GENERIC).patients.to_pylist() == [
        {"patient": "7", "time_days": 365.25, "event": True, "age_years": 60.0, "stage": None},
        {"patient": "8", "time_days": 730.5, "event": False, "age_years": None, "stage": "IV"},
    ]


@pytest.mark.parametrize(
    ("text", "stage"),
    [("Stage I", "I"), ("Stage IB", "I"), ("stage iia", "II"), ("IIIC", "III"), ("IV", "IV"), ("Stage X", None),
     ("[Discrepancy]", None), ("", None), ("I/II NOS", None), ("Stage IIII", None)],
)  # fmt: skip
def test_substages_belong_to_their_stage_and_anything_else_is_unknown(text, stage):
    assert stage_group(text) == stage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no patients"),
        (CDR_HEADER.encode(), "lists no patients"),
        (b"PK\x03\x04rest", "Save the sheet as CSV"),
        (b"a,b\n\xff\xfe,1\n", "not text in UTF-8"),
        (b"OS,OS.time\n1,5\n", "lacks the column 'bcr_patient_barcode'"),
        (b"a,a\n1,2\n", "two columns named 'a'"),
        (CDR_HEADER.encode() + b"\nTCGA-AA-0001,55,Stage I,1,100,0,90,extra\n", "row 1 has 8 cells"),
        (CDR_HEADER.encode() + b"\nTCGA-AA-0001,55,Stage I,1,0,0,90\n", "no patient who can be used .time ≤ 0: 1"),
    ],
)
def test_unusable_tables_are_refused_with_the_remedy(write, content, message):
    with pytest.raises(BadClinicalTable, match=message):
        read_clinical(write(content))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(BadClinicalTable, match="no clinical table at"):
        read_clinical(str(tmp_path / "gone.csv"))
    with pytest.raises(BadClinicalTable, match="is a folder"):
        read_clinical(str(tmp_path))


def test_unknown_endpoints_and_units_are_refused():
    with pytest.raises(BadOption, match="no endpoint 'RFS'"):
        tcga_cdr("RFS")
    with pytest.raises(BadOption, match="time unit 'weeks'"):
        Columns("a", "b", "c", "weeks")
