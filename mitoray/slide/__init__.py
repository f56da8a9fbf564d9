"""One slide: open it, know its µm, find its tissue, cut regions, read native tiles, decode them."""

from mitoray.slide.geometry import Rect
from mitoray.slide.pyramid import Level
from mitoray.slide.reader import Slide, open_slide
from mitoray.slide.regions import plan_regions
from mitoray.slide.segmentation import segment_tissue
from mitoray.slide.tissue import Tissue, find_tissue
from mitoray.slide.window import RegionBytes, decode_region
from mitoray.uris import options_for, redact

__all__ = [
    "Level",
    "Rect",
    "RegionBytes",
    "Slide",
    "Tissue",
    "decode_region",
    "find_tissue",
    "open_slide",
    "options_for",
    "plan_regions",
    "redact",
    "segment_tissue",
]
