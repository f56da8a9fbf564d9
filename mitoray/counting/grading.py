"""What grading systems make of a mitotic count. Each says where its numbers are from, and what it decides on its own.

Helpers, no diagnosis: the systems were made for counts by eye at the microscope, a grade needs the other criteria too,
and a count of the densest field, found by exhaustive search, is higher than that of the field that a person chooses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mitoray.counting.fields import TEN_HPF_MM2, count_per
from mitoray.errors import BadOption

NOTTINGHAM: Final[Mapping[int, tuple[int, int]]] = {
    40: (4, 10),
    41: (4, 10),
    42: (5, 11),
    43: (5, 11),
    44: (5, 12),
    45: (5, 12),
    46: (6, 13),
    47: (6, 13),
    48: (6, 14),
    49: (6, 14),
    50: (7, 15),
    51: (7, 15),
    52: (7, 16),
    53: (8, 17),
    54: (8, 17),
    55: (8, 18),
    56: (8, 18),
    57: (9, 19),
    58: (9, 20),
    59: (9, 20),
    60: (10, 21),
    61: (10, 22),
    62: (11, 23),
    63: (11, 23),
    64: (11, 24),
    65: (12, 25),
    66: (12, 25),
    67: (12, 26),
    68: (13, 27),
    69: (13, 28),
}
"""Field diameter in 1/100 mm: most figures in ten fields of score 1, and fewest of score 3.

College of American Pathologists, protocol for invasive carcinoma of the breast (Fitzgibbons and Connolly 2023), table
"Score categories according to field diameter and mitotic count", after Elston and Ellis 1991.
"""


def nottingham_score(count: int, *, field_diameter_mm: float | None = None, counted_mm2: float | None = None) -> int:
    """Mitotic score 1, 2 or 3 of the Nottingham grade of breast cancer, by the CAP's table.

    count: figures in ten fields. Give the fields' diameter, or the area in which was counted, taken as ten fields of
    a tenth each: 2 mm² are ten fields of 0.50 mm, score 2 from 8 and score 3 from 15. Diameters are rounded to the
    table's 0.01 mm. Raises BadOption for none or both, a negative count, or what the table has not (0.40 to 0.69 mm,
    1.2 to 3.8 mm²).
    """
    if (field_diameter_mm is None) == (counted_mm2 is None):
        raise BadOption("give either field_diameter_mm or counted_mm2")
    if count < 0:
        raise BadOption(f"a count must not be negative, and is {count}")
    given = field_diameter_mm if counted_mm2 is None else math.sqrt(max(counted_mm2, 0) / 10 * 4 / math.pi)
    key = round(given * 100) if given is not None and math.isfinite(given) else 0
    if key not in NOTTINGHAM:
        raise BadOption(
            f"the table has fields of 0.40 to 0.69 mm, ten of which are 1.26 to 3.74 mm², and none of {given:.3g} mm; "
            "count in an area of that size"
        )
    most_of_1, fewest_of_3 = NOTTINGHAM[key]
    return 1 if count <= most_of_1 else 2 if count < fewest_of_3 else 3


@dataclass(frozen=True)
class Scheme:
    """A grading system's cut-offs on the count per ten HPF.

    cut_offs: fewest figures per ten HPF of each level above the first. levels: their names, from the first on.
    decides: what the level is within the system. source: where the cut-offs are from.
    """

    tumour: str
    cut_offs: tuple[int, ...]
    levels: tuple[str, ...]
    decides: str
    source: str

    def level(self, count: int, counted_mm2: float = TEN_HPF_MM2) -> str:
        """The level of a count. That of another area is scaled to 2.37 mm² and rounded to whole figures, half up.

        Raises BadOption for a negative count or an area that is not positive.
        """
        per_10hpf = math.floor(count_per(count, counted_mm2, TEN_HPF_MM2) + 0.5)
        return self.levels[sum(per_10hpf >= cut_off for cut_off in self.cut_offs)]


CANINE: Final[Mapping[str, Scheme]] = {
    scheme.tumour: scheme
    for scheme in (
        Scheme(
            "canine cutaneous mast cell tumour",
            (7,),
            ("not high by its count", "high"),
            "high grade by itself; below, three criteria of nuclei may still make it high",
            "Kiupel et al. 2011, Vet. Pathol. 48, 147–155: at least 7 per 10 HPF",
        ),
        Scheme(
            "canine lymphoma",
            (61, 101),
            ("1", "2", "3"),
            "the grade",
            "Valli et al. 2013, Vet. Pathol. 50, 738–748, as Aubreville et al. 2023 give it: above 60, and above 100",
        ),
        Scheme(
            "canine soft tissue sarcoma",
            (10, 20),
            ("1", "2", "3"),
            "the mitotic score, to which those of differentiation and necrosis are added",
            "Dennis et al. 2011, Vet. Pathol. 48, 73–84, after Trojani et al. 1984: 0 to 9, 10 to 19, above 19",
        ),
        Scheme(
            "canine mammary carcinoma",
            (10, 20),
            ("1", "2", "3"),
            "the mitotic score, to which those of tubules and nuclei are added",
            "Peña et al. 2013, Vet. Pathol. 50, 94–105: 0 to 9, 10 to 19, above 19 per 10 HPF of 0.237 mm²",
        ),
        Scheme(
            "canine lung carcinoma",
            (31,),
            ("not the highest", "highest"),
            "whether the count is of the highest of four levels; the lower ones are not told apart here",
            "Aubreville et al. 2023, Sci. Data 10, 484, of the grading after McNiel et al. 1997: above 30",
        ),
    )
}
"""The systems for the canine tumours of MIDOG++ (Aubreville et al. 2023), by tumour; HPF of 0.237 mm² (Meuten 2016)."""
