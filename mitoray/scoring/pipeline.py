"""The cohort pipeline on Ray: plan, score, reduce. Of scoring only this and `tasks` import ray; Ray Data scores."""

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

from mitoray.models import load_model
from mitoray.models.placement import KEEP_MEMORY
from mitoray.scoring.config import LIGHT_CPUS, Cohort, Identity, Placement, Resources
from mitoray.scoring.planning import plan_cohort
from mitoray.scoring.progress import RegionBar, Tally
from mitoray.scoring.reducing import reduce_cohort
from mitoray.scoring.results import write_cohort
from mitoray.scoring.run import Run
from mitoray.scoring.schema import SCORES
from mitoray.scoring.score import RegionReader, RegionScorer
from mitoray.scoring.stages import Levels, SecondStage
from mitoray.scoring.work import CHECKPOINT, REGION_TABLES, SCORE_TABLES

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_KEEP_EVERY_S: Final = 10.0


def score_cohort(run: Run, resources: Resources | None = None, *, progress: bool = True) -> pa.Table:
    """Score a cohort on the Ray cluster that this process is connected to; returns its SLIDES table.

    Writes `detections/`, `geojson/`, `slides/`, `slides.csv`, `cases/`, `cases.csv` and `run.json` into its folder, and
    resumes what an earlier attempt left there. A slide that fails is a row with its error.
    """
    if run.status == "complete":
        return run.slides()
    run.write_record("running")
    started = time.perf_counter()
    plans = plan_cohort(run, progress)
    planned = time.perf_counter()
    _score(run, resources or Resources(), progress)
    scored = time.perf_counter()
    slides = reduce_cohort(run, plans, progress)
    write_cohort(run.folder, slides)
    seconds = {"plan": planned - started, "score": scored - planned, "reduce": time.perf_counter() - scored}
    run.finish(slides, duration_s={stage: round(value, 2) for stage, value in seconds.items()})
    return slides


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
        self._reader = RegionReader(cohort.rows, mpp, cohort.storage_options, 0, cohort.method.reduced_decode)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The same REGIONS rows with their `tiles`; null where they could not be had: the scorer finds out why."""
        return batch.append_column("tiles", pa.array(map(self._reader.packed, batch.to_pylist()), pa.large_binary()))


def _score(run: Run, resources: Resources, progress: bool) -> None:
    """Score what is not scored yet. Ray Data's checkpoint knows what is: one row per region_id, written whole."""
    if run.status == "incomplete":
        log.info("Trying again %d regions that could not be scored before", run.work.queue_again(run.attempt))
    to_do, done = run.work.region_counts(), run.work.scored_counts()
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
        rows = _block_rows(n_open, place)
        regions = ray.data.read_parquet(
            run.folder.path(REGION_TABLES), filesystem=filesystem, num_cpus=LIGHT_CPUS
        ).repartition(target_num_rows_per_block=rows)
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
            batch_size=rows if place.num_gpus else None,  # Ray Data wants a number where there are GPUs
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


def _block_rows(n_regions: int, place: Placement) -> int:
    """Regions per block: few files in large runs, work for every actor in small ones, little lost to a kill.

    Between blocks an actor has nothing read ahead. Beside a GPU, which needs a hundredth of a second for a region, that
    costs as much as many regions, and as many are soon scored again.
    """
    most, blocks_per_actor = (512, 4) if place.num_gpus else (64, 8)
    return max(1, min(most, n_regions // (blocks_per_actor * place.num_actors)))


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
