"""Size of a report, and the time a browser takes over it, by the number of slides.

    python tests/benchmarks/report_scale.py --slides 1200

A few phantoms give the panels, at the size that this many slides leave them, repeated under other names. Times are of
headless Chromium on this machine, from a file.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from chromium import CHROMIUM, Browser
from run_folder import draw, make_run

from mitoray.report.cohort_report import ReportSource, write_report
from mitoray.report.panel import PanelSize, PanelTask, make_panel
from mitoray.report.panels import PANELS, TOTAL
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.results import write_cohort
from mitoray.scoring.schema import SLIDES
from mitoray.storage import Folder, file_stem

DOMAINS = ("phantom-breast-a", "phantom-lymphoma-a", "phantom-mast-cell-a", "phantom-melanoma-a")

LOADING = """const [entry] = performance.getEntriesByType('navigation');
const paint = performance.getEntriesByName('first-contentful-paint')[0];
return { 'first paint': paint ? paint.startTime : NaN, DOMContentLoaded: entry.domContentLoadedEventEnd }"""

TIMED = """const done = arguments[arguments.length - 1], start = performance.now();
const act = new Function(arguments[0]); act(); document.body.offsetHeight;
Promise.all([...document.querySelectorAll('.panel img')].map((image) => image.decode()))
    .then(() => requestAnimationFrame(() => done(performance.now() - start)))"""

TYPE = (
    "const field = document.getElementById('find'); field.value = {}; "
    "field.dispatchEvent(new Event('input', {{ bubbles: true }}))"
)
ACTS = {
    "sort by count": "document.querySelectorAll('#table thead th button')[4].click()",
    "sort by name": "document.querySelectorAll('#table thead th button')[0].click()",
    "filter to one case": TYPE.format("'case-77'"),
    "clear the filter": TYPE.format("''"),
    "open a panel": "document.querySelector('#slide-7 .open').click()",
    "open another": "document.querySelector('#slide-600 .open, #slide-8 .open').click()",
    "sort with both open": "document.querySelectorAll('#table thead th button')[4].click()",
}


def run_of(folder: Folder, n_slides: int, base: Path) -> list[int]:
    """Write a run of so many slides with all its panels; returns the panels' sizes in bytes."""
    points = {f"s{i}": draw(base / f"s{i}.svs", name, i, 4000, 3200) for i, name in enumerate(DOMAINS)}
    # As many figures as a busy slide has, so that the galleries are full.
    rng = np.random.default_rng(0)
    points = {name: np.vstack([drawn, rng.uniform(300, 3000, (400, 2))]) for name, drawn in points.items()}
    rows = [ManifestRow(name, str(base / f"{name}.svs"), None, DOMAINS[int(name[1:])]) for name in points]
    originals = make_run(folder, rows, points).to_pylist()
    plans = {plan["slide_id"]: plan for plan in folder.read_table("work/plan/000000.parquet").to_pylist()}
    size = PanelSize.for_slides(n_slides, TOTAL)
    made = [make_panel(folder, PanelTask(row, plans[row["slide_id"]], row["uri"], size, 2.37)) for row in originals]
    repeated = []
    for place in range(n_slides):
        row = {**originals[place % len(originals)], "slide_id": f"TCGA-{place:02X}-{place:04d}-01Z-00-DX1"}
        row |= {"case_id": f"case-{place // 2}", "mitotic_count": int(rng.gamma(1.2, 14)), "note": None}
        repeated.append(row)
        panel = {**made[place % len(made)], "key": PanelTask(row, None, row["uri"], size, 2.37).key}
        folder.write_bytes(f"{PANELS}/{file_stem(row['slide_id'])}.json", json.dumps(panel).encode())
    write_cohort(folder, pa.Table.from_pylist(repeated, schema=SLIDES))
    return [len(json.dumps(panel)) for panel in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slides", type=int, default=1200)
    n_slides = parser.parse_args().slides
    with tempfile.TemporaryDirectory() as base:
        folder = Folder.at(f"{base}/run")
        sizes = run_of(folder, n_slides, Path(base))
        started = time.perf_counter()
        size = write_report(ReportSource(folder), progress=False)
        print(f"phantoms, {n_slides:,} slides: {size / 1e6:.1f} MB, panels of {min(sizes):,} to {max(sizes):,} bytes")
        print(f"writing it from kept panels: {time.perf_counter() - started:.1f} s")
        if not CHROMIUM:
            print("chromium is not installed: no times of a browser")
            return
        browser = Browser(Path(base) / "profile")
        try:
            browser.open(Path(folder.path("report.html")))
            for name, milliseconds in browser.run(LOADING).items():
                print(f"{name}: {milliseconds:,.0f} ms")
            for name, act in ACTS.items():
                print(f"{name}: {browser.driver.execute_async_script(TIMED, act):,.0f} ms")
            print(f"JavaScript's memory: {browser.run('return performance.memory.usedJSHeapSize') / 1e6:.0f} MB")
            print(f"nodes: {browser.run('return document.getElementsByTagName(`*`).length'):,}")
            print(f"complaints: {browser.complaints()}")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
