"""The job from files to files."""

import csv
import json

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from mitoray.scoring.schema import SLIDES
from mitoray.storage import Folder
from mitoray.survival.clinical import read_clinical
from mitoray.survival.scored import counts_of_run

FAST = ["--permutations", "30", "--repeats", "30", "--cohort", "simulated"]


@pytest.fixture
def survival(job):
    return job("survival")


@pytest.fixture
def arguments(simulated_folder, tmp_path):
    clinical = str(simulated_folder / "clinical.csv")
    return ["--run", str(simulated_folder), "--clinical", clinical, "--output", str(tmp_path / "out"), *FAST]


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_and_a_clinical_table_become_tables_figures_and_json(survival, arguments, tmp_path, capsys):
    assert survival(arguments) == 0
    out = tmp_path / "out"
    document = json.loads((out / "survival.json").read_text())
    assert document["clinical_rows"] == 500
    assert document["excluded_patients"] == {"time ≤ 0": 10}
    assert document["left_out"]["slides"] == {"its patient is excluded: time ≤ 0": 10, "the slide failed": 2}
    assert document["left_out"]["patients"] == {"no slide": 10}
    assert document["joined_patients"] == 480
    count = document["values"]["mitotic_count"]
    assert count["at_published_cut"]["cut"] == 11
    assert count["best_cut"]["naive_p"] < count["best_cut"]["permutation_p"]
    assert document["values"]["atypical_ratio"]["at_published_cut"] is None
    assert [len(rows_of(out / f"{name}.csv")) for name in ("patients", "excluded_patients")] == [480, 10]
    assert len(rows_of(out / "slides_without_patients.csv")) == 12
    assert {row["patient"] for row in rows_of(out / "patients_without_slides.csv")} >= {"TCGA-00-0049"}
    pictures = {path.name for path in out.glob("*.png")}
    assert {f"mitotic_count_{n}.png" for n in ("published_cut", "best_cut", "cut_search", "hazard_curve")} <= pictures
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    told = capsys.readouterr().out
    assert "left out, excluded: 10, time ≤ 0" in told
    assert "permutation p" in told


def test_a_run_whose_subtypes_nobody_told_is_looked_at_by_its_count_alone(survival, simulated_folder, tmp_path):
    slides = pacsv.read_csv(simulated_folder / "slides.csv")
    untold = pa.nulls(len(slides), pa.float64())
    for name in ("atypical_ratio", "hotspot_atypical_ratio"):
        slides = slides.drop([name]) if name in slides.column_names else slides
        slides = slides.append_column(name, untold)
    (tmp_path / "slides").mkdir()
    pq.write_table(slides, tmp_path / "slides/slides.parquet")
    arguments = ["--run", str(tmp_path), "--clinical", str(simulated_folder / "clinical.csv")]
    assert survival([*arguments, "--output", str(tmp_path / "out"), *FAST]) == 0
    assert list(json.loads((tmp_path / "out/survival.json").read_text())["values"]) == ["mitotic_count"]


def test_curves_in_the_table_are_those_that_were_counted(survival, arguments, tmp_path):
    assert survival([*arguments, "--values", "[mitotic_count]"]) == 0
    at_risk = rows_of(tmp_path / "out/numbers_at_risk.csv")
    start = {row["group"]: int(row["n_at_risk"]) for row in at_risk if row["time_years"] == "0" and row["cut"] == "11"}
    patients = rows_of(tmp_path / "out/patients.csv")
    high = sum(float(row["mitotic_count"]) >= 11 for row in patients)
    assert start == {"< 11": 480 - high, "≥ 11": high}
    assert {row["value"] for row in rows_of(tmp_path / "out/cut_points.csv")} == {"mitotic_count"}


def test_cases_are_taken_before_slides_where_a_run_has_them(simulated_folder, tmp_path):
    table = pa.table({"case_id": ["TCGA-00-0001"], "mitotic_count": [3]})
    (tmp_path / "cases").mkdir()
    pq.write_table(table, tmp_path / "cases/cases.parquet")
    pacsv.write_csv(pa.table({"slide_id": ["a"], "mitotic_count": [1]}), tmp_path / "slides.csv")
    assert counts_of_run(Folder.at(str(tmp_path))) == (table, "cases/cases.parquet")
    assert counts_of_run(Folder.at(str(simulated_folder)))[1] == "slides.csv"


