"""The domains of the phantoms: invented tissues, stains and scanners that differ as real ones do."""

from dataclasses import dataclass
from typing import Final, Literal

from mitoray.errors import BadOption

MIN_MPP: Final = 0.2
MAX_MPP: Final = 0.6
MAX_PER_MM2: Final = 20_000


@dataclass(frozen=True)
class Stain:
    """What haematoxylin and eosin do to light, as optical densities per unit of stain (red, green, blue).

    The vectors lie around those of Ruifrok and Johnston (2001); the strengths scale how dark a laboratory stains.
    """

    haematoxylin: tuple[float, float, float] = (0.62, 0.71, 0.33)
    eosin: tuple[float, float, float] = (0.11, 0.86, 0.40)
    haematoxylin_strength: float = 1.0
    eosin_strength: float = 1.0


@dataclass(frozen=True)
class Scanner:
    """How a scanner sees the slide: µm per pixel, sharpness, noise, white balance and the codec of its files."""

    mpp: float = 0.25
    blur_um: float = 0.25
    """Standard deviation of the point spread, µm."""
    noise: float = 2.0
    """Standard deviation of the sensor noise, in 8-bit grey values."""
    white: tuple[int, int, int] = (243, 242, 244)
    """Grey values of empty glass (red, green, blue)."""
    codec: Literal["jpeg", "jpeg2000"] = "jpeg"
    jpeg_quality: int = 85
    """JPEG quality, 1 to 100; of a JPEG2000 file, its signal-to-noise ratio in dB is half of it."""
    tile_px: int = 256


@dataclass(frozen=True)
class Tumour:
    """What grows on the slide."""

    nucleus_um: float = 8.5
    """Mean diameter of tumour nuclei, µm."""
    nucleus_spread: float = 0.14
    """Standard deviation of the diameter, as a share of it."""
    elongation: float = 1.25
    """Mean ratio of a nucleus' length to its width."""
    vesicular: float = 0.5
    """0: evenly dark nuclei; 1: pale ones with a dark rim and plain nucleoli."""
    nuclei_per_mm2: float = 6000.0
    cleft_um: float = 0.6
    """Width of the pale seam between two cells, µm."""
    nest_share: float = 0.6
    """Share of the tissue that tumour cells fill; the rest is stroma."""
    fat_share: float = 0.1
    lymphocytes_per_mm2: float = 500.0
    figures_per_mm2: float = 25.0
    imposters_per_mm2: float = 35.0
    atypical_share: float = 0.18


@dataclass(frozen=True)
class PhantomDomain:
    """A phantom domain: an invented tumour, stained in an invented laboratory, seen by an invented scanner."""

    name: str
    description: str
    tumour: Tumour
    stain: Stain
    scanner: Scanner

    def __post_init__(self) -> None:
        tumour = self.tumour
        if not MIN_MPP <= self.scanner.mpp <= MAX_MPP:
            raise BadOption(
                f"{self.name}: mpp is {self.scanner.mpp}; phantoms are drawn at {MIN_MPP} to {MAX_MPP} µm/px"
            )
        for option in ("nest_share", "fat_share", "atypical_share", "vesicular"):
            if not 0 <= getattr(tumour, option) <= 1:
                raise BadOption(f"{self.name}: {option} is {getattr(tumour, option)}; give a share from 0 to 1")
        for option, least in (("figures_per_mm2", 0), ("imposters_per_mm2", 0), ("nuclei_per_mm2", 500)):
            value = getattr(tumour, option)
            if not least <= value <= MAX_PER_MM2:
                raise BadOption(f"{self.name}: {option} is {value}; give {least} to {MAX_PER_MM2} per mm²")

    @property
    def mpp(self) -> float:
        """µm per pixel of the scanner."""
        return self.scanner.mpp


def domain_named(name: str) -> PhantomDomain:
    """The domain of that name in `DOMAINS`; `BadOption` names the known ones if there is none."""
    if name not in DOMAINS:
        raise BadOption(f"no phantom domain is called {name!r}; known are {', '.join(sorted(DOMAINS))}")
    return DOMAINS[name]


