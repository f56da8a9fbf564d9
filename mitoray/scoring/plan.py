"""Plan one slide: open it, find its tissue, cut the tissue into regions."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mitoray.errors import SlideError
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.schema import RECT, REGIONS
from mitoray.slide import Rect, find_tissue, open_slide, options_for, plan_regions, redact
from mitoray.uris import redact_text

log = logging.getLogger(__name__)

GRANULE_UM = 64.0
"""Cores shrink to their tissue in steps of this size, so that the network meets few distinct image shapes."""


BORDER_MARGIN_UM = 2.0
"""Two regions that see one figure on their border may each place it on the other's side. Both keep what lies this near
outside their core, and the non-maximum suppression of the reduce step leaves one."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The sizes of a slide's regions in level-0 px.

    All are multiples of 16 px, so that a region's origin stays on the network's stride whatever its level.
    """

    granule_px: int
    core_px: int
    halo_px: int

    @classmethod
    def of(cls, mpp: float, region_um: float, halo_um: float) -> "Grid":
        """The grid for a slide of `mpp` µm/px; `halo_um` is what a detector must see around a figure's centre."""
        granule_px = max(16, round(GRANULE_UM / mpp / 16) * 16)
        return cls(
            granule_px=granule_px,
            core_px=granule_px * max(1, round(region_um / GRANULE_UM)),
            halo_px=math.ceil(halo_um / mpp / 16) * 16,
        )


def plan_slide(
    row: ManifestRow, *, region_um: float, halo_um: float, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One row of the PLAN schema. A slide that cannot be used gives one with `status="failed"` and its named error."""
    try:
        if row.error:
            raise row.error
        return _planned(row, region_um, halo_um, storage_options)
    except SlideError as error:
        return _failed(row, named(error))
    except Exception as error:  # one slide, however strange, must not end the cohort
        log.exception("Planning slide %r failed in an unforeseen way", row.slide_id)
        return _failed(row, redact_text(f"Unforeseen {type(error).__name__} while opening: {error}"))


def _planned(
    row: ManifestRow, region_um: float, halo_um: float, storage_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    with open_slide(row.uri, options_for(row.uri, storage_options), row.mpp) as slide:
        tissue = find_tissue(slide, row.tissue_uri, options_for(row.tissue_uri or "", storage_options))
        grid = Grid.of(slide.mpp, region_um, halo_um)
        cores = plan_regions(
            tissue,
            width_px=slide.width_px,
            height_px=slide.height_px,
            core_px=grid.core_px,
            halo_px=grid.halo_px,
            granule_px=grid.granule_px,
        )
        bounds_x_px, bounds_y_px = slide.bounds_offset_px
        return {
            "slide_id": row.slide_id,
            "status": "planned",
            "error": None,
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "bounds_x_px": bounds_x_px,
            "bounds_y_px": bounds_y_px,
            "tissue_mm2": tissue.tissue_mm2,
            "tissue_png": tissue.to_png(),
            "cores": [
                {"x_px": c.x_px, "y_px": c.y_px, "width_px": c.width_px, "height_px": c.height_px} for c in cores
            ],
        }


def named(error: Exception) -> str:
    """An error as tables and terminals show it: its name, then its message."""
    return redact_text(f"{type(error).__name__}: {error}")


def _failed(row: ManifestRow, error: str) -> dict[str, Any]:
    return {"slide_id": row.slide_id, "status": "failed", "error": error, "cores": []}


def regions_of(plan: Mapping[str, Any], uri: str, *, region_um: float, halo_um: float) -> pa.Table:
    """The REGIONS table of one planned slide; ids are `slide_id/number`, the same at every planning.

    plan: of a PLAN row `slide_id`, `mpp` and `cores`, these as dicts or as an Arrow array of RECT.
    """
    cores = plan["cores"] if isinstance(plan["cores"], pa.StructArray) else pa.array(plan["cores"], RECT)
    same = {
        "slide_id": plan["slide_id"],
        "uri": redact(uri),
        "halo_px": Grid.of(plan["mpp"], region_um, halo_um).halo_px,
        "mpp": plan["mpp"],
    }
    columns = {
        "region_id": pa.array([f"{plan['slide_id']}/{number:06d}" for number in range(len(cores))], pa.string()),
        **{name: pa.repeat(pa.scalar(value, REGIONS.field(name).type), len(cores)) for name, value in same.items()},
        **dict(zip(RECT.names, cores.flatten(), strict=True)),
    }
    return pa.table({name: columns[name] for name in REGIONS.names}, schema=REGIONS)


def core_rect(region: Mapping[str, Any]) -> Rect:
    """The rectangle whose figures the region owns, level-0 px."""
    return Rect(region["x_px"], region["y_px"], region["width_px"], region["height_px"])


def outer_rect(region: Mapping[str, Any]) -> Rect:
    """The rectangle that is read: the core with its halo, level-0 px."""
    return core_rect(region).expanded(region["halo_px"])