def test_generic_tables_need_their_columns_named(survival, simulated_folder, tmp_path, capsys):
    slides = pacsv.read_csv(simulated_folder / "slides.csv")
    pq.write_table(slides, tmp_path / "scored.parquet")
    patients = read_clinical(str(simulated_folder / "clinical.csv")).patients.to_pylist()
    lines = [f"{p['patient']}\t{p['time_days'] / 365.25}\t{'Dead' if p['event'] else 'Alive'}" for p in patients]
    (tmp_path / "cohort.tsv").write_text("\n".join(["animal\tyears\tstatus", *lines]))
    arguments = ["--slides-table", str(tmp_path / "scored.parquet"), "--clinical", str(tmp_path / "cohort.tsv")]
    named = ["--patient", "animal", "--time", "years", "--event", "status", "--time-unit", "years"]
    output = ["--output", str(tmp_path / "out"), *FAST, "--values", "[mitotic_count]"]
    assert survival([*arguments, *named, *output]) == 0
    document = json.loads((tmp_path / "out/survival.json").read_text())
    assert document["joined_patients"] == 480
    assert document["values"]["mitotic_count"]["at_published_cut"]["adjusted"] is None  # neither age nor stage
    capsys.readouterr()
    assert survival([*arguments, *output]) == 2
    assert "lacks the column 'bcr_patient_barcode'" in capsys.readouterr().err


def test_what_is_undefined_is_named_and_ends_with_three(survival, simulated_folder, tmp_path, capsys):
    patients = read_clinical(str(simulated_folder / "clinical.csv")).patients.to_pylist()
    lines = [f"{p['patient']},{p['time_days']},0" for p in patients]
    (tmp_path / "censored.csv").write_text("\n".join(["patient,days,died", *lines]))
    arguments = ["--run", str(simulated_folder), "--clinical", str(tmp_path / "censored.csv"), *FAST]
    named = ["--patient", "patient", "--time", "days", "--event", "died", "--output", str(tmp_path / "out")]
    assert survival([*arguments, *named]) == 3
    error = capsys.readouterr().err
    assert "Undefined, mitotic_count at the best cut: TooFewEvents" in error
    document = json.loads((tmp_path / "out/survival.json").read_text())
    published = document["values"]["mitotic_count"]["at_published_cut"]
    assert published["log_rank"] is None
    assert [curve["median"] for curve in published["curves"]] == [None, None]
    assert (tmp_path / "out/mitotic_count_published_cut.png").is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--clinical", "gone.csv"], "no clinical table"),
        (["--endpoint", "RFS"], "endpoint"),
        (["--slides-table", "other.csv"], "either --run or --slides-table"),
        (["--patient", "x"], "go together"),
        (["--min-share", "0.7"], "below 0.5"),
        (["--censor-years", "0"], "more than 0"),
        (["--values", "[nuclei]"], "lacks the column nuclei"),
        (["--run", "."], "is no scored run"),
        (["--cohort", "unknown"], "cohort"),
    ],
)
def test_bad_arguments_end_with_two_and_the_reason(survival, arguments, wrong, message, tmp_path, capsys):
    assert survival([*arguments, *wrong]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_simulated_slides_have_columns_of_real_ones_and_say_what_they_are(simulated_folder):
    table = pacsv.read_csv(simulated_folder / "slides.csv")
    assert set(table.column_names) - {"atypical_ratio"} <= set(SLIDES.names)
    assert set(table["domain"].to_pylist()) == {"simulated"}
    assert {row["type"] for row in rows_of(simulated_folder / "clinical.csv")} == {"simulated"}


def test_help_names_units_and_defaults(survival, capsys):
    assert survival(["--help"]) == 0
    text = capsys.readouterr().out
    assert "years" in text
    assert "default: 11.0" in text
