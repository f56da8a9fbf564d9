"""The cohort pipeline on Ray Data: plan, score, reduce. The only module of scoring that imports ray."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from mitoray.models import load_model
from mitoray.models.placement import KEEP_MEMORY
from mitoray.scoring.config import LIGHT_CPUS, Cohort, Identity, Placement, Resources
from mitoray.scoring.plan import named, plan_slide, regions_of
from mitoray.scoring.progress import RegionBar, Tally, slide_bar
from mitoray.scoring.reduce import failed_slide, reduce_slide, slide_scores
from mitoray.scoring.results import write_cohort, write_slide
from mitoray.scoring.run import CHECKPOINT, REGION_TABLES, SCORE_TABLES, Run
from mitoray.scoring.schema import PLAN, SCORES, SLIDES
from mitoray.scoring.score import RegionReader, RegionScorer
from mitoray.scoring.stages import Levels, SecondStage

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_KEEP_EVERY_S: Final = 10.0
_GATHER_S: Final = 5.0


def score_cohort(run: Run, resources: Resources | None = None, *, progress: bool = True) -> pa.Table:
    """Score a cohort on the Ray cluster that this process is connected to; returns its SLIDES table.

    Writes `detections/`, `geojson/`, `slides/`, `slides.csv`, `cases/`, `cases.csv` and `run.json` into its folder, and
    resumes what an earlier attempt left there. A slide that fails is a row with its error.
    """
    if run.status == "complete":
        return run.slides()
    run.write_record("running")
    started = time.perf_counter()
    plans = _plan(run, progress)
    planned = time.perf_counter()
    _score(run, resources or Resources(), progress)
    scored = time.perf_counter()
    slides = _reduce(run, plans, progress)
    write_cohort(run.folder, slides)
    seconds = {"plan": planned - started, "score": scored - planned, "reduce": time.perf_counter() - scored}
    run.finish(slides, duration_s={stage: round(value, 2) for stage, value in seconds.items()})
    return slides


# ---- plan: one CPU task per slide


def _plan(run: Run, progress: bool) -> dict[str, dict[str, Any]]:
    """PLAN rows by slide, those of earlier attempts included; a slide that failed before is opened again."""
    cohort = run.cohort
    sizes = {"region_um": cohort.method.region_um, "halo_um": run.halo_um()}
    known = run.plans()
    to_plan = [row for row in cohort.rows if not row.error and known.get(row.slide_id, {}).get("status") != "planned"]
    shared = ray.put((to_plan, cohort.storage_options))

    def plan_one(batch: pa.Table) -> pa.Table:
        rows, storage_options = ray.get(shared)
        planned = plan_slide(rows[batch["index"][0].as_py()], **sizes, storage_options=storage_options)
        return pa.Table.from_pylist([planned], schema=PLAN)

    with _ray_data(), slide_bar("planning", len(to_plan), progress) as bar:
        for tables in _gathered(_each(plan_one, len(to_plan))):
            run.write_plan(pa.concat_tables(tables))
            bar.update(len(tables))
    plans = run.plans()
    uris = {row.slide_id: row.uri for row in cohort.rows}
    cut = run.region_counts()
    new = [plan for slide_id, plan in plans.items() if plan["cores"] and slide_id not in cut]
    run.write_regions([regions_of(plan, uris[plan["slide_id"]], **sizes) for plan in new])
    return plans


# ---- score: actors that hold the models


class ScoreActor:
    """Holds the models on one device and scores blocks of regions."""

    def __init__(
        self,
        cohort: Cohort,
        identity: Identity,
        levels: Levels,
        resources: Resources,
        place: Placement,
        tally: Any,
        log_level: int,
    ) -> None:
        logging.basicConfig(format="%(levelname)s %(message)s")
        logging.getLogger("mitoray").setLevel(log_level)
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        bundle = load_model(cohort.model, cohort.storage_options, expected_digest=identity.model_digest)
        self._scorer = RegionScorer(
            RegionReader(
                cohort.rows,
                bundle.mpp,
                cohort.storage_options,
                resources.tile_cache_mb << 20,
                cohort.method.reduced_decode,
            ),
            bundle.detector(device, place.threads),
            levels.detector,
            place.read_threads,
            SecondStage.of(cohort, identity.classifier_digest, levels.final, device),
        )
        self._tally = tally
        self._tally.begin.remote()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """SCORES rows for a block of REGIONS rows, one each."""
        rows: list[dict[str, Any]] = []
        for row in self._scorer.score(batch.to_pylist()):
            log.debug("region %s %s", row["region_id"], row["status"])
            mm2 = row["width_px"] * row["height_px"] * batch["mpp"][len(rows)].as_py() ** 2 / 1e6
            self._tally.add.remote(row["slide_id"], mm2, row["status"] == "failed", self._scorer.take_seconds())
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=SCORES)


class FetchActor:
    """Fetches regions' compressed tiles for actors elsewhere."""

    def __init__(self, cohort: Cohort, mpp: float) -> None:
        how = cohort.method.reduced_decode
        self._reader = RegionReader(cohort.rows, mpp, cohort.storage_options, 0, how)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The same REGIONS rows with their `tiles`; null where they could not be had: the scorer finds out why."""
        return batch.append_column("tiles", pa.array(map(self._reader.packed, batch.to_pylist()), pa.large_binary()))


def _score(run: Run, resources: Resources, progress: bool) -> None:
    """Score what is not scored yet. Ray Data's checkpoint knows what is: one row per region_id, written whole."""
    if run.status == "incomplete":
        log.info("Trying again %d regions that could not be scored before", run.queue_again())
    to_do, done = run.region_counts(), run.scored_counts()
    n_open = sum((to_do - done).values())
    if not n_open:
        return
    place = resources.placed(_nodes())
    log.info("Reading slides %s: %s", place.reader, place.why)
    cohort, bundle, filesystem = run.cohort, run.bundle, run.folder.arrow_filesystem
    tally = ray.remote(num_cpus=0)(Tally).remote()
    checkpoint = CheckpointConfig(
        id_column="region_id",
        checkpoint_path=run.folder.path(CHECKPOINT),
        override_filesystem=filesystem,
        delete_checkpoint_on_success=False,
    )
    with _ray_data(checkpoint), _watched(tally, run, RegionBar(to_do, done, progress)):
        regions = ray.data.read_parquet(
            run.folder.path(REGION_TABLES), filesystem=filesystem, num_cpus=LIGHT_CPUS
        ).repartition(target_num_rows_per_block=_block_rows(n_open, place.num_actors))
        if place.reader == "staged":
            regions = regions.map_batches(
                FetchActor,
                fn_constructor_args=(cohort, bundle.mpp),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=place.num_actors),
                num_cpus=LIGHT_CPUS,
            )
        regions.map_batches(
            ScoreActor,
            fn_constructor_args=(
                cohort,
                run.identity,
                run.levels,
                resources,
                place,
                tally,
                log.getEffectiveLevel(),
            ),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=place.num_actors),
            num_cpus=place.num_cpus,
            num_gpus=place.num_gpus,
            runtime_env={"env_vars": KEEP_MEMORY},
        ).write_parquet(run.folder.path(SCORE_TABLES), filesystem=filesystem, ray_remote_args={"num_cpus": LIGHT_CPUS})


