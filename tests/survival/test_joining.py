import pyarrow as pa
import pytest

from mitoray.errors import BadManifest, BadOption
from mitoray.survival.barcodes import barcode_of
from mitoray.survival.clinical import EXCLUDED, PATIENTS, ClinicalCohort
from mitoray.survival.columns import tcga_cdr
from mitoray.survival.joining import join

UUID = "1A2B3C4D-0000-4000-8000-ABCDEFABCDEF"


def clinical(*patients, excluded=()):
    rows = [{"patient": name, "time_days": 10.0, "event": False, "age_years": None, "stage": None} for name in patients]
    out = [{"row": i, "patient": name, "reason": "time ≤ 0"} for i, name in enumerate(excluded, start=1)]
    tables = pa.Table.from_pylist(rows, schema=PATIENTS), pa.Table.from_pylist(out, schema=EXCLUDED)
    return ClinicalCohort(*tables, tcga_cdr(), "clinical.csv")


def slides(*rows):
    names = ("slide_id", "case_id", "status", "mitotic_count")
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


@pytest.mark.parametrize(
    ("name", "patient", "section"),
    [
        ("TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB", "DX1"),
        (f"TCGA-A1-A0SB-01Z-00-DX1.{UUID}", "TCGA-A1-A0SB", "DX1"),
        (f"TCGA-A1-A0SB-01Z-00-DX1.{UUID}.svs", "TCGA-A1-A0SB", "DX1"),
        (f"tcga-a1-a0sb-01z-00-dx1.{UUID.lower()}.svs", "TCGA-A1-A0SB", "DX1"),
        ("TCGA-A1-A0SB-01A-01-TSA", "TCGA-A1-A0SB", "TSA"),
        ("TCGA-A1-A0SB", "TCGA-A1-A0SB", None),
        (" TCGA-A1-A0SB-01 ", "TCGA-A1-A0SB", None),
        ("TCGA-A1-A0SB_level0.tif", "TCGA-A1-A0SB", None),
    ],
)
def test_barcodes_tell_the_patient_whatever_follows(name, patient, section):
    barcode = barcode_of(name)
    assert (barcode.patient, barcode.section, barcode.other_tissue) == (patient, section, None)


@pytest.mark.parametrize("name", ["", "slide 7", "TCGA-A1", "TCGA-A1-A0SBX-01Z", "XTCGA-A1-A0SB", "TCGA-A1-A0S-01Z"])
def test_other_names_are_no_barcodes(name):
    assert barcode_of(name) is None


def test_slides_without_patients_and_patients_without_slides_are_listed_with_reasons():
    table = slides(
        ("TCGA-A1-0001-01Z-00-DX1", None, "scored", 5),
        (f"TCGA-A1-0001-01Z-00-DX2.{UUID}", None, "partial", 9),
        ("any name", "TCGA-A1-0002", "scored", 0),
        ("TCGA-A1-0003-01Z-00-DX1", None, "failed", None),
        ("TCGA-A1-0004-11A-01-TS1", None, "scored", 3),
        ("TCGA-A1-0009-01Z-00-DX1", None, "scored", 3),
        ("TCGA-A1-0005-01Z-00-DX1", None, "scored", 3),
        ("nobody", None, "scored", 3),
        ("TCGA-A1-0002-01Z-00-DX1", None, "scored", None),
    )
    names = [f"TCGA-A1-000{i}" for i in (2, 1, 3, 4, 6)]
    joined = join(table, clinical(*names, excluded=["TCGA-A1-0005"]))
    columns = ("patient", "n_slides", "mitotic_count")
    assert [tuple(row[c] for c in columns) for row in joined.patients.to_pylist()] == [
        ("TCGA-A1-0002", 1, 0.0),
        ("TCGA-A1-0001", 2, 9.0),
    ]
    assert [(row["slide_id"][:12], row["reason"]) for row in joined.slides_without_patients.to_pylist()] == [
        ("TCGA-A1-0003", "the slide failed"),
        ("TCGA-A1-0004", "the slide is of normal tissue"),
        ("TCGA-A1-0009", "its patient is not in the clinical table"),
        ("TCGA-A1-0005", "its patient is excluded: time ≤ 0"),
        ("nobody", "no case_id, and no barcode in slide_id"),
        ("TCGA-A1-0002", "the slide has no count"),
    ]
    assert joined.patients_without_slides.to_pylist() == [
        {"patient": "TCGA-A1-0003", "reason": "no slide that counts"},
        {"patient": "TCGA-A1-0004", "reason": "no slide that counts"},
        {"patient": "TCGA-A1-0006", "reason": "no slide"},
    ]
    assert joined.n_partial == 1


@pytest.mark.parametrize(("combine", "value"), [("max", 9.0), ("mean", 6.0), ("sum", 12.0)])
def test_several_slides_of_a_patient_are_combined_as_told(combine, value):
    table = slides(("a", "P", "scored", 3), ("b", "P", "scored", 9))
    assert join(table, clinical("P"), combine=combine).patients["mitotic_count"].to_pylist() == [value]


def test_a_value_that_some_slides_lack_leaves_the_others():
    table = slides(("a", "P", "scored", 3), ("b", "P", "scored", 9), ("c", "Q", "scored", 1))
    table = table.append_column("atypical_ratio", pa.array([0.5, None, float("nan")]))
    joined = join(table, clinical("P", "Q"), ["mitotic_count", "atypical_ratio"])
    assert joined.patients["atypical_ratio"].to_pylist() == [0.5, None]
    assert joined.patients["mitotic_count"].to_pylist() == [9.0, 1.0]


def test_cases_are_joined_by_case_id_alone():
    cases = pa.table({"case_id": ["TCGA-A1-0001", "dog 7"], "mitotic_count": [4, 5]})
    joined = join(cases, clinical("TCGA-A1-0001", "dog 7"))
    assert joined.patients["mitotic_count"].to_pylist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"mitotic_count": [1]}), "lacks slide_id and case_id"),
        (pa.table({"slide_id": ["P"]}), "lacks the column mitotic_count"),
        (slides(("x", None, "scored", 1)), "No slide belongs to a patient"),
        (slides(("P", None, "failed", None)), "the slide failed: 1"),
        (pa.table({"slide_id": ["P"], "mitotic_count": ["many"]}), "value of the wrong type"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(table, message):
    with pytest.raises(BadManifest, match=message):
        join(table, clinical("P"))


def test_unknown_combinations_and_taken_names_are_refused():
    with pytest.raises(BadOption, match="combined by 'median'"):
        join(slides(("P", None, "scored", 1)), clinical("P"), combine="median")
    table = slides(("P", None, "scored", 1)).append_column("event", pa.array([1]))
    with pytest.raises(BadOption, match="event is a column of the clinical table"):
        join(table, clinical("P"), ["event"])
