"""The panels of a run's slides: made in one pass over those whose panel is not there yet, and kept."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from mitoray.report.panel import PanelSize, PanelTask, make_panel
from mitoray.scoring.progress import slide_bar
from mitoray.scoring.tasks import in_tasks
from mitoray.storage import Folder, file_stem

log = logging.getLogger(__name__)

PANELS: Final = "report/panels"

TOTAL: Final = 64_000_000
"""Characters that all panels of a report may take together.

One file with everything in it is what people can keep, send and open years later, from a mail or a USB stick, and
browsers refuse to load much from beside a file:// page. So the report stays one file, and its size is bounded instead:
slides share this many characters, and a panel becomes nodes only when it is opened. For 1,200 slides that is 53 kB
each: an overview of 400 px, the layers, and up to 20 crops of 64 px. Until then browsers keep it as text.
"""

_FILES_AT_ONCE: Final = 128


def gather_panels(
    folder: Folder,
    slides: pa.Table,
    plans: Mapping[str, Mapping[str, Any]],
    uris: Mapping[str, str],
    *,
    rectangle_mm2: float,
    storage_options: Mapping[str, Any] | None = None,
    total: int = TOTAL,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """The panels of the slides, in their order; see `make_panel`.

    slides: SLIDES table. plans: PLAN rows by slide. uris: slides' URIs where the table's will not do. Only slides whose
    panel is not in the run's folder, or could not be read, are opened, on the Ray cluster of this process.
    """
    size = PanelSize.for_slides(slides.num_rows, total)
    tasks = [
        PanelTask(
            row, plans.get(row["slide_id"]), uris.get(row["slide_id"], row["uri"]), size, rectangle_mm2, storage_options
        )
        for row in slides.to_pylist()
    ]
    # A slide that was never opened has nothing to keep, and its slide_id may be no file name.
    panels = {place: make_panel(folder, task) for place, task in enumerate(tasks) if task.row["mpp"] is None}
    opened = {place: task for place, task in enumerate(tasks) if place not in panels}
    panels |= {
        place: panel
        for place, panel in _kept(folder, opened).items()
        if panel["key"] == opened[place].key and not panel["error"]
    }
    missing = {place: task for place, task in opened.items() if place not in panels}
    with slide_bar("report", len(missing), progress) as bar:
        for _ in in_tasks(partial(_make_and_keep, folder), list(missing.values())) if missing else ():
            bar.update()
    panels |= _kept(folder, missing)
    return [panels[place] for place in range(len(tasks))]


def _name(task: PanelTask) -> str:
    return f"{PANELS}/{file_stem(task.row['slide_id'])}.json"


def _make_and_keep(folder: Folder, task: PanelTask) -> None:
    """Write the panel to the run's folder: no picture travels through Ray."""
    folder.write_bytes(_name(task), json.dumps(make_panel(folder, task)).encode())


def _kept(folder: Folder, tasks: Mapping[int, PanelTask]) -> dict[int, dict[str, Any]]:
    """The panels that are in the folder, by the place of their task."""
    there = set(folder.names(PANELS, ".json"))
    names = {place: _name(task) for place, task in tasks.items() if _name(task) in there}
    panels: dict[int, dict[str, Any]] = {}
    places = list(names)
    for batch in (places[first : first + _FILES_AT_ONCE] for first in range(0, len(places), _FILES_AT_ONCE)):
        contents = _contents(folder, [names[place] for place in batch])
        for place in batch:
            panel = json.loads(contents[names[place]])
            if isinstance(panel, dict) and {"key", "error", "crops"} <= panel.keys():
                panels[place] = panel
    return panels


def _contents(folder: Folder, names: Sequence[str]) -> dict[str, bytes]:
    found = folder.filesystem.cat([folder.path(name) for name in names])
    return {name: bytes(found[folder.path(name)]) for name in names}
