"""A report whose every text tries to be code, opened in a real browser: the texts are shown, and nothing runs."""

from pathlib import Path

import pytest
from chromium import needs_chromium
from run_folder import draw, make_run

from mitoray.models import load_bundle
from mitoray.report.cards import keep_cards
from mitoray.report.cohort_report import ReportSource, write_report
from mitoray.scoring.manifest import ManifestRow
from mitoray.storage import Folder

pytestmark = needs_chromium

ATTACKS = {
    "script": "<script>window.hit=1<",
    "image": '"><img src=x onerror=window.hit=1>',
    "style": "</style></title></textarea><svg onload=window.hit=1>",
    "link": "javascript:window.hit=1",
    "lines": "\u2028window.hit=1\u2029-->]]>{{7*7}}${window.hit=1}",
    "quotes": "'-(window.hit=1)-'`;window.hit=1//\"",
}
SHOWN = "return document.documentElement.innerText.includes(arguments[0])"


@pytest.fixture(scope="module")
def page(ray_session, browser, tmp_path_factory):
    base = tmp_path_factory.mktemp("hostile")
    points = draw(base / "one.svs", seed=7, width_px=600, height_px=500)
    one = str(base / "one.svs")
    # A slide_id may hold no "/" and no line separator; case, domain and path may.
    ids = {name: text.replace("/", "").replace("\u2028", "").replace("\u2029", "") for name, text in ATTACKS.items()}
    rows = [ManifestRow(ids[name], one, text, text) for name, text in ATTACKS.items()]
    rows += [ManifestRow(f"gone {name}", str(base / f"{text}.svs")) for name, text in ATTACKS.items()]
    folder = Folder.at(str(base / "run <img src=x onerror=window.hit=1>"))
    make_run(folder, rows, {ids["image"]: points})
    bundle = load_bundle("mitoray-s")
    training = bundle.training.model_copy(update={"notes": tuple(ATTACKS.values()), "licence": ATTACKS["image"]})
    keep_cards(folder, {"model": bundle.model_copy(update={"training": training})})
    write_report(ReportSource(folder), progress=False)
    browser.open(Path(folder.path("report.html")))
    browser.run("document.querySelectorAll('.open').forEach((button) => button.click())")
    browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    return browser, ids


def test_no_text_of_a_report_runs(page):
    browser, _ = page
    assert browser.run("return document.querySelectorAll('.panel').length") == 2 * len(ATTACKS)
    assert browser.run("return typeof window.hit") == "undefined"
    assert browser.run("return document.querySelectorAll('img[src=x], svg[onload], script:not([type])').length") == 1
    assert (
        browser.run("return [...document.querySelectorAll('a')].filter((a) => a.protocol == 'javascript:').length") == 0
    )
    assert browser.complaints() == []


@pytest.mark.parametrize("name", ATTACKS)
def test_each_is_shown_as_the_text_that_it_is(name, page):
    browser, ids = page
    assert browser.run(SHOWN, ids[name])
    assert browser.run(SHOWN, ATTACKS[name].replace("\u2028", " ")) or name == "lines"
    assert browser.run(SHOWN, "onerror=window.hit=1>")


def test_the_page_could_tell_that_something_ran(page, tmp_path):
    browser, _ = page
    (tmp_path / "page.html").write_text(f"<p>{ATTACKS['image']}</p><script>window.hit=1</script>")
    browser.open(tmp_path / "page.html")
    assert browser.run("return window.hit") == 1
