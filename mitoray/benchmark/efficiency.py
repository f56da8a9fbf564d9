"""A cohort through the pipeline, beside what decoding and the network cost alone on the same cores."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import ray

from mitoray.benchmark.alone import Alone, alone, detect_on_gpu
from mitoray.benchmark.rows import Row
from mitoray.models.placement import KEEP_MEMORY
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.pipeline import score_cohort
from mitoray.scoring.plan import core_rect
from mitoray.scoring.run import ATTEMPTS, Run
from mitoray.scoring.work import REGION_TABLES
from mitoray.slide.regions import read_share

SLIDE_MM2: Final = 165.0
"""Tissue of a slide of TCGA-BRCA: 3 × 10^12 px of 0.25 µm on 1,133 slides."""


def efficiency(
    manifest: Sequence[ManifestRow],
    model: str,
    folder: Path,
    name: str,
    hourly_price: float | None,
    times: int = 1,
    resources: Resources | None = None,
) -> list[Row]:
    """Scores the cohort on the Ray that this process is connected to, then measures its parts alone.

    On CPUs decoding and the network take turns on the cores, so that their times add up. Beside a GPU they run at the
    same time, and the slower of the two is the limit.

    Each slide is scored `times` times, under as many names, so that how a run ends weighs little. What happens before
    all actors are ready is not counted.
    """
    output = fresh(folder, f"run-{name}")
    method = Method()
    rows = [replace(row, slide_id=f"{row.slide_id}-{number}") for number in range(times) for row in manifest]
    run = Run.claim(Cohort(rows, model, str(output), method))
    slides = score_cohort(run, resources, progress=False)
    if failed := [row["slide_id"] for row in slides.to_pylist() if row["status"] != "scored"]:
        raise ValueError(f"{failed[0]} was not scored whole: see {output / 'slides.csv'}")
    tally = json.loads(sorted((output / ATTEMPTS).glob("*.json"))[-1].read_text())
    regions = pq.read_table(output / REGION_TABLES).to_pylist()
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores, gpus = int(cluster["CPU"]), int(cluster.get("GPU", 0))
    parts = together(regions, rows, model, method.reduced_decode, cores)
    decode = sum(part.decode_s_per_mm2 for part in parts) / len(parts) / cores
    detect = sum(part.detect_s_per_mm2 for part in parts) / len(parts) / cores
    if gpus:
        largest = max(regions, key=lambda region: region["width_px"] * region["height_px"])
        source = next(row for row in rows if row.slide_id == largest["slide_id"])
        detect = detect_on_gpu(largest, source, model, method.reduced_decode) / gpus
    alone_s = Alone(decode, detect)
    return _rows(f"pipeline, {name}", tally, regions, f"{cores} cores, {gpus} GPUs", alone_s, bool(gpus), hourly_price)


def _rows(
    part: str,
    tally: Mapping[str, Any],
    regions: Sequence[Mapping[str, Any]],
    machine: str,
    whole: Alone,
    at_once: bool,
    hourly_price: float | None,
) -> list[Row]:
    """whole: seconds per mm² of all cores, or of all GPUs. at_once: whether the two run at the same time."""
    seconds, mm2, wall = tally["seconds"], tally["steady_mm2"], tally["steady_s"]
    decode, detect = whole.decode_s_per_mm2, whole.detect_s_per_mm2
    limit = max(decode, detect) if at_once else decode + detect
    share = read_share([core_rect(region) for region in regions], regions[0]["halo_px"])
    where = "all GPUs" if at_once else "all cores"
    rows = [
        Row(part, "score_cohort", wall / mm2, "s/mm²", note=f"{mm2:.1f} mm², {tally['n_regions']} regions, {machine}"),
        Row(part, "bare decoding", decode, "s/mm²", note="codec alone, each native tile once, all cores"),
        Row(part, "bare network", detect, "s/mm²", note=f"on arrays in memory, {where}"),
        Row(
            part,
            "of the roofline",
            limit * mm2 / wall,
            "",
            limit * mm2 / wall,
            "the slower of decoding and network" if at_once else "decoding + network",
            "1 is the most there can be",
        ),
        Row(part, "of the network on arrays", detect * mm2 / wall, "", detect * mm2 / wall, "network alone"),
        Row(part, "read besides tissue", share - 1, "of its px", note="halos, where regions overlap"),
    ]
    if at_once:
        busy = detect * share * mm2 / wall
        rows.insert(5, Row(part, "GPU busy", busy, "of the time", note="with what the network does on halos"))
    else:
        busy = seconds["detect"] / (tally["n_actors"] * tally["wall_s"])
        rows.insert(5, Row(part, "network busy", busy, "of the actors' time"))
    rows += [
        Row(part, f"stage: {stage}", value / tally["mm2"], "s/mm² of one core")
        for stage, value in sorted(seconds.items())
    ]
    slide_s = wall / mm2 * SLIDE_MM2
    rows.append(
        Row(part, f"a slide of {SLIDE_MM2:g} mm²", slide_s, "s", note="tissue of a slide of TCGA-BRCA, on average")
    )
    if hourly_price is not None:
        rows.append(
            Row(
                part, "the same", slide_s / 3600 * hourly_price, "of the price's unit", note=f"{hourly_price:g} an hour"
            )
        )
    return rows


def together(
    regions: Sequence[Mapping[str, Any]], manifest: Sequence[ManifestRow], model: str, reduced_decode: bool, cores: int
) -> list[Alone]:
    """`alone` in as many processes as cores, all at once, with the memory settings of the scoring actors."""
    context = get_context("spawn")
    barrier = context.Barrier(cores)
    before = {key: os.environ.get(key) for key in KEEP_MEMORY}
    os.environ.update(KEEP_MEMORY)
    try:
        with context.Pool(cores, initializer=_share, initargs=(barrier,)) as pool:
            shares = [regions[number::cores] or regions[:1] for number in range(cores)]
            return pool.starmap(_alone, [(share, manifest, model, reduced_decode) for share in shares], chunksize=1)
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


_barrier: Any = None


def _share(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _alone(
    regions: Sequence[Mapping[str, Any]], manifest: Sequence[ManifestRow], model: str, reduced_decode: bool
) -> Alone:
    return alone(regions, manifest, model, reduced_decode, _barrier)


def fresh(folder: Path, name: str) -> Path:
    """A folder that does not exist yet."""
    return next(path for number in range(10_000) if not (path := folder / f"{name}-{number:03d}").exists())
