"""What the report shows of one slide: its overview with what was found on it, and crops of figures.

A panel is a JSON object of bounded size, read from the slide once and kept in the run's folder.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mitoray.errors import SlideError
from mitoray.report.figures import Crop, chosen_figures, crop_of
from mitoray.report.pictures import dots_path, picture_uri
from mitoray.report.slide_layers import density_layer, field_layers, outline_layer
from mitoray.scoring.counts import points_px
from mitoray.scoring.schema import DETECTIONS
from mitoray.slide import Slide, Tissue, open_slide, options_for
from mitoray.storage import Folder

log = logging.getLogger(__name__)

VERSION: Final = 2
"""Of what a panel holds: panels of another version are made anew."""

_OVERVIEW_SHARE: Final = 0.3
"""Of a panel's characters that the overview may take; outline, density and dots take a tenth each at most."""

_LAYER_SHARE: Final = 0.1
_DOTS_SHOWN: Final = 2000
_READS_AT_ONCE: Final = 8


@dataclass(frozen=True)
class PanelSize:
    """How large a slide's panel may become.

    most: characters of JSON. overview_px: longer side of the overview. crop_px: side of a crop; each of the two
    galleries holds `crops` at most, fewer where they do not fit.
    """

    most: int
    overview_px: int
    crop_px: int
    crops: int

    @classmethod
    def for_slides(cls, n_slides: int, total: int) -> "PanelSize":
        """The size with which the panels of `n_slides` slides take `total` characters at most."""
        most = min(150_000, total // max(1, n_slides))
        if most >= 100_000:
            return cls(most, overview_px=640, crop_px=96, crops=12)
        return cls(most, overview_px=400, crop_px=64, crops=10)


@dataclass(frozen=True)
class PanelTask:
    """What a panel is made from. row: of the SLIDES table. plan: the slide's PLAN row, None where it is gone."""

    row: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    uri: str
    size: PanelSize
    rectangle_mm2: float
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Changes whenever the panel would: with the slide's results, the panel's size and its version."""
        size = [self.size.most, self.size.overview_px, self.size.crop_px, self.size.crops]
        known = json.dumps([VERSION, size, self.rectangle_mm2, dict(self.row)], sort_keys=True, default=str)
        return hashlib.sha256(known.encode()).hexdigest()


def make_panel(folder: Folder, task: PanelTask) -> dict[str, Any]:
    """The panel of one slide. One that cannot be read (any more) shows what the run knows of it, and `error` says why.

    Keys: key, error, width_um, height_um, overview (data URI), outline, density, circle, rectangle, dots, crops (see
    `Crop`), crop_um, left_out (crops that could not be read). All but the first may be None.
    """
    panel: dict[str, Any] = {"key": task.key, "error": None, "crops": []}
    row = task.row
    if row["mpp"] is None:
        return panel | {"error": row["error"] or "The slide was not opened."}
    with _noted(panel, row["slide_id"]):
        detections = folder.read_table(row["detections_file"]) if row["detections_file"] else DETECTIONS.empty_table()
        if extent_um := _planned_extent_um(task):
            panel |= _layers(task, extent_um, detections)
        with open_slide(task.uri, options_for(task.uri, task.storage_options), row["mpp"]) as slide:
            if not extent_um:
                panel |= _layers(task, (slide.width_px * slide.mpp, slide.height_px * slide.mpp), detections)
            mpp = max(max(panel["width_um"], panel["height_um"]) / task.size.overview_px, slide.mpp)
            panel["overview"] = picture_uri(slide.thumbnail(mpp), int(task.size.most * _OVERVIEW_SHARE))
            most = task.size.most - len(json.dumps(panel))
            panel |= _gallery(slide, detections, row["threshold"], task.size, most)
    return panel


@contextmanager
def _noted(panel: dict[str, Any], slide_id: str) -> Iterator[None]:
    """Note in the panel why the slide could not be read, and go on."""
    try:
        yield
    except SlideError as error:
        panel["error"] = f"{type(error).__name__}: {error}"
    except Exception as error:  # one slide, however strange, must not stop the report
        log.exception("The panel of slide %r failed in an unforeseen way", slide_id)
        panel["error"] = f"Unforeseen {type(error).__name__}: {error}"


def _planned_extent_um(task: PanelTask) -> tuple[float, float] | None:
    if task.plan is None or not task.plan.get("width_px"):
        return None
    return task.plan["width_px"] * task.row["mpp"], task.plan["height_px"] * task.row["mpp"]


def _layers(task: PanelTask, extent_um: tuple[float, float], detections: pa.Table) -> dict[str, Any]:
    """What is drawn over the overview, from the run's tables alone; lengths in µm of the slide."""
    row, plan, most = task.row, task.plan, int(task.size.most * _LAYER_SHARE)
    layers: dict[str, Any] = {"width_um": extent_um[0], "height_um": extent_um[1]}
    layers |= field_layers(row, task.rectangle_mm2)
    if plan is not None and plan.get("tissue_png"):
        tissue = Tissue.from_png(plan["tissue_png"], plan["width_px"], plan["height_px"], row["mpp"])
        layers["outline"] = outline_layer(tissue.mask, most)
    counted = detections.filter(pc.greater_equal(detections["score"], row["threshold"]))
    points_um = points_px(counted) * row["mpp"]
    layers["density"] = density_layer(points_um, extent_um, row["hotspot_area_mm2"], most)
    dots, shown = dots_path(points_um[:_DOTS_SHOWN], most)
    layers["dots"] = {"d": dots, "shown": shown, "of": len(points_um)} if shown else None
    return layers


def _gallery(slide: Slide, detections: pa.Table, threshold: float, size: PanelSize, most: int) -> dict[str, Any]:
    """Crops of the highest and of the borderline figures, alternately, for as long as they fit."""
    chosen = chosen_figures(detections, threshold, size.crops)
    with ThreadPoolExecutor(_READS_AT_ONCE) as readers:
        crops = list(readers.map(lambda figure: crop_of(slide, figure, size.crop_px), chosen))
    kept: list[Crop] = []
    for crop in crops:
        length = len(json.dumps(crop))
        if crop["src"] and length <= most:
            kept.append(crop)
            most -= length
    return {"crops": kept, "left_out": sum(not crop["src"] for crop in crops)}
