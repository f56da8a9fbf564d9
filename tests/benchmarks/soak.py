"""A long run over a queue of phantom slides: the memory of its driver, of Ray and of the scoring actors, over time.

    PYTHONPATH=. python tests/benchmarks/soak.py --minutes 60 --output soak

A few slides are drawn, and scored again and again under other names, as one cohort that lasts about as long as asked.
Private memory (USS) is taken of each process every ten seconds, the object store's beside it. Writes memory.csv and
memory.png, and prints by stage what each kind of process held in the stage's first and last fifth.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.phantom import draw_cohort
from mitoray.report.text import as_text

mpl.use("Agg")
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
EVERY_S = 10.0
MB = 1e6
KINDS = ("driver", "scoring actor", "other workers", "raylet", "gcs", "object store")

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--minutes", type=float, default=60.0, help="how long the cohort shall last (default: 60)")
parser.add_argument("--output", type=Path, required=True, help="for slides, results, memory.csv and memory.png")
parser.add_argument("--slides", type=int, default=6, help="drawn, of different domains (default: 6)")
parser.add_argument("--side-px", type=int, default=4000, help="of a slide at 0.25 µm/px (default: 4000, 1 mm²)")


def cohort(folder: Path, drawn: pa.Table, n: int, name: str) -> Path:
    """A manifest of n slides, which are those drawn over and over."""
    rows = drawn.to_pylist()
    queue = [{"slide_id": f"slide-{i:06d}", "uri": rows[i % len(rows)]["uri"]} for i in range(n)]
    pacsv.write_csv(pa.Table.from_pylist(queue), folder / f"{name}.csv")
    return folder / f"{name}.csv"


def started(folder: Path, manifest: Path, log: Path) -> subprocess.Popen[bytes]:
    """A scoring job with a Ray of its own."""
    command = [sys.executable, str(ROOT / "jobs/score_cohort.py"), "--manifest", str(manifest), "--report", "false"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_TMPDIR": str(folder / "ray"), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, "--mlflow", "none", "--output", str(folder / manifest.stem)],
            env=environment,
            stdout=file,
            stderr=file,
        )


def kind_of(process: psutil.Process, driver: int) -> str | None:
    """What a process of the run is; None for helpers of Ray that hold no data."""
    words = process.cmdline() or [""]
    if process.pid == driver:
        return "driver"
    if "ScoreActor" in words[0]:
        return "scoring actor"
    if words[0].startswith("ray::"):
        return "other workers"
    return {"raylet": "raylet", "gcs_server": "gcs"}.get(Path(words[0]).name)


def memory(driver: psutil.Process) -> dict[str, tuple[int, float]]:
    """By kind: how many processes there are, and the private MB of all of them."""
    number: Counter[str] = Counter()
    held: defaultdict[str, float] = defaultdict(float)
    shared = 0.0
    for process in [driver, *driver.children(recursive=True)]:
        try:
            kind = kind_of(process, driver.pid)
            if kind is None:
                continue
            info = process.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        number[kind] += 1
        held[kind] += info.uss / MB
        if kind == "raylet":  # the object store is the shared memory that it maps
            shared += info.shared / MB
    if number["raylet"]:
        number["object store"], held["object store"] = number["raylet"], shared
    return {kind: (number[kind], held[kind]) for kind in number}


def stage_of(log: Path) -> str:
    """The stage whose bar was last drawn."""
    text = log.read_bytes()[-4000:].decode(errors="replace")
    found = {stage: text.rfind(f"{stage}:") for stage in ("planning", "scoring", "counting")}
    last = max(found, key=lambda stage: found[stage])
    return last if found[last] >= 0 else "start"


def sampled(job: subprocess.Popen[bytes], log: Path, limit_s: float) -> Iterator[dict[str, object]]:
    """Memory by kind every few seconds until the job ends; past the limit it is asked to stop."""
    began = time.monotonic()
    driver = psutil.Process(job.pid)
    asked = False
    while job.poll() is None:
        seconds = time.monotonic() - began
        try:
            found = memory(driver)
        except psutil.NoSuchProcess:
            break
        for kind, (number, held) in found.items():
            yield {"s": round(seconds), "stage": stage_of(log), "kind": kind, "processes": number, "mb": round(held, 1)}
        if seconds > limit_s and not asked:
            job.send_signal(signal.SIGTERM)
            asked = True
        time.sleep(EVERY_S)


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """By stage and kind: private MB per process in the first and last fifth of the stage, and the slope between."""
    lines = []
    for stage in ("planning", "scoring", "counting"):
        for kind in KINDS:
            here = [row for row in rows if row["stage"] == stage and row["kind"] == kind]
            if len(here) < 10:
                continue
            at = np.array([row["s"] for row in here]) / 3600
            each = np.array([row["mb"] / row["processes"] for row in here])
            fifth = max(2, len(here) // 5)
            settled = slice(fifth, None)  # the first fifth fills caches
            lines.append(
                {
                    "stage": stage,
                    "process": kind,
                    "minutes": round(60 * (at[-1] - at[0]), 1),
                    "first fifth, MB": round(float(np.median(each[:fifth]))),
                    "last fifth, MB": round(float(np.median(each[-fifth:]))),
                    "most, MB": round(float(each.max())),
                    "MB per hour after the first fifth": round(float(np.polyfit(at[settled], each[settled], 1)[0]), 1),
                }
            )
    return lines


def drawn_figure(rows: list[dict[str, object]], title: str) -> Figure:
    """Private memory per process of each kind over time, with the stages marked."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind in KINDS:
        here = [row for row in rows if row["kind"] == kind]
        axes.plot([row["s"] / 60 for row in here], [row["mb"] / row["processes"] for row in here], label=kind)
    for before, after in pairwise(rows):
        if after["stage"] != before["stage"]:
            axes.axvline(after["s"] / 60, color="0.8", zorder=0)
            axes.annotate(after["stage"], (after["s"] / 60, axes.get_ylim()[1]), fontsize=8, va="top", color="0.4")
    axes.set(xlabel="minutes", ylabel="private memory per process, MB", title=title, ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


if __name__ == "__main__":
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    drawn, _ = draw_cohort(
        folder / "slides",
        n_slides=arguments.slides,
        seed=990_000,
        width_px=arguments.side_px,
        height_px=arguments.side_px,
    )
    seconds = {}
    for n in (arguments.slides, 11 * arguments.slides):  # what a slide takes besides the start
        began = time.monotonic()
        job = started(folder, cohort(folder, drawn, n, f"trial-{n}"), folder / f"trial-{n}.log")
        assert job.wait() == 0, (folder / f"trial-{n}.log").read_text()[-2000:]
        seconds[n] = time.monotonic() - began
    per_slide = (seconds[11 * arguments.slides] - seconds[arguments.slides]) / (10 * arguments.slides)
    n = int(60 * arguments.minutes / per_slide)
    print(f"{per_slide:.2f} s a slide: a queue of {n} slides", flush=True)
    log = folder / "soak.log"
    job = started(folder, cohort(folder, drawn, n, "soak"), log)
    rows = []
    for row in sampled(job, log, 60 * arguments.minutes * 1.3):
        rows.append(row)
        if row["kind"] == "driver" and len(rows) % 5 == 1:
            pacsv.write_csv(pa.Table.from_pylist(rows), folder / "memory.csv")
    pacsv.write_csv(pa.Table.from_pylist(rows), folder / "memory.csv")
    status = json.loads((folder / "soak/run.json").read_text())["status"]
    lasted = rows[-1]["s"] / 60
    title = f"{n:,} phantom slides of {(arguments.side_px * 0.25e-3) ** 2:.1f} mm², {lasted:.0f} min: {status}"
    drawn_figure(rows, title).savefig(folder / "memory.png", dpi=120)
    print(f"{title} (exit status {job.returncode})")
    print(as_text(summary(rows)))
