"""Runs of a cohort over S3 that each meet one fault at a random moment, then the same command again; as a table.

    python tests/benchmarks/fault_campaign.py --runs 20 --output campaign
    python tests/benchmarks/fault_campaign.py --faults actor-kill disk-full --runs 2

Slides and results lie in S3 (moto behind a proxy), but for a full disk, where results go to a small file system of
their own (tmpfs, which takes root). Each run is judged against one that nothing disturbed:

- `slides/slides.parquet` and `cases/cases.parquet`, every column; `slides.csv` and `cases.csv`, byte by byte;
- every `detections/*.parquet`, every column and row in its order; every `geojson/**`, byte by byte;
- of `run.json`: identity, counts and status.

"twice" counts regions that an actor scored more than once, in both runs of the command, from the logs of Ray's workers.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pyarrow.csv as pacsv

sys.path.insert(0, str(Path(__file__).parent))

from faulty_store import BadNetwork, bad_network, client, moto

from mitoray.phantom import draw_cohort
from mitoray.scoring.work import SCORE_TABLES
from mitoray.storage import Folder

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

ROOT = Path(__file__).parents[2]
BUCKET = "campaign"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
FAULTS = (
    "driver-kill",
    "actor-kill",
    "node-kill",
    "503-storm",
    "dropped-connections",
    "latency-500ms",
    "endpoint-down-20s",
    "truncated-object",
    "disk-full",
)
SMALL_DISK_MB = 16
TIMEOUT_S = 900


@dataclass
class Campaign:
    """What all runs share."""

    folder: Path
    network: BadNetwork
    cluster: "Cluster"
    manifest: Path
    quick_s: float = 60.0
    undisturbed: dict[str, object] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of a run's driver: it works on the campaign's Ray, with no credentials but those of the endpoint."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
        return kept | {
            "RAY_ADDRESS": self.cluster.address,
            **CREDENTIALS,
            "PYTHONPATH": str(ROOT),
        }

    def logs(self) -> set[Path]:
        """The logs of the workers that there were so far."""
        return set(self.folder.glob("ray/session_[0-9]*/logs/worker-*.err"))

    def start(self, name: str, output: str, attempt: int, n_actors: int = 1) -> subprocess.Popen[bytes]:
        """The driver, whose output goes to a file of the campaign's folder."""
        storage = json.dumps({"endpoint_url": self.network.url, "client_kwargs": {"region_name": "us-east-1"}})
        options = ["--manifest", str(self.manifest), "--output", output, "--storage-options", storage]
        options += ["--region-um", "128", "--report", "false", "--log-level", "debug", "--num-actors", str(n_actors)]
        command = [sys.executable, str(ROOT / "jobs/score_cohort.py"), *options]
        with (self.folder / f"{name}-{attempt}.log").open("wb") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def results(self, output: str) -> dict[str, object]:
        """Everything a user takes from a run, free of times and places."""
        folder = Folder.at(output, self.storage if output.startswith("s3://") else None)
        folder.filesystem.invalidate_cache()
        found: dict[str, object] = {}
        for path in sorted(folder.filesystem.find(folder.root)):
            name = path.removeprefix(folder.root).lstrip("/")
            if name.startswith("work/"):
                continue
            if name == "run.json":
                record = folder.read_json(name)
                found[name] = {key: record.get(key) for key in ("status", "identity", "counts")}
            else:
                found[name] = folder.read_table(name) if name.endswith(".parquet") else folder.read_bytes(name)
        return found

    @property
    def storage(self) -> dict[str, object]:
        """Storage options for this process."""
        keys = {"key": "test", "secret": "test", "endpoint_url": self.network.url}
        return keys | {"client_kwargs": {"region_name": "us-east-1"}, "skip_instance_cache": True}


# ---- the faults: each meets a run under way, and returns what it did


