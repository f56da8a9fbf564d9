"""µm per pixel: from an override, the metadata, or the TIFF resolution tags."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.etree import ElementTree  # nosec B405 # entities were refused, see directories.py

from mitoray.errors import AnisotropicPixels, ImplausibleResolution, UnknownResolution

MPP_MIN: Final = 0.1
MPP_MAX: Final = 2.0
ANISOTROPY_MAX: Final = 0.02
UM_PER_UNIT: Final = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0}
REMEDY: Final = "Give the true value in the manifest's mpp column."


def resolve_mpp(
    name: str, override: float | None, properties: Mapping[str, Any], ome_xml: str | None
) -> tuple[float, str]:
    """µm per px of level 0, and where it was found.

    `properties` are tiffslide's. The first source that has a value decides: override, Aperio, OME, the vendor's
    properties, TIFF resolution tags; the tags only if plausible, since 72 dpi is what writers put who know nothing.
    Errors: UnknownResolution, ImplausibleResolution, AnisotropicPixels.
    """
    for source, x, y in _sources(override, properties, ome_xml):
        if not (math.isfinite(x) and math.isfinite(y) and min(x, y) >= MPP_MIN and max(x, y) <= MPP_MAX):
            if source == "TIFF resolution tags":
                continue
            raise ImplausibleResolution(
                f"{name}: {x:g} × {y:g} µm/px from {source} is outside {MPP_MIN}–{MPP_MAX}. {REMEDY}"
            )
        mean = (x + y) / 2
        if abs(x - y) > ANISOTROPY_MAX * mean:
            raise AnisotropicPixels(
                f"{name}: pixels of {x:g} × {y:g} µm ({source}) are not square within {ANISOTROPY_MAX:.0%}. "
                "Resample the slide, or if the metadata is wrong, give the true value in the manifest's mpp column."
            )
        return mean, source
    power = _number(properties.get("tiffslide.objective-power"))
    hint = f" Its objective is {power:g}×, for which about {10 / power:.2g} µm/px is usual." if power else ""
    raise UnknownResolution(f"{name}: no metadata gives µm per pixel.{hint} {REMEDY}")


def _sources(
    override: float | None, properties: Mapping[str, Any], ome_xml: str | None
) -> Iterator[tuple[str, float, float]]:
    if override is not None:
        yield "override", override, override
    aperio = _number(properties.get("aperio.MPP"))
    if aperio is not None:
        yield "Aperio MPP", aperio, aperio
    ome = _ome_pixel_size(ome_xml)
    if ome is not None:
        yield "OME PhysicalSize", *ome
    x, y = (_number(properties.get(f"tiffslide.mpp-{axis}")) for axis in "xy")
    if x is not None and y is not None:
        from_tags = "tiff.XResolution" in properties and properties.get("tiffslide.vendor") in (
            None,
            "aperio",
            "hamamatsu",
        )
        yield "TIFF resolution tags" if from_tags else "vendor metadata", x, y


def _number(value: Any) -> float | None:
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None


def _ome_pixel_size(ome_xml: str | None) -> tuple[float, float] | None:
    """PhysicalSizeX, Y of the first image of an OME-XML block, in µm."""
    if not ome_xml:
        return None
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", ome_xml))  # nosec B314 # entities were refused
    except ElementTree.ParseError:
        return None
    pixels = next(
        (element for element in root.iter() if element.tag.endswith("}Pixels") or element.tag == "Pixels"), None
    )
    if pixels is None:
        return None
    sizes = []
    for axis in "XY":
        size = _number(pixels.get(f"PhysicalSize{axis}"))
        unit = UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size is None or unit is None:
            return None
        sizes.append(size * unit)
    return sizes[0], sizes[1]
