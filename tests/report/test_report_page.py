"""Whole reports: written from run folders on disk and in S3, read as HTML."""

import json
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder import draw, make_run

from mitoray.errors import NotARun
from mitoray.report.cohort_report import ReportSource, write_report
from mitoray.report.page import as_json
from mitoray.scoring.manifest import ManifestRow
from mitoray.storage import Folder

HOSTILE = "<script>alert(1)<\u2028-script>\"'& <!--"


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    base = tmp_path_factory.mktemp("slides")
    return base, draw(base / "one.svs", "phantom-lymphoma-a", seed=7)


@pytest.fixture
def run(ray_session, slides, tmp_path):
    """A run with a hostile slide_id, one without figures, one whose domain is hostile, and two that fail."""
    base, points = slides
    one = str(base / "one.svs")
    rows = [
        ManifestRow("'\"><script>alert(1)<", one, "case-1", "phantom-lymphoma-a"),
        ManifestRow("empty", one, "case-2", "phantom-lymphoma-a"),
        ManifestRow("third", one, "</script><img src=x onerror=alert(2)>", "<b>bold</b>"),
        ManifestRow("</script><script>alert(3)</script>", one),
        ManifestRow("gone", str(tmp_path / "<img src=x onerror=alert(4)>.svs")),
    ]
    folder = Folder.at(str(tmp_path / "run"))
    make_run(folder, rows, {rows[0].slide_id: points, "third": points})
    return folder, rows


