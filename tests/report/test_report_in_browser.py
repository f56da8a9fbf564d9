"""Reports as people meet them: opened in a real browser, on a desktop, on a phone, and printed."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium
from PIL import Image
from run_folder import draw, make_run

from mitoray.phantom import draw_cohort
from mitoray.report.cohort_report import ReportSource, write_report
from mitoray.scoring.manifest import ManifestRow
from mitoray.storage import Folder

pytestmark = needs_chromium

HOSTILE = "'\"><script>alert(1)<"
SHOWN = """return [...document.querySelectorAll('#table tbody tr[data-place]')].filter((row) => !row.hidden)
    .map((row) => row.querySelector('.open').textContent)"""
COLUMN = """const heads = [...document.querySelectorAll('#table thead th')];
    const place = heads.findIndex((head) => head.textContent.includes(arguments[0]));
    return [...document.querySelectorAll('#table tbody tr[data-place]')]
        .map((row) => row.cells[place].textContent.trim())"""
HEAD = "[...document.querySelectorAll('#table thead th')].find((head) => head.textContent.includes(arguments[0]))"
PRESS = f"{HEAD}.querySelector('button').click()"
ORDER = f"return {HEAD}.getAttribute('aria-sort')"
OPEN = "document.querySelector(`#slide-${arguments[0]} .open`).click()"
LOADED = """const done = arguments[arguments.length - 1];
    Promise.all([...document.querySelectorAll('.panel img')].map((image) => image.decode()))
        .then(() => done(document.querySelectorAll('.panel img').length), () => done(-1))"""


@pytest.fixture(scope="module")
def few(ray_session, tmp_path_factory):
    """A report of five slides: two with figures (one of them with a hostile name), one without, two that failed."""
    base = tmp_path_factory.mktemp("few")
    points = draw(base / "one.svs", "phantom-lymphoma-a", seed=7, width_px=2000, height_px=1600)
    one = str(base / "one.svs")
    rows = [
        ManifestRow("slide 10", one, "case-1", "phantom-lymphoma-a"),
        ManifestRow("slide 9", one, "case-2", "phantom-mast-cell-a"),
        ManifestRow(HOSTILE, one, "</script><img src=x onerror=alert(2)>", "phantom-lymphoma-a"),
        ManifestRow("gone", str(base / "<img src=x onerror=alert(4)>.svs")),
        ManifestRow("</script><script>alert(3)</script>", one),
    ]
    folder = Folder.at(str(base / "run"))
    make_run(folder, rows, {"slide 10": points, HOSTILE: points[:5]})
    write_report(ReportSource(folder), progress=False)
    return folder.path("report.html")


@pytest.fixture
def page(browser, few):
    browser.media()
    browser.width(1280)
    browser.open(Path(few))
    yield browser
    assert browser.complaints() == []
    asked = browser.requests()
    assert all(url.startswith("file:///") and url.partition("#")[0].endswith("/report.html") for url in asked), asked


def test_nothing_in_hostile_names_runs(page):
    assert page.run(SHOWN)[2] == HOSTILE
    page.run("document.querySelectorAll('.open').forEach((button) => button.click())")
    assert page.run("return document.querySelectorAll('.panel').length") == 5
    assert page.run("return document.querySelectorAll('img[src=x], script:not([type])').length") == 1
    assert page.run("return document.querySelector('#opened-2 h3').textContent") == HOSTILE


def test_headings_sort_by_number_by_name_and_back_with_what_is_missing_last(page):
    page.run(PRESS, "Mitotic count")
    assert page.run(ORDER, "Mitotic count") == "descending"
    counts = page.run(COLUMN, "Mitotic count")
    assert counts[3:] == ["–", "–"]
    assert [int(count) for count in counts[:3]] == sorted((int(count) for count in counts[:3]), reverse=True)
    page.run(PRESS, "Mitotic count")
    assert page.run(ORDER, "Mitotic count") == "ascending"
    assert page.run(COLUMN, "Mitotic count") == [*counts[2::-1], "–", "–"]
    page.run(PRESS, "Slide")
    names = page.run(SHOWN)
    assert names.index("slide 9") < names.index("slide 10")
    assert page.run(ORDER, "Mitotic count") == "none"
    assert "Sorted by Slide, ascending" in page.run("return document.getElementById('shown').textContent")


def test_an_open_panel_stays_with_its_slide_when_sorted_and_goes_when_filtered(page):
    page.run(OPEN, 1)
    page.run(PRESS, "Mitotic count")
    assert page.run("return document.getElementById('slide-1').nextElementSibling.id") == "opened-1"
    type_into(page, "find", "slide 10")
    assert page.run(SHOWN) == ["slide 10"]
    assert page.run("return document.getElementById('opened-1').hidden")


def type_into(page, field, text):
    page.run(
        """const field = document.getElementById(arguments[0]);
        field.value = arguments[1]; field.dispatchEvent(new Event('input', { bubbles: true }))""",
        field,
        text,
    )


def test_filters_find_words_status_domain_and_counts(page):
    type_into(page, "find", "LYMPHOMA case-1")
    assert page.run(SHOWN) == ["slide 10"]
    type_into(page, "find", "")
    type_into(page, "status", "failed")
    assert page.run(SHOWN) == ["gone", "</script><script>alert(3)</script>"]
    type_into(page, "status", "")
    type_into(page, "domain", "phantom-lymphoma-a")
    assert page.run(SHOWN) == ["slide 10", HOSTILE]
    type_into(page, "least", "1")
    type_into(page, "domain", "")
    assert "slide 9" not in page.run(SHOWN)
    type_into(page, "find", "no slide is called this")
    assert page.run("return document.getElementById('shown').textContent").startswith("0 of 5 slides")
    assert page.run("return document.getElementById('none-shown').checkVisibility()")
    page.run("document.querySelector('button[type=reset]').click()")
    assert page.driver.execute_async_script("setTimeout(arguments[0], 50)") is None
    assert len(page.run(SHOWN)) == 5


def test_the_keyboard_opens_a_slide_and_closing_brings_it_back(page):
    page.run("document.querySelector('#slide-0 .open').focus()")
    page.driver.switch_to.active_element.send_keys("\ue007")
    assert page.run("return document.querySelector('#slide-0 .open').getAttribute('aria-expanded')") == "true"
    page.run("document.querySelector('#opened-0 .close').focus()")
    page.driver.switch_to.active_element.send_keys(" ")
    assert page.run("return document.getElementById('opened-0')") is None
    assert page.run("return document.activeElement === document.querySelector('#slide-0 .open')")


def test_a_panel_shows_map_fields_and_crops_and_says_where_a_crop_lies(page):
    page.run(OPEN, 0)
    assert page.driver.execute_async_script(LOADED) > 3
    described = page.run("return document.querySelector('#opened-0 svg[role=img]').getAttribute('aria-label')")
    assert "Overview of slide slide 10" in described
    assert "2 mm² with most figures holds" in described
    assert page.run("return [...document.querySelectorAll('#opened-0 .layers label')].length") == 5
    page.run("document.querySelector('#opened-0 .gallery button').click()")
    assert "by score lies at x" in page.run("return document.querySelector('#opened-0 .position').textContent")
    assert page.run("return document.querySelectorAll('#opened-0 .marker').length") == 1
    page.run("document.querySelector('#opened-0 .layers input').click()")
    assert page.run("return document.querySelector('#opened-0 .density').getBoundingClientRect().width") == 0


def test_a_link_to_a_slide_opens_it(browser, few):
    browser.open(f"file://{few}#slide-2")
    assert browser.run("return document.querySelector('.panel h3').textContent") == HOSTILE


def test_a_phone_shows_the_page_without_scrolling_sideways(page):
    page.width(390, 800)
    for place in range(5):
        page.run(OPEN, place)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    assert page.run("return document.querySelector('#table .desktop').checkVisibility()") is False
    assert page.run("return document.querySelector('#table td.always').checkVisibility()")


@pytest.mark.parametrize("width_px", [390, 800, 1100, 1280, 1700])
def test_names_stand_on_one_line_and_the_table_fits_at_any_width(page, width_px):
    page.width(width_px)
    for shown in ("#slide-0 .open", "#slide-0 .status"):
        assert page.run("return document.querySelector(arguments[0]).getClientRects()[0].height", shown) < 45, shown
    assert page.run("return document.querySelector('#table').offsetWidth") <= page.run(
        "return document.querySelector('#shown').offsetWidth"
    )


def test_print_leaves_out_what_only_a_screen_can_do_and_keeps_open_panels(page):
    page.run(OPEN, 0)
    page.driver.execute_async_script(LOADED)
    page.media("print")
    for gone in ("nav", ".filters", ".close", ".permalink"):
        assert page.run("return document.querySelector(arguments[0]).checkVisibility()", gone) is False, gone
    assert page.run("return document.querySelector('#opened-0 .gallery img').checkVisibility()")
    assert len(page.pdf()) > 20_000


@pytest.mark.parametrize(("scheme", "dark"), [("dark", True), ("light", False)])
def test_light_and_dark_are_readable(page, scheme, dark):
    page.media(prefers_color_scheme=scheme)
    page.run(OPEN, 0)
    ink, paper = page.run(
        """const style = getComputedStyle(document.body);
        return [style.color, style.backgroundColor].map((c) => c.match(/\\d+/g).slice(0, 3).map(Number))"""
    )
    assert contrast(ink, paper) > 10
    quiet, sheet = page.run(
        """const panel = document.querySelector('.panel'), quiet = panel.querySelector('.facts dt');
        return [getComputedStyle(quiet).color, getComputedStyle(panel).backgroundColor]
            .map((c) => c.match(/\\d+/g).slice(0, 3).map(Number))"""
    )
    assert contrast(quiet, sheet) > 4.5
    brightness = float(np.asarray(Image.open(io.BytesIO(page.picture())).convert("L")).mean())
    assert (brightness < 90) == dark


def contrast(one, other):
    """The ratio of WCAG 2."""
    luminances = []
    for colour in (one, other):
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminances) / min(luminances)


def test_what_a_screen_reader_needs_is_there(page):
    page.run("document.querySelectorAll('.open').forEach((button) => button.click())")
    unnamed = page.run(
        """const named = 'img, svg[role=img], input, select, button, section, [role=region]';
        return [...document.querySelectorAll(named)].filter((one) => one.checkVisibility()).filter((one) => {
            const label = one.getAttribute('aria-label') || one.alt || one.textContent.trim();
            const labelled = one.getAttribute('aria-labelledby');
            return !(label || one.labels?.length || (labelled && document.getElementById(labelled)));
        }).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.run("return ['main', 'header', 'nav', 'footer'].every((name) => document.querySelector(name))")
    assert page.run("return [...document.querySelectorAll('table')].every((table) => table.caption)")
    assert page.run("return document.documentElement.lang") == "en"
    levels = page.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((head) => Number(head.tagName[1]))")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


