"""One slide to look at: its tissue, where figures lie densest, and the figures themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle

from mitoray.counting.count_map import count_map
from mitoray.errors import BadOption
from mitoray.report.figures import crop_rect
from mitoray.report.slide_layers import field_layers, window_mm2
from mitoray.scoring.config import Method
from mitoray.scoring.counts import points_px
from mitoray.slide import Slide, Tissue

Order = Literal["score", "borderline", "atypical"]

THUMBNAIL_PX: Final = 1200
FIELD_COLOUR: Final = "#0072B2"
_MAP_CELLS: Final = 100
_COLUMNS: Final = 8


def slide_figure(
    slide: Slide,
    tissue: Tissue,
    row: Mapping[str, Any],
    detections: pa.Table,
    rectangle_mm2: float = Method.hotspot_hpf_mm2,
) -> Figure:
    """The slide with its tissue outlined and its fields of view; beside it, the count map. Axes in mm.

    row: of the SLIDES table; detections: DETECTIONS table, of which those that reach the row's threshold are shown;
    rectangle_mm2: area of the run's rectangle, where it was not the usual one.
    Raises SlideError where the slide cannot be read.
    """
    width_um, height_um = slide.width_px * slide.mpp, slide.height_px * slide.mpp
    image = slide.thumbnail(max(slide.mpp, max(width_um, height_um) / THUMBNAIL_PX))
    counted = detections.filter(pc.greater_equal(detections["score"], row["threshold"]))
    points_um = points_px(counted) * slide.mpp
    figure = Figure(figsize=(11, 1.2 + 5 * min(height_um / width_um, 1.6)), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    extent = (0.0, width_um / 1e3, height_um / 1e3, 0.0)
    for axes in (left, right):
        axes.imshow(image, extent=extent)
        axes.set(xlabel="mm", ylabel="mm")
    _outline(left, tissue, extent)
    left.plot(*(points_um.T / 1e3), "o", markersize=3, markerfacecolor="none", markeredgecolor="#D55E00")
    left.set_title(f"{counted.num_rows} mitotic figures in {tissue.tissue_mm2:.2f} mm² of tissue")
    _fields(left, row, rectangle_mm2)
    window = window_mm2((width_um, height_um), row["hotspot_area_mm2"] or Method.hotspot_mm2)
    step_um = max(width_um, height_um) / _MAP_CELLS
    counts = count_map(points_um, (width_um, height_um), area_mm2=window, step_um=step_um)
    rows, columns = counts.counts.shape
    centres_px = (np.indices((rows, columns))[::-1].reshape(2, -1).T + np.float64(0.5)) * counts.step_um / slide.mpp
    beside = ~tissue.contains(centres_px).reshape(rows, columns)
    shown = np.ma.masked_where(beside | (counts.counts == 0), counts.counts)
    reach = (0.0, columns * counts.step_um / 1e3, rows * counts.step_um / 1e3, 0.0)
    drawn = right.imshow(shown, extent=reach, cmap="viridis", alpha=0.65, vmin=0)
    right.set(xlim=extent[:2], ylim=extent[2:], title="How many lie around each place")
    figure.colorbar(drawn, ax=right, label=f"figures in a circle of {counts.area_mm2:.2g} mm²", shrink=0.8)
    return figure


def gallery_figure(
    slide: Slide, detections: pa.Table, threshold: float, *, order: Order = "score", most: int = 24
) -> Figure:
    """Crops of 32 µm with their scores: the highest, those nearest to the threshold, or the most surely atypical.

    detections: DETECTIONS table. Raises BadOption for an order that is not offered, or one by subtypes where no
    classifier told them; SlideError where the slide cannot be read.
    """
    rows = _ordered(detections, threshold, order)[:most]
    n_rows = max(1, -(-len(rows) // _COLUMNS))
    figure = Figure(figsize=(11, 1.65 * n_rows + 0.2), layout="constrained")
    grid: Sequence[Axes] = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel().tolist()
    for axes, row in zip(grid, rows, strict=False):
        axes.imshow(slide.read_region(crop_rect(slide, row["x_px"], row["y_px"]), slide.mpp))
        atypical = row["atypical_probability"]
        axes.set_title(f"{row['score']:.2f}" + ("" if atypical is None else f", atypical {atypical:.2f}"), fontsize=8)
    for axes in grid:
        axes.axis("off")
    return figure


def _ordered(detections: pa.Table, threshold: float, order: Order) -> list[dict[str, Any]]:
    rows = detections.to_pylist()
    counted = [row for row in rows if row["score"] >= threshold]
    if order == "score":
        return sorted(counted, key=lambda row: -row["score"])
    if order == "borderline":
        return sorted(rows, key=lambda row: abs(row["score"] - threshold))
    if order != "atypical":
        raise BadOption(f"the order {order!r} is not offered; use score, borderline or atypical")
    if any(row["atypical_probability"] is None for row in counted):
        raise BadOption("no classifier told subtypes in this run; score with --classifier, such as mitoray-c")
    return sorted(counted, key=lambda row: -row["atypical_probability"])


def _outline(axes: Axes, tissue: Tissue, extent: tuple[float, float, float, float]) -> None:
    mask = np.pad(tissue.mask.astype(float), 1)
    rows, columns = tissue.mask.shape
    x = (np.arange(columns + 2) - 0.5) / columns * extent[1]
    y = (np.arange(rows + 2) - 0.5) / rows * extent[2]
    axes.contour(x, y, mask, levels=[0.5], colors="black", linewidths=0.8)


def _fields(axes: Axes, row: Mapping[str, Any], rectangle_mm2: float) -> None:
    layers = field_layers(row, rectangle_mm2)
    handles: list[Patch] = []
    if (circle := layers["circle"]) is not None:
        centre = (circle["x_um"] / 1e3, circle["y_um"] / 1e3)
        name = f"{circle['count']} in {circle['area_mm2']:g} mm²"
        handles.append(Circle(centre, circle["radius_um"] / 1e3, fill=False, edgecolor=FIELD_COLOUR, lw=2, label=name))
    if (field := layers["rectangle"]) is not None:
        corner = (field["x_um"] / 1e3, field["y_um"] / 1e3)
        size = (field["width_um"] / 1e3, field["height_um"] / 1e3)
        name = f"{field['count']} in 10 HPF ({field['area_mm2']:g} mm²)"
        handles.append(Rectangle(corner, *size, fill=False, edgecolor="#CC79A7", lw=2, linestyle="--", label=name))
    for handle in handles:
        axes.add_patch(handle)
    if handles:
        axes.legend(handles=handles, fontsize="small", loc="upper right")
