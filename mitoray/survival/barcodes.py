"""TCGA barcodes: from a slide's name to its patient."""

import re
from dataclasses import dataclass
from typing import Final

_BARCODE: Final = re.compile(
    r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"
    r"(?:-(?P<sample>\d{2})[A-Z]?(?:-(?P<portion>\d{2})[A-Z]?)?(?:-(?P<section>(?:DX|TS|BS|MS)[A-Z0-9]*))?)?"
    r"(?:[-._ ].*)?",
    re.IGNORECASE | re.DOTALL,
)

PRIMARY_TUMOUR: Final = "01"
_TISSUE: Final = {
    "02": "a recurrence",
    "05": "another primary tumour",
    "06": "a metastasis",
    "07": "another metastasis",
    "10": "normal blood",
    "11": "normal tissue",
}
"""TCGA's sample type codes of solid tumours, except 01, the primary tumour."""


@dataclass(frozen=True)
class Barcode:
    """A TCGA barcode. patient: TCGA-XX-XXXX; sample: two digits, 01 is the primary tumour, None where not given.

    section: DX1 for a diagnostic slide, TS, BS or MS for frozen ones, None where not given.
    """

    patient: str
    sample: str | None = None
    section: str | None = None

    @property
    def other_tissue(self) -> str | None:
        """What the sample is of where it is not of the primary tumour."""
        if self.sample in (None, PRIMARY_TUMOUR):
            return None
        return _TISSUE.get(str(self.sample), "another tissue than the primary tumour")


def barcode_of(name: str) -> Barcode | None:
    """The barcode that a slide's or case's name starts with, in any case; None where it starts with none.

    TCGA-XX-XXXX-01Z-00-DX1, with or without a UUID and a file's ending behind, and TCGA-XX-XXXX alone.
    """
    found = _BARCODE.fullmatch(name.strip())
    if found is None:
        return None
    section = found["section"]
    return Barcode(found["patient"].upper(), found["sample"], section.upper() if section else None)