@pytest.mark.slow
def test_a_cohort_of_30_phantoms_scored_by_the_job_opens_sorts_filters_and_asks_for_nothing(
    job, ray_session, browser, tmp_path
):
    manifest, _ = draw_cohort(tmp_path / "slides", n_slides=30, seed=515_000, width_px=1200, height_px=1000)
    arguments = ["--manifest", str(tmp_path / "slides/manifest.csv"), "--output", str(tmp_path / "out")]
    assert job("score_cohort")([*arguments, "--candidate-threshold", "0.1", "--num-actors", "1"]) == 0
    browser.media()
    browser.width(1280)
    browser.open(tmp_path / "out/report.html")
    assert browser.run(SHOWN) == manifest["slide_id"].to_pylist()
    browser.run(PRESS, "Mitotic count")
    counts = [int(count) for count in browser.run(COLUMN, "Mitotic count")]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0
    type_into(browser, "find", "melanoma")
    assert len(browser.run(SHOWN)) == sum("melanoma" in name for name in manifest["slide_id"].to_pylist())
    browser.run("document.getElementById('open-shown').click()")
    assert browser.run("return document.querySelectorAll('.panel .map image').length") >= len(browser.run(SHOWN))
    assert browser.driver.execute_async_script(LOADED) > 0
    browser.width(390, 800)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.complaints() == []
    assert [url.rpartition("/")[2] for url in browser.requests()] == ["report.html"]
    assert (tmp_path / "out/report.html").stat().st_size < 5_000_000
    assert job("report")(["--run", str(tmp_path / "out")]) == 0