def _nodes() -> list[tuple[float, float]]:
    """CPUs and GPUs of each node of the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]


def _block_rows(n_regions: int, num_actors: int) -> int:
    """Regions per block: few files in large runs, work for every actor in small ones, little lost to a kill."""
    return max(1, min(64, n_regions // (8 * num_actors)))


@contextmanager
def _watched(tally: Any, run: Run, bar: RegionBar) -> Iterator[None]:
    """Show what the actors tally, and keep it in the run's folder, while the block runs."""
    stop = threading.Event()

    def look() -> None:
        kept = 0.0
        ended = False
        while not ended:
            ended = stop.wait(_POLL_S)
            snapshot = ray.get(tally.snapshot.remote())
            bar.show(snapshot)
            if ended or run.folder.local or time.perf_counter() - kept > _KEEP_EVERY_S:
                run.write_attempt(snapshot)
                kept = time.perf_counter()

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        bar.close()


# ---- reduce: one CPU task per slide, which reads only the score tables that hold its regions


def _reduce(run: Run, plans: Mapping[str, Any], progress: bool) -> pa.Table:
    """The SLIDES table, in the order of the manifest; each slide's own files are written by its task."""
    with _ray_data():
        # The tasks get what they need and no more: each its own slide's plan, and none the model, for whose sake they
        # would have to import torch.
        folder, method, files = run.folder, run.cohort.method, run.cohort.files
        default, by_domain, calibrated = run.deciding.threshold, run.deciding.thresholds, run.calibrated
        files_of, rows = run.files_by_slide(), run.cohort.rows
        work = ray.put([ray.put((row, plans.get(row.slide_id, {}), files_of.get(row.slide_id, []))) for row in rows])

        def reduce_one(batch: pa.Table) -> pa.Table:
            index = batch["index"][0].as_py()
            source, plan, tables = ray.get(ray.get(work)[index])
            if source.error:
                row = failed_slide(source, named(source.error))
            elif plan["status"] != "planned":
                row = failed_slide(source, plan["error"])
            else:
                threshold = method.threshold_for(source.domain, default, by_domain)
                scores = slide_scores(folder, tables, source.slide_id)
                result = reduce_slide(source, plan, scores, method, threshold, calibrated)
                row = write_slide(folder, plan, result, files)
            return pa.Table.from_pylist([row], schema=SLIDES).append_column("index", [[index]])

        with slide_bar("counting", len(rows), progress) as bar:
            done = []
            for table in _each(reduce_one, len(rows)):
                done.append(table)
                bar.update(table.num_rows)
    return pa.concat_tables(done).sort_by("index").drop(["index"])


# ---- Ray Data


def _each(function: Callable[[pa.Table], pa.Table], n: int) -> Iterator[pa.Table]:
    """Tables that `function` gives for the one-row tables {index: 0}, …, {index: n - 1}, each in a task of its own."""
    if not n:
        return
    blocks = [pa.table({"index": [index]}) for index in range(n)]
    mapped = ray.data.from_arrow(blocks).map_batches(function, batch_size=None, batch_format="pyarrow", num_cpus=1)
    yield from mapped.iter_batches(batch_size=None, batch_format="pyarrow")


def _gathered(tables: Iterator[pa.Table]) -> Iterator[list[pa.Table]]:
    """The tables in lists of what came within some seconds: few files, and little lost when a run is killed."""
    gathered: list[pa.Table] = []
    since = time.perf_counter()
    for table in tables:
        gathered.append(table)
        if time.perf_counter() - since > _GATHER_S:
            yield gathered
            gathered, since = [], time.perf_counter()
    if gathered:
        yield gathered


@contextmanager
def _ray_data(checkpoint: CheckpointConfig | None = None) -> Iterator[None]:
    """Ray Data with our progress bars instead of its own, and with a checkpoint where one is given."""
    context = DataContext.get_current()
    settings = {
        "enable_progress_bars": False,
        "checkpoint_config": checkpoint,
        # The newer reader lists files in a task of a whole CPU. A small cluster has no room for it beside the scoring
        # actors and the checkpoint's filter, and would wait forever.
        "use_datasource_v2": False,
    }
    before = {name: getattr(context, name) for name in settings}
    for name, value in settings.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
