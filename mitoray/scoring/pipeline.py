"""The cohort pipeline on Ray: plan, score, reduce; Ray Data scores.

Of scoring only this, `actors`, `tasks` and `metrics` import ray.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from mitoray.errors import Stopped
from mitoray.logs import LogSettings
from mitoray.models.placement import KEEP_MEMORY
from mitoray.scoring.actors import GRACE_S, FetchActor, ScoreActor, started_watch
from mitoray.scoring.config import LIGHT_CPUS, Placement, Resources
from mitoray.scoring.failures import naming_failures
from mitoray.scoring.health import STALLED_S, Stall
from mitoray.scoring.metrics import RunMetrics
from mitoray.scoring.planning import plan_cohort
from mitoray.scoring.progress import RegionBar
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.results import write_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.stopping import StopRequest
from mitoray.scoring.work import CHECKPOINT, REGION_TABLES, SCORE_TABLES

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_KEEP_EVERY_S: Final = 10.0
_SILENT_S: Final = 60.0
"""An actor not heard of for so long is told of: its process hangs, or its node is gone."""
_STALLED: Final = (
    "Nothing has been scored for %d s, and nothing is in hand, while %d regions are left: the cluster has no room for "
    "what hands them out. It may have lost nodes since the run began. Add some, or end the run and start it again."
)


def score_cohort(
    run: Run,
    resources: Resources | None = None,
    *,
    progress: bool = True,
    stop: StopRequest | None = None,
) -> pa.Table:
    """Score a cohort on the Ray cluster that this process is connected to; returns its SLIDES table.

    Writes `detections/`, `geojson/`, `slides/`, `slides.csv`, `cases/`, `cases.csv` and `run.json` into its folder, and
    resumes what an earlier attempt left there. A slide that fails is a row with its error. stop: once it is asked to,
    actors finish the regions that they have in hand, and Stopped is raised.

    Raises OutputFull and ObjectStoreFull.
    """
    if run.status == "complete":
        return run.slides()
    stop = stop or StopRequest()
    with naming_failures(run.folder.shown):
        run.write_record("running")
        try:
            return _stages(run, resources or Resources(), progress, stop)
        except Stopped:
            run.write_record("stopped")
            raise


def _stages(run: Run, resources: Resources, progress: bool, stop: StopRequest) -> pa.Table:
    metrics = RunMetrics(run.cohort.name)
    started = time.perf_counter()
    plans = plan_cohort(run, progress, stop, metrics)
    planned = time.perf_counter()
    _score(run, resources, progress, stop, metrics)
    stop.check()
    scored = time.perf_counter()
    slides = reduce_cohort(run, plans, progress, stop, metrics)
    write_cohort(run.folder, slides)
    seconds = {"plan": planned - started, "score": scored - planned, "reduce": time.perf_counter() - scored}
    run.finish(slides, duration_s={stage: round(value, 2) for stage, value in seconds.items()})
    return slides


def _score(run: Run, resources: Resources, progress: bool, stop: StopRequest, metrics: RunMetrics) -> None:
    """Score what is not scored yet. Ray Data's checkpoint knows what is: one row per region_id, written whole."""
    if run.status != "new":
        run.work.finish_commits()
        log.info("Trying again %d regions that have no scores", run.work.queue_again(run.attempt))
    to_do, done = run.work.region_counts(), run.work.scored_counts()
    n_open = sum((to_do - done).values())
    if not n_open:
        return
    place = resources.placed(_nodes())
    log.info("Reading slides %s: %s", place.reader, place.why)
    cohort, bundle, filesystem = run.carried(), run.bundle, run.folder.arrow_filesystem
    watch = started_watch()
    checkpoint = CheckpointConfig(
        id_column="region_id",
        checkpoint_path=run.folder.path(CHECKPOINT),
        override_filesystem=filesystem,
        delete_checkpoint_on_success=False,
    )
    watching = _watched(watch, run, RegionBar(to_do, done, progress), resources.region_timeout_s, stop, metrics)
    with _ray_data(checkpoint), watching:
        rows = _block_rows(n_open, place)
        regions = ray.data.read_parquet(run.folder.path(REGION_TABLES), filesystem=filesystem, num_cpus=LIGHT_CPUS)
        regions = _lightly(regions.repartition(target_num_rows_per_block=rows))
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
                watch,
                LogSettings.here(),
            ),
            batch_size=rows if place.num_gpus else None,  # Ray Data wants a number where there are GPUs
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=place.num_actors),
            num_cpus=place.num_cpus,
            num_gpus=place.num_gpus,
            runtime_env={"env_vars": KEEP_MEMORY},
        ).write_parquet(run.folder.path(SCORE_TABLES), filesystem=filesystem, ray_remote_args={"num_cpus": LIGHT_CPUS})


def _lightly(repartitioned: "ray.data.Dataset") -> "ray.data.Dataset":
    """The same, by tasks that reserve little.

    Ray Data lets each take a whole CPU and has no option for it. After the loss of a node the actors may hold all CPUs
    that are left, and would wait forever for what hands out their regions.
    """
    step: Any = repartitioned._logical_plan.dag
    step.ray_remote_args["num_cpus"] = LIGHT_CPUS
    return repartitioned


def _nodes() -> list[tuple[float, float]]:
    """CPUs and GPUs of each node of the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]


def _block_rows(n_regions: int, place: Placement) -> int:
    """Regions per block: few files in large runs, work for every actor in small ones, little lost to a kill.

    Between blocks an actor has nothing read ahead. Beside a GPU, which needs a hundredth of a second for a region, that
    costs as much as many regions, and as many are soon scored again.
    """
    most, blocks_per_actor = (512, 4) if place.num_gpus else (64, 8)
    return max(1, min(most, n_regions // (blocks_per_actor * place.num_actors)))


@contextmanager
def _watched(
    watch: Any, run: Run, bar: RegionBar, timeout_s: float, stop: StopRequest, metrics: RunMetrics
) -> Iterator[None]:
    """Show what the actors tell, export it, and keep it in the run's folder, while the block runs.

    Ends actors that are stuck, and hands on the request to stop.
    """
    ended = threading.Event()
    kept = 0.0
    stall = Stall()

    def look() -> None:
        nonlocal kept
        over = ended.is_set()
        if stop.asked:
            ray.get(watch.stop.remote())
        for region_id, actor in ray.get(watch.stuck.remote(timeout_s + GRACE_S)):
            log.warning("Region %s is stuck: its actor is ended, and goes on without it", region_id)
            ray.kill(actor, no_restart=False)
        snapshot = ray.get(watch.snapshot.remote(_SILENT_S))
        bar.show(snapshot)
        if stall.lasts(snapshot, bar.left):
            log.warning(_STALLED, STALLED_S, bar.left)
        metrics.regions(snapshot, bar.left, bar.time_left_s)
        if over or run.folder.local or time.perf_counter() - kept > _KEEP_EVERY_S:
            run.write_attempt(snapshot)
            kept = time.perf_counter()

    def keep_looking() -> None:
        over = False
        while not over:
            over = ended.wait(_POLL_S)
            try:
                look()
            except Exception as error:  # the run goes on, and the next look may succeed
                log.warning("Looking after the actors failed: %s", type(error).__name__)
                log.debug("It failed with this", exc_info=True)
                over = over or ended.wait(_KEEP_EVERY_S)

    thread = threading.Thread(target=keep_looking, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        bar.close()
        metrics.scored()


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