class Page(HTMLParser):
    """Tags, scripts and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.ids, self.texts = [], [], [], []
        self._script = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        self.ids += [known["id"]] if "id" in known else []
        if tag == "script":
            self._script = (known, [])
            self.scripts.append(self._script)

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script:
            self._script[1].append(data)
        elif data.strip():
            self.texts.append(data.strip())

    @property
    def panels(self):
        return [json.loads("".join(text)) for known, text in self.scripts if known.get("type") == "application/json"]


def written(folder, **options):
    write_report(ReportSource(folder), progress=False, **options)
    return folder.read_bytes("report.html").decode()


def test_hostile_names_are_text_and_nothing_else(run):
    folder, rows = run
    text = written(folder)
    page = Page(text)
    code = [known for known, _ in page.scripts if known.get("type") != "application/json"]
    assert code == [{}]
    assert not [known for tag, known in page.tags if tag == "img" or any(name.startswith("on") for name in known)]
    assert not {"b", "iframe", "object", "base", "embed"} & {tag for tag, _ in page.tags}
    for row in rows:
        assert row.slide_id in page.texts
    assert [panel["slide_id"] for panel in page.panels] == [row.slide_id for row in rows]
    assert len(page.ids) == len(set(page.ids))


def test_the_policy_lets_nothing_in_and_only_its_own_script_run(run):
    text = written(run[0])
    (policy,) = [known["content"] for _, known in Page(text).tags if "Content-Security-Policy" in known.values()]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert not [known for tag, known in Page(text).tags if tag == "link" and known.get("href") != "data:,"]


def test_failures_stand_before_the_slides_and_every_slide_has_its_row_and_panel(run):
    text = written(run[0])
    page = Page(text)
    assert text.index('id="failures"') < text.index('id="domains"') < text.index('id="slides"')
    assert [name for name in page.ids if re.fullmatch(r"slide-\d", name)] == [f"slide-{i}" for i in range(5)]
    statuses = [known["data-status"] for _, known in page.tags if "data-status" in known]
    assert statuses == ["scored", "scored", "scored", "failed", "failed"]
    panels = page.panels
    assert panels[0]["crops"]
    assert panels[1]["crops"] == []
    assert panels[1]["no_crops"]
    assert panels[3]["trouble"].startswith("InvalidSlideId")
    assert panels[4]["trouble"].startswith("SlideNotFound")


def test_links_lead_to_the_files_of_the_slide(run):
    folder, rows = run
    for row, panel in zip(rows[:3], Page(written(folder)).panels, strict=False):
        for link in panel["links"]:
            assert folder.exists(unquote(link["href"]))
        document = json.loads(folder.read_bytes(unquote(panel["links"][0]["href"])))
        assert document["type"] == "FeatureCollection", row.slide_id


def test_a_report_elsewhere_links_to_the_run(run, tmp_path):
    folder, _ = run
    elsewhere = Folder.at(str(tmp_path / "elsewhere"))
    write_report(ReportSource(folder), elsewhere, "mine.html", progress=False)
    page = Page(elsewhere.read_bytes("mine.html").decode())
    assert page.panels[0]["links"][0]["href"].startswith("file:///")


def test_slides_are_read_once_and_what_failed_is_tried_again(run, tmp_path):
    folder, rows = run
    moved = tmp_path / "moved.svs"
    shutil.copy(rows[0].uri, moved)
    uris = {row.slide_id: str(moved) for row in rows[:2]} | {"third": str(tmp_path / "not yet.svs")}
    source = ReportSource(folder, uris=uris)
    write_report(source, progress=False)
    first = Page(folder.read_bytes("report.html").decode()).panels
    assert first[0]["overview"]
    assert "SlideNotFound" in first[2]["trouble"]
    shutil.move(moved, tmp_path / "not yet.svs")
    write_report(source, progress=False)
    second = Page(folder.read_bytes("report.html").decode()).panels
    assert second[:2] == first[:2]
    assert second[2]["overview"]
    assert second[2]["trouble"] == ""


def test_one_slide_without_any_figure_is_a_report(ray_session, slides, tmp_path):
    folder = Folder.at(str(tmp_path / "run"))
    make_run(folder, [ManifestRow("only", str(slides[0] / "one.svs"))], {})
    (panel,) = Page(written(folder)).panels
    assert panel["overview"]
    assert panel["dots"] is None
    assert panel["density"] is None


def test_a_cohort_of_failures_is_a_report(ray_session, tmp_path):
    folder = Folder.at(str(tmp_path / "run"))
    make_run(folder, [ManifestRow(name, str(tmp_path / f"{name}.svs")) for name in "ab"], {})
    page = Page(written(folder))
    assert "No slide has a mitotic count." in page.texts
    assert [panel["trouble"].partition(":")[0] for panel in page.panels] == ["SlideNotFound"] * 2


def test_the_model_card_says_which_data_each_figure_is_of(run):
    page = Page(written(run[0]))
    assert {"phantom", "real crops", "real tissue"} <= set(page.texts)
    assert "Apache-2.0; trained on data under MIT and on drawings" in page.texts


def test_a_run_in_s3_is_reported_in_s3(ray_session, slides, s3, tmp_path):
    base, points = slides
    folder = Folder.at("s3://slides/report run", s3)
    make_run(folder, [ManifestRow("one & only", str(base / "one.svs"))], {"one & only": points})
    source = ReportSource(folder, s3)
    size = write_report(source, progress=False)
    text = folder.read_bytes("report.html")
    assert len(text) == size
    folder.filesystem.invalidate_cache()
    assert folder.filesystem.info(folder.path("report.html"), refresh=True)["ContentType"] == "text/html"
    assert Page(text.decode()).panels[0]["crops"]
    assert folder.names("report/panels", ".json") == ["report/panels/one %26 only.json"]
    here = Folder.at(str(tmp_path))
    write_report(source, here, progress=False)
    (panel,) = Page(here.read_bytes("report.html").decode()).panels
    assert panel["links"][0] == {
        "text": "Figures and fields for QuPath (GeoJSON): s3://slides/report run/geojson/one %26 only.geojson"
    }
    assert b"secret" not in text


def test_what_is_no_run_is_refused_by_name(tmp_path, run):
    folder, _ = run
    with pytest.raises(NotARun, match=r"run\.json is missing"):
        write_report(ReportSource(Folder.at(str(tmp_path / "nothing"))))
    folder.write_json("run.json", {"status": "complete"})
    with pytest.raises(NotARun, match="no record of score_cohort"):
        write_report(ReportSource(folder))
    folder.write_bytes("slides/slides.parquet", b"not a table")
    with pytest.raises(NotARun, match="cannot be read"):
        write_report(ReportSource(folder))


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.text() | st.floats(allow_nan=False) | st.none(), lambda part: st.lists(part, max_size=4)))
def test_json_in_a_page_means_the_same_and_ends_no_element(content):
    text = as_json([content, HOSTILE, "</script><!--"])
    assert json.loads(text) == [content, HOSTILE, "</script><!--"]
    assert not set("<>&\u2028\u2029") & set(text)


@pytest.fixture(scope="module")
def report_job(job):
    return job("report")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere"], "NotARun: "),
        (["--run", "nowhere", "--megabytes", "0"], "--megabytes must lie between 1 and 500"),
        (["--run", "nowhere", "--patient", "case"], "--patient, --time and --event go together"),
        ([], "run"),
    ],
)
def test_bad_arguments_end_the_job_with_status_2(
    report_job, ray_session, arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert report_job(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_job_writes_the_report_where_it_is_told(report_job, run, tmp_path, capsys):
    folder, rows = run
    manifest = pa.Table.from_pylist([{"slide_id": row.slide_id, "uri": row.uri} for row in rows])
    pa.csv.write_csv(manifest, tmp_path / "manifest.csv")
    given = ["--run", folder.uri, "--manifest", str(tmp_path / "manifest.csv"), "--megabytes", "1"]
    assert report_job(given) == 0
    assert folder.exists("report.html")
    assert report_job([*given, "--output", str(tmp_path / "a/mine.html")]) == 0
    assert report_job([*given, "--output", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/mine.html").exists()
    assert (tmp_path / "b/report.html").exists()
    told = float(re.findall(r"\((.*) MB\)", capsys.readouterr().out)[0])
    assert len(folder.read_bytes("report.html")) / 1e6 == pytest.approx(told, abs=0.06)