def after(driver: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait; whether the driver still runs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if driver.poll() is not None:
            return False
        time.sleep(0.05)
    return True


def scoring_actors() -> list[psutil.Process]:
    """The processes of the campaign's Ray that score."""
    return [process for process in family(os.getpid()) if "ScoreActor" in " ".join(command_line(process))]


def family(pid: int) -> list[psutil.Process]:
    """A process' descendants, or none if it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_line(process: psutil.Process) -> list[str]:
    """Empty for a process that is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill_driver(driver: subprocess.Popen[bytes], chance: random.Random, quick_s: float) -> str:
    """SIGKILL at a random moment; what it left in Ray ends by itself."""
    moment = chance.uniform(0.3, 0.95) * quick_s
    if not after(driver, moment):
        return "it had ended before"
    driver.kill()
    return f"SIGKILL after {moment:.0f} s"


def kill_actor(driver: subprocess.Popen[bytes], chance: random.Random) -> str:
    """SIGKILL of one scoring actor, some seconds after there is one."""
    while driver.poll() is None and not scoring_actors():
        time.sleep(0.2)
    wait_s = chance.uniform(1.0, 8.0)
    after(driver, wait_s)
    actors = scoring_actors()
    if not actors:
        return "no actor was left"
    actors[chance.randrange(len(actors))].kill()
    return f"one of {len(actors)} actors, {wait_s:.0f} s after it began"


def fill(folder: Path, driver: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Fill the small file system once some regions are written."""
    wanted = chance.randint(1, 4)
    while driver.poll() is None and len(list((folder / SCORE_TABLES).glob("*.parquet"))) < wanted:
        time.sleep(0.05)
    ballast = folder.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            pass
    return f"full after {wanted} tables of scores"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of a few MB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def cluster(folder: Path) -> Iterator["Cluster"]:
    """A Ray of two CPUs that outlives the runs' drivers, as clusters do; its files go to the folder."""
    os.environ |= {"RAY_TMPDIR": str(folder), **CREDENTIALS}  # nodes have credentials of their own, as on clusters
    from ray.cluster_utils import Cluster

    for last in (False, False, True):
        try:
            started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
            break
        except Exception:  # Ray gives a node 30 s to start, which on a busy machine may be too few
            if last:
                raise
    try:
        yield started
    finally:
        started.shutdown()


@dataclass
class Outcome:
    """One line of the table."""

    run: int
    fault: str
    detail: str
    first_exit: int
    second_exit: int
    equal: bool
    regions: int
    twice: int
    first_s: float
    second_s: float
    differs: str = ""


def scored_by_region(logs: set[Path]) -> Counter[str]:
    """How often each region was scored, as the workers' logs tell."""
    counts: Counter[str] = Counter()
    for log in logs:
        counts.update(re.findall(r"region (\S+) scored", log.read_text(errors="replace")))
    return counts


def run_once(campaign: Campaign, number: int, fault: str, chance: random.Random) -> Outcome:
    """A run that meets the fault, and the same command again."""
    name = f"r{number:02d}"
    network, before = campaign.network, campaign.logs()
    network.calm()
    output, repair = f"s3://{BUCKET}/{name}", lambda: None
    with ExitStack() as stack:
        if fault == "disk-full":
            disk = stack.enter_context(small_disk(campaign.folder / f"{name}-disk"))
            output, repair = str(disk / "out"), lambda: (disk / "ballast").unlink(missing_ok=True)
        if fault == "truncated-object":
            detail, repair = truncate(campaign, chance)
        if fault == "node-kill":
            worker = campaign.cluster.add_node(num_cpus=2)
        began = time.monotonic()
        driver = campaign.start(name, output, 1, 2 if fault == "node-kill" else 1)
        moment = chance.uniform(0.2, 0.8) * campaign.quick_s
        match fault:
            case "driver-kill":
                detail = kill_driver(driver, chance, campaign.quick_s)
            case "actor-kill":
                detail = kill_actor(driver, chance)
            case "node-kill":
                after(driver, moment)
                campaign.cluster.remove_node(worker, allow_graceful=False)
                detail = f"worker node gone after {moment:.0f} s"
            case "503-storm":
                after(driver, moment)
                network.befall("slow_down", 0.7, 10.0)
                detail = f"70 % of requests for 10 s, after {moment:.0f} s"
            case "dropped-connections":
                network.befall("drop", 0.1, TIMEOUT_S)
                detail = "10 % of requests throughout"
            case "latency-500ms":
                network.latency_s = 0.5
                detail = "every request throughout"
            case "endpoint-down-20s":
                after(driver, moment)
                network.befall("down", 1.0, 20.0)
                detail = f"20 s, after {moment:.0f} s"
            case "disk-full":
                detail = fill(Path(output), driver, chance)
        first_exit, first_s = ended(driver), time.monotonic() - began
        if suffered := network.suffered.total():
            detail += f"; {suffered} of {network.requests} requests"
        network.calm()
        repair()
        began = time.monotonic()
        second_exit = ended(campaign.start(name, output, 2))
        second_s = time.monotonic() - began
        differs = difference(campaign.undisturbed, campaign.results(output))
    counts = scored_by_region(campaign.logs() - before)
    twice = sum(count - 1 for count in counts.values())
    return Outcome(
        number, fault, detail, first_exit, second_exit, not differs, len(counts), twice, first_s, second_s, differs
    )


def ended(driver: subprocess.Popen[bytes]) -> int:
    """The driver's exit status; one that hangs is killed, and its status is -9."""
    try:
        return driver.wait(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        driver.kill()
        return driver.wait()


def truncate(campaign: Campaign, chance: random.Random) -> tuple[str, Callable[[], None]]:
    """Cut one slide's object short; gives what puts it back."""
    store = client(campaign.network.url)
    keys = [item["Key"] for item in store.list_objects_v2(Bucket=BUCKET, Prefix="slides/")["Contents"]]
    key = chance.choice(keys)
    whole = store.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    share = chance.uniform(0.2, 0.9)
    store.put_object(Bucket=BUCKET, Key=key, Body=whole[: int(len(whole) * share)])
    return f"{key} to {share:.0%}", lambda: store.put_object(Bucket=BUCKET, Key=key, Body=whole)


def difference(expected: dict[str, object], found: dict[str, object]) -> str:
    """What differs between two runs' results; empty if nothing does."""
    if expected.keys() != found.keys():
        return f"files: {sorted(expected.keys() ^ found.keys())[:5]}"
    return ", ".join(name for name in expected if expected[name] != found[name])


def prepared(folder: Path, network: BadNetwork, ray: "Cluster", n_slides: int, side_px: int) -> Campaign:
    """Slides drawn and uploaded, and the run that nothing disturbs."""
    table, _ = draw_cohort(folder / "slides", n_slides=n_slides, seed=970_000, width_px=side_px, height_px=side_px)
    store = client(network.url)
    store.create_bucket(Bucket=BUCKET)
    uris = []
    for path in table["uri"].to_pylist():
        store.upload_file(path, BUCKET, f"slides/{Path(path).name}")
        uris.append(f"s3://{BUCKET}/slides/{Path(path).name}")
    manifest = folder / "manifest.csv"
    pacsv.write_csv(table.set_column(table.column_names.index("uri"), "uri", pa.array(uris)), manifest)
    campaign = Campaign(folder, network, ray, manifest)
    began = time.monotonic()
    output = f"s3://{BUCKET}/undisturbed"
    status = ended(campaign.start("undisturbed", output, 1))
    assert status == 0, (folder / "undisturbed-1.log").read_text()
    campaign.quick_s = time.monotonic() - began
    campaign.undisturbed = campaign.results(output)
    return campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--side-px", type=int, default=1000, help="side of each phantom slide, px of 0.25 µm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--output", type=Path, help="folder for campaign.csv and the drivers' logs")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    # Every fault once, in random order, before any comes again.
    order: list[str] = []
    while len(order) < given.runs:
        order += chance.sample(given.faults, len(given.faults))
    folder = Path(tempfile.mkdtemp(prefix="fc-"))  # short, for the names of Ray's sockets
    output = given.output or folder
    output.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with moto() as port, bad_network(port, given.seed) as network, cluster(folder) as ray:
        campaign = prepared(folder, network, ray, given.slides, given.side_px)
        regions = sum(scored_by_region(campaign.logs()).values())
        print(f"undisturbed: {given.slides} slides, {regions} regions, {campaign.quick_s:.0f} s", flush=True)
        for number, fault in enumerate(order[: given.runs], 1):
            outcome = run_once(campaign, number, fault, chance)
            outcomes.append(outcome)
            print(line_of(outcome), flush=True)
            write(outcomes, output / "campaign.csv")
            for log in folder.glob("*.log"):
                shutil.copy(log, output)
    equal = sum(outcome.equal for outcome in outcomes)
    print(f"{equal} of {len(outcomes)} equal to the undisturbed run; regions scored twice: ", end="")
    print(f"{sum(outcome.twice for outcome in outcomes)} of {sum(outcome.regions for outcome in outcomes)}")
    return 0 if equal == len(outcomes) else 1


def write(outcomes: list[Outcome], path: Path) -> None:
    """The table so far."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Outcome.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(vars(outcome) for outcome in outcomes)


def line_of(outcome: Outcome) -> str:
    """The outcome as a line of a Markdown table."""
    verdict = "equal" if outcome.equal else f"DIFFERS: {outcome.differs}"
    times = f"{outcome.first_s:.0f} + {outcome.second_s:.0f} s"
    exits = f"{outcome.first_exit}, {outcome.second_exit}"
    cells = [outcome.run, outcome.fault, outcome.detail, exits, verdict, f"{outcome.twice}/{outcome.regions}", times]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
