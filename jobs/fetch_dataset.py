"""Fetch a public dataset of mitotic figures: slides, labels, a manifest and a label table.

    python jobs/fetch_dataset.py --list
    python jobs/fetch_dataset.py midog++ --to data/midogpp
    python jobs/fetch_dataset.py cmc --to s3://bucket/cmc --only "d*.svs" --parallel 4

The same command again goes on where the last one stopped. Exit status: 0 all is here, 2 bad arguments, 3 some files
failed or differ (each is named), 1 anything else.
"""

import os
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.datasets import (
    Dataset,
    Destination,
    RemoteFile,
    catalogue,
    dataset_named,
    differences,
    fetch_file,
    remote_files,
    write_labels_table,
    write_manifest,
)
from mitoray.errors import BadOption, MitorayError, OutputBelongsToAnotherRun
from mitoray.ray_address import ray_address


@dataclass(frozen=True)
class Fetch:
    """What to fetch, and where to.

    Args:
        name: a dataset of the catalogue.
        to: folder or URI of the dataset, such as data/cmc or s3://bucket/cmc. On a cluster, a folder is that of the
            node on which this job runs, and that node alone fetches.
        only: globs of slide file names, separated by commas, such as "00*.tiff,51*.tiff"; none takes all slides. Label
            files are small and always come.
        labels: which label set becomes the label table; none takes the most curated one. See --list.
        parallel: files fetched at the same time, 1 to 64.
        mirror: URL of a mirror that speaks the services' APIs under MIRROR/figshare, /zenodo, /gdc and /github; none
            takes the services themselves.
        storage_options: options of the object storage as fsspec takes them, such as
            {"endpoint_url": "http://minio:9000"}.
        list: show the catalogue and end.
        verify: fetch nothing; compare what is there with the catalogue's counts and the announced sizes.
    """

    name: str | None = None
    to: str | None = None
    only: str | None = None
    labels: str | None = None
    parallel: int = 8
    mirror: str | None = None
    storage_options: dict[str, Any] = field(default_factory=dict)
    list: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 64:
            raise BadOption(f"--parallel must lie between 1 and 64, not {self.parallel}.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: fetch(argv), bad_input=(BadOption, OutputBelongsToAnotherRun))


def fetch(argv: Sequence[str] | None) -> int:
    parser = JobParser("fetch_dataset", __doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", help="a dataset of the catalogue, such as midog++ (see --list)")
    parser.add_class_arguments(Fetch, skip={"name", "list", "verify"})
    parser.add_argument("--list", action="store_true", help="show the catalogue and end")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="fetch nothing; compare what is there with the catalogue's counts and the announced sizes",
    )
    (options,) = parser.parsed(argv, Fetch)
    if options.list:
        print(catalogue_table())
        return DONE
    if not options.name or not options.to:
        raise BadOption("Give the name of a dataset and a destination: fetch_dataset NAME --to FOLDER. See --list.")
    dataset = dataset_named(options.name)
    dataset.label_set(options.labels)
    return run(dataset, options, Destination(options.to, options.storage_options))


def run(dataset: Dataset, options: Fetch, destination: Destination) -> int:
    """List, fetch what is missing, and write the tables; or compare."""
    listing = destination.listing(dataset.name, options.mirror)
    if listing is None:
        if options.verify:
            raise BadOption(
                "Nothing was fetched into this destination yet. Run the same command without --verify first."
            )
        found = tqdm(remote_files(dataset, options.mirror), desc="listing", unit=" files")
        listing = sorted(found, key=lambda file: file.path)
        destination.remember_listing(dataset.name, options.mirror, listing)
    globs = options.only.split(",") if options.only else ["*"]
    chosen = [f for f in listing if f.path.startswith("labels/") or any(fnmatch(f.name, glob) for glob in globs)]
    if options.only and not any(file.path.startswith("slides/") for file in chosen):
        raise BadOption(f"No slide of {dataset.name} matches --only {options.only}.")
    label_set = dataset.label_set(options.labels)
    if options.verify:
        problems = differences(dataset, destination, listing, chosen, label_set)
        return report(problems, "Everything is as the catalogue says.")

    finished = destination.finished()
    todo = [file for file in chosen if not file.same_content(finished.get(file.path))]
    check_space(todo, destination)
    failures = fetch_all(todo, options, destination) if todo else {}

    manifest = write_manifest(dataset, destination)
    if label_set and not any(path.startswith("labels/") for path in failures):
        write_labels_table(dataset, destination, label_set, manifest)
    print(f"{dataset.title}. {dataset.citation}, doi:{dataset.doi}\nLicence: {dataset.licence or 'see the note'}")
    print(f"Note: {dataset.note}")
    lines = [f"{path} failed: {reason}" for path, reason in sorted(failures.items())]
    return report(lines, f"{len(chosen)} files are in {destination.uri}.")


def report(problems: Sequence[str], fine: str) -> int:
    print("\n".join(problems) if problems else fine, file=sys.stderr if problems else sys.stdout)
    return 3 if problems else 0


def check_space(todo: Sequence[RemoteFile], destination: Destination) -> None:
    """Refuse before any work what cannot end well."""
    if not (destination.local and todo):
        return
    needed, free = sum(file.size_bytes for file in todo), shutil.disk_usage(destination.root).free
    if needed > free:
        raise BadOption(
            f"{needed / 1e9:.1f} GB are to be fetched, {free / 1e9:.1f} GB are free in {destination.uri}. Choose "
            "another --to, or fewer slides by --only."
        )


def fetch_all(todo: Sequence[RemoteFile], options: Fetch, destination: Destination) -> dict[str, str]:
    """Fetch on Ray, `parallel` files at a time; returns why which file failed, by path."""
    if not ray.is_initialized():
        ray.init(ray_address(), log_to_driver=False)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Downloads wait for the network, so they claim no CPU. A lost worker's file resumes with the next run.
    task = ray.remote(fetch_file).options(
        num_cpus=0,
        num_returns="streaming",
        max_retries=0,
        scheduling_strategy=here if destination.local else "SPREAD",
    )
    waiting, failures = deque(todo), dict[str, str]()
    running: dict[Any, RemoteFile] = {}
    total = sum(file.size_bytes for file in todo)
    with tqdm(total=total, unit="B", unit_scale=True, smoothing=0.05) as bar:
        while waiting or running:
            while waiting and len(running) < options.parallel:
                file = waiting.popleft()
                running[task.remote(file, destination.uri, options.storage_options, options.mirror)] = file
            ready: list[Any] = ray.wait([*running], num_returns=1)[0]
            stream = ready[0]
            try:
                bar.update(ray.get(next(stream)))
            except StopIteration:
                running.pop(stream)
            except Exception as error:
                cause = getattr(error, "cause", None) or error
                failures[running.pop(stream).path] = (
                    str(cause) if isinstance(cause, MitorayError) else f"{type(cause).__name__}: {cause}"
                )
            bar.set_description(f"{len(todo) - len(waiting) - len(running)}/{len(todo)} files")
    return failures


def catalogue_table() -> str:
    rows = [("NAME", "SLIDES", "GB", "DOMAINS", "LABELS (mitotic figures / imposters)", "LICENCE")]
    for dataset in catalogue().values():
        labels = ", ".join(f"{key} {s.mitotic_figures:,} / {s.imposters:,}" for key, s in dataset.labels.items())
        size = "?" if dataset.gigabytes is None else f"{dataset.gigabytes:g}"
        licence = dataset.licence or "see note"
        rows.append((dataset.name, str(dataset.slides), size, str(len(dataset.domains)), labels or "-", licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    notes = "\n".join(f"{dataset.name}: doi:{dataset.doi}. {dataset.note}" for dataset in catalogue().values())
    return f"{table}\n\n{notes}"


if __name__ == "__main__":
    sys.exit(main())
