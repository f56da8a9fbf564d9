"""High power fields and areas: what a count per so many fields of one microscope is on another, or per mm².

Meuten et al. 2016 (Vet. Pathol. 53, 7–9): a high power field (HPF) has as many mm² as the microscope shows, so counts
are to be given per area, and ten fields are taken as 2.37 mm²: a 40× objective and an ocular of field number 22.
"""

import math
from typing import Final

from mitoray.errors import BadOption

HPF_MM2: Final = 0.237
"""Area of one standard HPF, mm²."""

TEN_HPF_MM2: Final = 2.37
"""Area of ten standard HPF, mm², in which veterinary pathology counts."""

HOTSPOT_MM2: Final = 2.0
"""Area in which breast cancer is counted by present guidelines, mm² (Fick et al. 2024, §2.4)."""


def field_diameter_mm(field_number: float, objective: float, tube_factor: float = 1.0) -> float:
    """Diameter of the field of view, mm: the ocular's field number (mm) over the magnification in front of it.

    objective: its magnification, such as 40. tube_factor: magnification of a lens between objective and ocular.
    Raises BadOption for what is not positive.
    """
    _positive(field_number=field_number, objective=objective, tube_factor=tube_factor)
    return field_number / (objective * tube_factor)


def field_mm2(field_number: float, objective: float, tube_factor: float = 1.0) -> float:
    """Area of the round field of view, mm²; arguments and errors as of `field_diameter_mm`."""
    return math.pi / 4 * field_diameter_mm(field_number, objective, tube_factor) ** 2


def hpf_to_mm2(n_hpf: float, hpf_mm2: float = HPF_MM2) -> float:
    """Area of `n_hpf` high power fields, mm². Raises BadOption for what is not positive."""
    _positive(n_hpf=n_hpf, hpf_mm2=hpf_mm2)
    return n_hpf * hpf_mm2


def mm2_to_hpf(area_mm2: float, hpf_mm2: float = HPF_MM2) -> float:
    """How many high power fields an area is. Raises BadOption for what is not positive."""
    _positive(area_mm2=area_mm2, hpf_mm2=hpf_mm2)
    return area_mm2 / hpf_mm2


def count_per(count: float, counted_mm2: float, per_mm2: float = 1.0) -> float:
    """A count in `counted_mm2` as the count in `per_mm2` of the same density.

    The densest 2 mm² scaled to another area is not the count of the densest field of that area: smaller fields find
    denser spots. Raises BadOption for a negative count or areas that are not positive.
    """
    _positive(counted_mm2=counted_mm2, per_mm2=per_mm2)
    if not (math.isfinite(count) and count >= 0):
        raise BadOption(f"a count must not be negative, and is {count}")
    return count * per_mm2 / counted_mm2


def count_per_2mm2(count: float, counted_mm2: float) -> float:
    """The count per 2 mm²; see `count_per`."""
    return count_per(count, counted_mm2, HOTSPOT_MM2)


def count_per_10hpf(count: float, counted_mm2: float, hpf_mm2: float = HPF_MM2) -> float:
    """The count per ten high power fields; see `count_per`."""
    return count_per(count, counted_mm2, hpf_to_mm2(10, hpf_mm2))


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise BadOption(f"{name} must be a positive number, not {value}")
