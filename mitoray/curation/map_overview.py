"""A map of cells in one small picture, each cell framed in its class' colour."""

import io
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw
from tiffslide import TiffSlide

from mitoray.curation.map_files import colour_of
from mitoray.curation.map_layout import CellMap

OVERVIEW_PX: Final = 2400
_LEGEND_PX: Final = 36


def overview(tiff: Path, cell_map: CellMap, size_px: int = OVERVIEW_PX) -> bytes:
    """PNG of the map, at most `size_px` wide or high, with a legend of the classes below."""
    with TiffSlide(tiff) as slide:
        picture = slide.get_thumbnail((size_px, size_px)).convert("RGB")
        scale = picture.width / slide.dimensions[0]
    sheet = Image.new("RGB", (picture.width, picture.height + _LEGEND_PX), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    side = cell_map.side_px * scale
    for (x, y), name in zip(cell_map.corners, cell_map.names, strict=True):
        left, top = x * scale, y * scale
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=colour_of(cell_map, name), width=1)
    left = 10.0
    for name in cell_map.classes:
        label = f"{name} ({cell_map.names.count(name)})"
        draw.rectangle((left, picture.height + 10, left + 16, picture.height + 26), fill=colour_of(cell_map, name))
        draw.text((left + 22, picture.height + 12), label, fill="black")
        left += 40 + draw.textlength(label)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
