"""What benchmarks read: the user's slides, or phantoms drawn for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import ManifestRow, manifest_from_globs, read_manifest

CODECS: Final = {"JPEG": "phantom-breast-a", "JPEG2000": "phantom-sarcoma-a"}
"""Phantom domains whose scanners write each codec."""
SEED: Final = 710_000
SIDE_PX: Final = 8192
"""Of phantoms; at 0.25 µm/px one region of 2048 µm, as large slides are mostly cut into."""


@dataclass(frozen=True)
class Material:
    """Slides to measure on. `folder`: for phantoms, which are drawn when first asked for, and for runs."""

    folder: Path
    slides: Sequence[str] | None
    quick: bool

    @property
    def about(self) -> str:
        """What the figures are of."""
        if self.slides:
            return f"Slides: {', '.join(Path(path).name for path in self.slides)}"
        return "Phantoms: their tissue is drawn, their files are as scanners write them"

    @cached_property
    def cohorts(self) -> dict[str, list[ManifestRow]]:
        """Manifests by name: the user's slides, or phantoms by codec."""
        if self.slides:
            return {"slides": manifest_from_globs(list(self.slides))}
        return {codec: self._drawn(codec, domain) for codec, domain in CODECS.items()}

    def _drawn(self, codec: str, domain: str) -> list[ManifestRow]:
        n_slides, side_px = (2, 1600) if self.quick else (4, SIDE_PX)
        folder = self.folder / f"{codec.lower()}-{n_slides}-{side_px}"
        manifest = folder / "manifest.csv"
        if not manifest.exists():
            draw_cohort(folder, n_slides=n_slides, seed=SEED, width_px=side_px, height_px=side_px, domains=[domain])
        return read_manifest(str(manifest))
