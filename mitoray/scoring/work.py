"""The tables that a run works with, plans, regions and scores: read by column, counted, never held whole."""

import io
import posixpath
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitoray.scoring.schema import PLAN, REGIONS
from mitoray.storage import Folder

PLANS: Final = "work/plan"
REGION_TABLES: Final = "work/regions"
SCORE_TABLES: Final = "work/scores"
CHECKPOINT: Final = "work/checkpoint"

_FILES_AT_ONCE: Final = 16
"""In object storage, where each takes several round trips. Each thread keeps megabytes of Arrow's memory to itself, so
that from disk, where it gains nothing, files are read one by one."""
_AGAIN: Final = "~"
_PENDING: Final = ".pending.parquet"
"""Ends the name of a checkpoint of Ray Data whose scores may not be written yet."""


@dataclass(frozen=True, slots=True)
class PlanRef:
    """Where a slide's latest PLAN row stands, and its status: all that a driver needs of a plan."""

    slide_id: str
    status: str
    file: str


@dataclass(frozen=True)
class Work:
    """The work tables in a run's folder. Memory goes by the number of slides and files; in `queue_again` of regions."""

    folder: Folder

    def plans(self) -> dict[str, PlanRef]:
        """The latest plan of each slide that was planned; later files override earlier ones."""
        found: dict[str, PlanRef] = {}
        for name, table in self._columns(PLANS, ["slide_id", "status"]):
            for slide_id, status in zip(table["slide_id"].to_pylist(), table["status"].to_pylist(), strict=True):
                found[slide_id] = PlanRef(slide_id, status, name)
        return found

    def write_plans(self, name: str, plans: Sequence[Mapping[str, Any]]) -> None:
        """Keep PLAN rows as a table; they override those in earlier files."""
        buffer = io.BytesIO()
        # A row group each, so that a slide's tissue and cores are read without those of its neighbours.
        pq.write_table(pa.Table.from_pylist(list(plans), schema=PLAN), buffer, row_group_size=1)
        self.folder.write_bytes(name, buffer.getvalue())

    def plan_rows(self, name: str, slide_ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """These columns of the PLAN rows of some slides in one table, in its order."""
        with self._opened(name) as file:
            return pq.read_table(file, columns=list(columns), filters=pc.field("slide_id").isin(list(slide_ids)))

    def region_counts(self) -> Counter[str]:
        """Number of REGIONS rows of each slide."""
        counts: Counter[str] = Counter()
        for _, table in self._columns(REGION_TABLES, ["slide_id"]):
            counts.update(_value_counts(table["slide_id"]))
        return counts

    def scored_counts(self) -> Counter[str]:
        """Number of regions of each slide whose rows are safely written."""
        counts: Counter[str] = Counter()
        for name, table in self._columns(CHECKPOINT, ["region_id"]):
            if _safe(name):
                counts.update(_value_counts(pc.replace_substring_regex(table["region_id"], "/[^/]*$", "")))
        return counts

    def files_by_slide(self) -> dict[str, list[str]]:
        """Names of the score tables that hold regions of each slide."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name, table in self._columns(SCORE_TABLES, ["slide_id"]):
            for slide_id in pc.unique(table["slide_id"]).to_pylist():
                found[slide_id].append(name)
        return dict(found)

    def queue_again(self, attempt: int) -> int:
        """Queue, under new ids, the regions that were tried and have no scores; returns their number.

        They failed, or their scores are gone although the checkpoint holds them for done. Memory goes by the number of
        regions, a few dozen bytes each.
        """
        failed, scored = self._outcomes("failed"), self._outcomes("scored")
        ids = [pa.array([], pa.string()), failed]
        ids += [
            _first_ids(table["region_id"]) for name, table in self._columns(CHECKPOINT, ["region_id"]) if _safe(name)
        ]
        tried = pa.concat_arrays(ids).unique()
        lost = tried.filter(pc.invert(pc.is_in(tried, value_set=scored)))
        if not len(lost):
            return 0
        # A region's first row bears its own id; those of later attempts are copies of it.
        tables = self._columns(REGION_TABLES, REGIONS.names)
        rows = [table.filter(pc.is_in(table["region_id"], value_set=lost)) for _, table in tables]
        again = pa.concat_tables(rows).cast(REGIONS)
        if again.num_rows:
            ids = pc.binary_join_element_wise(again["region_id"], str(attempt), _AGAIN)
            name = next(self.new_names(REGION_TABLES))
            self.folder.write_table(name, again.set_column(0, REGIONS.field("region_id"), ids))
        return int(again.num_rows)

    def new_names(self, subfolder: str) -> Iterator[str]:
        """Names for further tables, that sort behind those which are there.

        No other attempt chooses the same, so that a task which outlived its killed driver overwrites nothing.
        """
        there = [re.match(r"\d+", posixpath.basename(name)) for name in self.folder.names(subfolder, ".parquet")]
        number = max((int(digits[0]) for digits in there if digits), default=-1)
        token = secrets.token_hex(4)
        while True:
            number += 1
            yield f"{subfolder}/{number:06d}-{token}.parquet"

    def finish_commits(self) -> int:
        """Delete pending checkpoints that have been committed too; returns their number. For before Ray Data looks.

        In object storage Ray Data commits by a copy and a deletion. If a fault comes between them, it would later take
        the scores for unfinished and delete them, and yet go on to hold their regions for done.
        """
        names = set(self.folder.names(CHECKPOINT, ".parquet"))
        done = [name for name in names if not _safe(name) and f"{name.removesuffix(_PENDING)}.parquet" in names]
        for name in done:
            self.folder.remove(name)
        return len(done)

    def _outcomes(self, status: str) -> pa.Array:
        """The regions, by their first id, for which some attempt has that outcome."""
        found = [pa.array([], pa.string())]
        for _, table in self._columns(SCORE_TABLES, ["region_id", "status"]):
            found.append(_first_ids(table.filter(pc.equal(table["status"], status))["region_id"]))
        return pa.concat_arrays(found).unique()

    def _columns(self, subfolder: str, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Name and these columns of each table, in the order of names. Of the files no other column is fetched."""

        def read(name: str) -> pa.Table:
            with self._opened(name) as file:
                return pq.ParquetFile(file, pre_buffer=True).read(list(columns), use_threads=False)

        names = self.folder.names(subfolder, ".parquet")
        at_once = 1 if self.folder.local else _FILES_AT_ONCE
        with ThreadPoolExecutor(at_once) as pool:
            for first in range(0, len(names), at_once):
                some = names[first : first + at_once]
                yield from zip(some, pool.map(read, some), strict=True)

    def _opened(self, name: str) -> Any:
        # Object storage would otherwise read ahead, megabytes beyond each column.
        return self.folder.filesystem.open(self.folder.path(name), "rb", cache_type="none")


def _safe(checkpoint: str) -> bool:
    return not checkpoint.endswith(_PENDING)


def _first_ids(region_ids: pa.ChunkedArray) -> pa.Array:
    """Those that the regions bore before they were queued again."""
    ids = pc.replace_substring_regex(region_ids.cast(pa.string()), rf"{_AGAIN}\d+$", "")
    return ids.combine_chunks()


def _value_counts(values: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(values)
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
