"""Draw count maps and hotspots to look at: `python tests/benchmarks/count_map_figure.py --output maps`.

With --zones, a SlideRunner database of tumour zones (CCMCT), figures are strewn in the real outlines of real tumours,
denser around some places: the outlines are real, the figures are not. Without, a phantom slide is drawn, and its drawn
figures are counted. Each map shows the tissue in grey, the moving window, the exact densest circle and rectangle, the
densest circle that holds tissue, and the figures.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from mitoray.counting.count_map import CountMap, count_map
from mitoray.counting.hotspot import Hotspot, densest_circle, densest_rectangle
from mitoray.counting.tissue_fields import densest_with_tissue
from mitoray.labels.zones import read_zones
from mitoray.phantom import draw_phantom
from mitoray.slide import Tissue
from mitoray.slide.segmentation import segment_tissue

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

CCMCT_MPP = 0.25
"""µm/px of the CCMCT slides (Bertram et al. 2019)."""
MASK_UM = 16.0
SHARE = 0.8


def strewn(tissue: Tissue, per_mm2: float, rng: np.random.Generator) -> np.ndarray:
    """Figures in the tissue, four out of five around a handful of places in it: (n, 2) µm."""
    rows, columns = np.nonzero(tissue.mask)
    step_um = tissue.width_px * tissue.mpp / tissue.mask.shape[1]
    anywhere = (np.column_stack([columns, rows]) + rng.random((len(rows), 2))) * step_um
    centres = anywhere[rng.choice(len(anywhere), 5)]
    nearest = np.min(np.linalg.norm(anywhere[:, None] - centres, axis=2) / rng.uniform(400, 1500, 5), axis=1)
    weight = 0.2 + 4 * np.exp(-(nearest**2))
    n = min(len(anywhere), rng.poisson(per_mm2 * tissue.tissue_mm2))
    return anywhere[rng.choice(len(anywhere), n, replace=False, p=weight / weight.sum())]


def zone_tissue(rings: list[np.ndarray]) -> Tissue:
    """Tissue where any of the outlines is, on a slide that ends 2 mm after them."""
    extent = np.max([ring.max(axis=0) for ring in rings], axis=0) + 2000 / CCMCT_MPP
    size = tuple(np.ceil(extent * CCMCT_MPP / MASK_UM).astype(int).tolist())
    image = Image.new("1", size)
    draw = ImageDraw.Draw(image)
    for ring in rings:
        draw.polygon([tuple(point) for point in (ring * CCMCT_MPP / MASK_UM).tolist()], fill=1)
    width_px, height_px = (round(n * MASK_UM / CCMCT_MPP) for n in size)
    return Tissue(np.asarray(image), width_px, height_px, CCMCT_MPP)


def outline(axes: Axes, field: Hotspot, colour: str, style: str, label: str) -> None:
    x, y, width, height = (v / 1000 for v in (field.x_um, field.y_um, field.width_um, field.height_um))
    shape = (
        Circle((x, y), width / 2)
        if field.shape == "circle"
        else Rectangle((x - width / 2, y - height / 2), width, height)
    )
    shape.set(fill=False, edgecolor=colour, linestyle=style, linewidth=1.8, label=f"{label}: {field.count}")
    axes.add_patch(shape)


def draw(name: str, tissue: Tissue, points_um: np.ndarray, area_mm2: float, path: Path) -> None:
    extent_um = (tissue.width_px * tissue.mpp, tissue.height_px * tissue.mpp)
    step_um = max(MASK_UM, max(extent_um) / 400)
    start = time.perf_counter()
    found: CountMap = count_map(points_um, extent_um, area_mm2, step_um=step_um)
    fields = [
        (densest_circle(points_um, area_mm2), "black", "-", f"densest circle of {area_mm2:g} mm²"),
        (densest_rectangle(points_um, area_mm2 * 1.185), "black", "--", f"densest 4:3 of {area_mm2 * 1.185:.2f} mm²"),
        (
            densest_with_tissue(points_um, tissue, SHARE, "circle", area_mm2),
            "crimson",
            ":",
            f"densest circle with {SHARE:.0%} tissue",
        ),
    ]
    seconds = time.perf_counter() - start
    figure, axes = plt.subplots(figsize=(10, 10 * extent_um[1] / extent_um[0] + 1), layout="constrained")
    place = (0, extent_um[0] / 1000, extent_um[1] / 1000, 0)
    axes.imshow(np.where(tissue.mask, 225, 255), cmap="gray", vmin=0, vmax=255, extent=place)
    reach = np.array(found.counts.shape[::-1]) * step_um / 1000
    axes.imshow(found.image(tissue=tissue), extent=(0, reach[0], reach[1], 0))
    axes.plot(*points_um.T / 1000, ".", color="0.15", markersize=2.5)
    for field, colour, style, label in fields:
        if field:
            outline(axes, field, colour, style, label)
    axes.set(xlim=(0, extent_um[0] / 1000), ylim=(extent_um[1] / 1000, 0), xlabel="mm", ylabel="mm")
    axes.set_title(f"{name}: {len(points_um)} figures, at most {found.counts.max()} in the moving window")
    axes.legend(loc="lower right", framealpha=0.9)
    figure.savefig(path, dpi=80, pad_inches=0.1)
    plt.close(figure)
    told = ", ".join(f"{label} {field.count if field else 'none'}" for field, *_, label in fields)
    print(f"{path.name}: {len(points_um)} figures on {tissue.tissue_mm2:.0f} mm², {told}; {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--zones", type=Path, help="SlideRunner database of tumour zones, 0.25 µm/px")
    parser.add_argument("--slides", type=int, default=2, help="slides of the database, those with most zones first")
    parser.add_argument("--seed", type=int, default=3)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(given.seed)
    if given.zones:
        zones = read_zones(given.zones)
        for slide_id, _ in Counter(zones["slide_id"].to_pylist()).most_common(given.slides):
            rows = zones.filter(pc.equal(zones["slide_id"], slide_id)).to_pylist()
            rings = [np.array([(p["x_px"], p["y_px"]) for p in row["rings"][0]]) for row in rows]
            tissue = zone_tissue(rings)
            path = given.output / f"{Path(slide_id).stem}.png"
            draw(f"{slide_id} (real outlines, strewn figures)", tissue, strewn(tissue, 5.0, rng), 2.0, path)
    else:
        phantom = draw_phantom("phantom-lymphoma-a", seed=given.seed, width_px=8000, height_px=6000)
        coarse = Image.fromarray(phantom.image).resize((125, 94), Image.Resampling.BOX)
        mask = segment_tissue(np.asarray(coarse), MASK_UM)
        labels = phantom.labels.filter(pc.equal(phantom.labels["kind"], "mitotic_figure"))
        points = np.column_stack([labels["x_px"], labels["y_px"]]).astype(float) * phantom.mpp
        draw("phantom", Tissue(mask, 8000, 6000, phantom.mpp), points, 0.2, given.output / "phantom.png")


if __name__ == "__main__":
    main()