DOMAINS: Final[dict[str, PhantomDomain]] = {
    domain.name: domain
    for domain in (
        PhantomDomain(
            "phantom-breast-a",
            "carcinoma nests in collagen, balanced stain, sharp scanner at 0.25 µm/px",
            Tumour(),
            Stain(),
            Scanner(),
        ),
        PhantomDomain(
            "phantom-breast-b",
            "the same carcinoma, bluish stain, softer scanner at 0.23 µm/px",
            Tumour(vesicular=0.7, fat_share=0.12),
            Stain(haematoxylin=(0.74, 0.62, 0.25), haematoxylin_strength=1.1, eosin_strength=0.75),
            Scanner(mpp=0.23, blur_um=0.38, noise=2.5, white=(236, 238, 246), jpeg_quality=80, tile_px=240),
        ),
        PhantomDomain(
            "phantom-lymphoma-a",
            "sheets of round cells with pale seams, magenta stain, 0.25 µm/px",
            Tumour(
                nucleus_um=7.6,
                nucleus_spread=0.1,
                elongation=1.12,
                vesicular=0.6,
                nuclei_per_mm2=8200,
                cleft_um=1.3,
                nest_share=0.9,
                fat_share=0.03,
                lymphocytes_per_mm2=200,
                figures_per_mm2=45,
                imposters_per_mm2=45,
            ),
            Stain(haematoxylin=(0.58, 0.76, 0.29), eosin=(0.12, 0.93, 0.24), eosin_strength=1.2),
            Scanner(white=(247, 243, 247)),
        ),
        PhantomDomain(
            "phantom-mast-cell-a",
            "loose round cells in pink stroma, orange-brown stain, 0.25 µm/px",
            Tumour(
                nucleus_um=8.0,
                vesicular=0.35,
                nuclei_per_mm2=4800,
                cleft_um=0.9,
                nest_share=0.7,
                figures_per_mm2=15,
                imposters_per_mm2=40,
            ),
            Stain(haematoxylin=(0.60, 0.68, 0.42), eosin=(0.12, 0.74, 0.60), haematoxylin_strength=0.95),
            Scanner(blur_um=0.3, white=(246, 240, 232), jpeg_quality=90),
        ),
        PhantomDomain(
            "phantom-sarcoma-a",
            "large spindle and giant nuclei, strong eosin, JPEG2000 at 0.25 µm/px",
            Tumour(
                nucleus_um=10.0,
                nucleus_spread=0.24,
                elongation=1.7,
                vesicular=0.55,
                nuclei_per_mm2=3600,
                cleft_um=0.3,
                nest_share=0.75,
                fat_share=0.04,
                figures_per_mm2=20,
                atypical_share=0.35,
            ),
            Stain(eosin=(0.08, 0.90, 0.32), haematoxylin_strength=1.05, eosin_strength=1.35),
            Scanner(blur_um=0.32, noise=2.5, white=(240, 240, 240), codec="jpeg2000", tile_px=240),
        ),
        PhantomDomain(
            "phantom-melanoma-a",
            "epithelioid nests with pigment and plain nucleoli, dark stain, 0.23 µm/px",
            Tumour(
                nucleus_um=9.6,
                nucleus_spread=0.2,
                vesicular=0.9,
                nuclei_per_mm2=4600,
                cleft_um=0.8,
                nest_share=0.7,
                figures_per_mm2=30,
                imposters_per_mm2=55,
                atypical_share=0.25,
            ),
            Stain(haematoxylin=(0.68, 0.67, 0.30), haematoxylin_strength=1.25, eosin_strength=1.05),
            Scanner(mpp=0.23, blur_um=0.28, noise=1.5, white=(244, 246, 246), jpeg_quality=75),
        ),
        PhantomDomain(
            "phantom-neuroendocrine-a",
            "small even nuclei in ribbons, pale violet stain, 0.5 µm/px",
            Tumour(
                nucleus_um=7.4,
                nucleus_spread=0.08,
                elongation=1.15,
                vesicular=0.25,
                nuclei_per_mm2=7200,
                cleft_um=0.4,
                nest_share=0.65,
                figures_per_mm2=12,
                imposters_per_mm2=25,
                atypical_share=0.1,
            ),
            Stain(haematoxylin=(0.62, 0.71, 0.33), haematoxylin_strength=0.85, eosin_strength=0.7),
            Scanner(mpp=0.5, blur_um=0.3, noise=1.5, white=(240, 238, 245)),
        ),
        PhantomDomain(
            "phantom-lung-a",
            "pleomorphic carcinoma with many lymphocytes, red stain, noisy scanner at 0.25 µm/px",
            Tumour(
                nucleus_um=9.2,
                nucleus_spread=0.2,
                vesicular=0.65,
                nuclei_per_mm2=5000,
                nest_share=0.5,
                fat_share=0.15,
                lymphocytes_per_mm2=1500,
                figures_per_mm2=30,
                imposters_per_mm2=45,
                atypical_share=0.22,
            ),
            Stain(haematoxylin=(0.55, 0.78, 0.30), eosin=(0.05, 0.90, 0.48), eosin_strength=1.1),
            Scanner(blur_um=0.35, noise=3.5, white=(250, 246, 243), jpeg_quality=80),
        ),
    )
}
"""The phantom domains by name. No patient, laboratory or scanner stands behind any of them."""
