import pyarrow as pa
import pytest

from mitoray.labels import write_labels
from mitoray.labels.schema import LABELS


@pytest.fixture(scope="module")
def main(job):
    return job("describe_dataset")


@pytest.fixture
def labels(tmp_path):
    votes = [{"rater": "Anna", "kind": "imposter"}, {"rater": "Ben", "kind": "imposter"}]
    rows = [
        {"slide_id": slide, "x_px": float(n), "y_px": 2.0, "kind": kind, "domain": domain, "votes": votes}
        for n, (slide, kind, domain) in enumerate(
            [
                ("a", "mitotic_figure", "dog"),
                ("a", "mitotic_figure", "dog"),
                ("b", "imposter", "dog"),
                ("c", "imposter", "cat"),
            ]
        )
    ]
    write_labels(pa.Table.from_pylist(rows, schema=LABELS), tmp_path / "labels.json")
    return str(tmp_path / "labels.json")


def test_the_table_the_agreement_and_the_figure_are_made(main, labels, tmp_path, capsys):
    assert main(["--labels", labels, "--figure", str(tmp_path / "counts.png")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        ["dog", "2", "2", "1.0", "1", "0.5"],
        ["cat", "1", "0", "0.0", "1", "1.0"],
        ["total", "3", "2", "0.0", "2", "1.0"],
    ]
    assert ["cat", "1", "0.0000", "1.0000", "0.0000", "–", "–", "0.0000", "1.0000", "–"] in lines
    assert (tmp_path / "counts.png").read_bytes().startswith(b"\x89PNG")


def test_cases_name_the_groups(main, labels, tmp_path, capsys):
    (tmp_path / "cases.csv").write_text("slide_id,tumor,scanner\na,t1,s1\nb,t1,s2\nc,t2,s1\nd,t2,s1\n")
    assert main(["--labels", labels, "--cases", str(tmp_path / "cases.csv"), "--by", "tumor,scanner"]) == 0
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert out[3] == ["t2", "s1", "2", "0", "0.0", "1", "0.5"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--labels nowhere.json",
        "--labels x --by colour",
        "--labels x --by tumor",
        "--labels x --figure counts.txt",
        "--labels x --odd 1",
    ],
)
def test_bad_arguments_end_with_2(main, arguments, capsys):
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err


def test_a_figure_that_cannot_be_written_ends_with_1(main, labels, tmp_path):
    assert main(["--labels", labels, "--figure", str(tmp_path / "nowhere" / "counts.png")]) == 1


def test_help_names_every_option_with_its_default(main, capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(option in out for option in ("--labels", "--dialect", "--cases", "--by", "--figure", "default: domain"))
